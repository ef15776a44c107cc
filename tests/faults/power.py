"""Power cuts: the store lies on ext4 in a file, which is shut down without a last word in a command or after it.

`EXT4_IOC_SHUTDOWN` with NOLOGFLUSH ends all writing at once: what is not on the disk by then is lost, and the journal
ends where it was. The journal is committed every second, so that names reach the disk long before the bytes that were
not synced, as on a machine that loses its power a minute after a command.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from rootless.engine.report_types import BLOB, CONTAINER, IMAGE, INDEX, LAYER, NAME, VOLUME
from tests.faults.campaign import Campaign, Trial
from tests.faults.layout_registry import LayoutRegistry
from tests.faults.operations import Operations
from tests.faults.scene import Broken, Done, Operation, Scene, Thing, User, processes

_EXT4_IOC_SHUTDOWN, _NOLOGFLUSH = 0x8004587D, 2
_SIZE = 256 << 20
_AT_ONCE = 30
"""Trials between two times that the store is emptied."""
_KINDS = {BLOB, LAYER, IMAGE, CONTAINER, VOLUME, NAME, INDEX}
_TRIED = (
    "create", "run_detached", "rename", "tag", "volume_create", "pull", "import", "load", "build", "commit", "remove",
    "update", "run_kept", "untag", "volume_remove",
)  # fmt: skip


class Disk:
    """An ext4 file system in a file, on `place`."""

    def __init__(self, directory: Path, options: str) -> None:
        self.image = directory / "disk"
        self.place = directory / "mnt"
        self.options = options
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(_SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        self.mount()

    def mount(self) -> None:
        """Mount it; the journal is replayed."""
        subprocess.run(["mount", "-o", f"loop,{self.options}", self.image, self.place], check=True)

    def cut(self) -> None:
        """From now on nothing is written any more."""
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(fd)

    def unmount(self, root: Path) -> None:
        """Let it go, with everybody who holds it. Raises Broken when somebody does not."""
        for _ in range(200):
            for process in processes(root):
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if (
                not os.path.ismount(self.place)
                or not subprocess.run(["umount", self.place], capture_output=True).returncode
            ):
                break
            time.sleep(0.05)
        for _ in range(200):
            attached = subprocess.run(["losetup", "-j", self.image], capture_output=True, text=True, check=True).stdout
            if not attached:
                return
            time.sleep(0.05)
        raise Broken(f"somebody still uses the disk: {attached}")


class PowerCuts(Campaign):
    """What was reported as done is there after the cut, whole; what was in the middle is there or not, and not half."""

    name = "power"

    def __init__(self, user: str | None) -> None:
        super().__init__()
        self._user = user

    def why_not(self) -> str:
        """Mounting wants root."""
        if os.geteuid() or Path("/proc/self/uid_map").read_text().split()[2] == "1":
            return "an ext4 in a file is mounted by root only"
        if self._user is None:
            return "root has to name a user, for whom the tool runs (--user)"
        if not os.path.exists("/dev/loop-control") or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin") is None:
            return "no loop devices, or no mkfs.ext4 (apt-get install e2fsprogs)"
        return ""

    def scene(self, rng: random.Random) -> Scene:
        """A new disk. One of two gives up what ext4 does for programs that do not sync."""
        account = pwd.getpwnam(self._user or "")
        directory = Path(tempfile.mkdtemp(prefix="power.", dir="/var/lib/rootless-test"))
        directory.chmod(0o755)
        self._disk = Disk(directory, rng.choice(("commit=1", "commit=1,noauto_da_alloc")))
        home = self._disk.place / "home"
        home.mkdir()
        os.chown(home, account.pw_uid, account.pw_gid)
        user = User(str(home), f"/run/user/{account.pw_uid}", account.pw_uid, account.pw_gid)
        return Scene(home / "store", directory / "files", user)

    def close(self, scene: Scene) -> None:
        """Let the disk go."""
        self._disk.unmount(scene.root)
        shutil.rmtree(self._disk.image.parent)

    def trials(self, scene: Scene, rng: random.Random) -> Trial:
        """Cuts of one disk."""
        registry = LayoutRegistry(scene, "faults/pulled:1")
        operations = Operations(scene, pulls_from=registry.address)
        ended: set[Thing] = set()
        try:
            number = 0
            while True:
                name = _TRIED[number % len(_TRIED)]
                number += 1
                operation = operations.names[name](rng)
                if operation is None:
                    name, operation = operations.pick(rng, ("create",))
                ended |= set(operation.ends)
                yield from self._trial(scene, rng, name, operation, ended)
                if number % _AT_ONCE == 0:
                    ended |= scene.things
                    scene.clear()
                    scene.must("image", "bootstrap", "busybox")
                    scene.things = {("tag", "busybox")}
        finally:
            registry.close()

    def _trial(self, scene: Scene, rng: random.Random, name: str, operation: Operation, ended: set[Thing]) -> Trial:
        middle = rng.random() < 0.3
        moment = rng.random() * (0.6 if middle else 3.0)
        when = "begin" if middle else "end"
        self.says(f"{' '.join(operation.words)} · power cut {moment:.3f} s after its {when}, {self._disk.options}")
        if middle:
            process = scene.start(operation.words)
            time.sleep(moment)
            self._disk.cut()
            try:
                process.kill()
                stdout, stderr = process.communicate(operation.input, timeout=60)
            except OSError as e:
                raise Broken(f"{e}") from e
            done = Done(operation.words, process.returncode, stdout.decode(), stderr.decode())
        else:
            done = scene.run(operation)
            if done.code:
                raise Broken(str(done))
            time.sleep(moment)
            self._disk.cut()
        self._disk.unmount(scene.root)
        self._disk.mount()
        self.count(name, "cut in the middle" if middle and done.code else "cut after it")
        found = scene.seen()
        scene.done(operation, done, found)
        # a removal is not promised to be on the disk
        scene.things |= found & ended
        scene.look(found)
        self._whole(scene, rng)
        yield

    def _whole(self, scene: Scene, rng: random.Random) -> None:
        """Nothing is damaged, but for states, which are not synced and can be put right; and a container can start."""
        checked = scene.command("system", "check")
        if checked.code:
            damaged = [line for line in checked.stdout.splitlines() if line.partition(" ")[0].rstrip(":") in _KINDS]
            if not damaged or not all("/state.json' is not JSON" in line for line in damaged):
                raise Broken(str(checked))
            self.count("states that were cut off", "repaired")
            scene.command("system", "check", "--repair")
            scene.must("system", "check")
        containers = sorted(name for kind, name in scene.things if kind == CONTAINER)
        if containers:
            scene.must("start", rng.choice(containers))
