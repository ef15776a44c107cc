"""A store with known objects, and what must hold of it whatever failed: nothing that was reported as done is lost.

A campaign gives operations to the scene and faults to the machine. The scene runs the operations, knows which objects
there must be, and raises `Broken` when the store tells something else.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conftest import command_path

CONTAINER, TAG, VOLUME = "container", "tag", "volume"
LIMIT = 90.0
"""Seconds after which a command counts as hanging."""

Thing = tuple[str, str]
"""The kind of an object and its name."""


class Broken(Exception):
    """A promise was not kept; the text says which."""


class Done(NamedTuple):
    """A command that has ended. code: negative for a signal."""

    words: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"rootless {' '.join(self.words)}: exit {self.code}\n{self.stdout[-2000:]}{self.stderr[-4000:]}"


class Operation(NamedTuple):
    """One command of a campaign. makes, ends: the objects that are there, or gone, once it has ended with 0.

    moves: `makes` is what `ends` becomes, so that one of them is there at any time; input: its standard input.
    """

    words: tuple[str, ...]
    makes: tuple[Thing, ...] = ()
    ends: tuple[Thing, ...] = ()
    moves: bool = False
    input: bytes = b""


class User(NamedTuple):
    """Who runs the tool. uid, gid: None for who runs the campaign."""

    home: str
    runtime: str
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def caller(cls) -> User:
        """The user of this process."""
        return cls(os.environ.get("HOME", "/nonexistent"), os.environ.get("XDG_RUNTIME_DIR", ""))


class Scene:
    """A store below `root` in which there are images, containers and volumes, of which the names are known."""

    def __init__(self, root: Path, files: Path, user: User) -> None:
        self.root = root
        self.files = files
        self.user = user
        self.things: set[Thing] = set()
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": user.home,
            "ROOTLESS_ROOT": str(root),
            "XDG_RUNTIME_DIR": user.runtime,
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def set_up(self) -> None:
        """Make the image, and what operations are given: files, an archive, a build context."""
        self.must("image", "bootstrap", "busybox")
        self.things = {(TAG, "busybox")}
        self.files.mkdir(exist_ok=True)
        (self.files / "context").mkdir()
        (self.files / "context/file").write_text("content\n" * 1000)
        (self.files / "context/Dockerfile").write_text("FROM busybox\nCOPY file /a\nRUN echo built >/b\n")
        with tarfile.open(self.files / "tree.tar", "w") as tar:
            for name, size in (("one", 10), ("two", 300_000)):
                info = tarfile.TarInfo(name)
                info.size = size
                tar.addfile(info, io.BytesIO(random.Random(name).randbytes(size)))
        if self.user.uid is not None:
            for path in (self.files, *self.files.rglob("*")):
                os.chown(path, self.user.uid, self.user.gid or 0)
        self.must("import", str(self.files / "tree.tar"), "faults/loaded:1")
        self.must("save", "-o", str(self.files / "image.tar"), "--format", "oci-archive", "faults/loaded:1")
        self.must("rmi", "faults/loaded:1")

    def start(
        self, words: Sequence[str], *, prefix: Sequence[str] = (), output: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Start `rootless WORDS`, in a session of its own."""
        return subprocess.Popen(
            [*prefix, *command_path(), *words],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=self.environment,
            cwd="/",
            start_new_session=True,
            user=self.user.uid,
            group=self.user.gid,
            extra_groups=None if self.user.uid is None else [],
        )

    def finish(self, words: Sequence[str], process: subprocess.Popen[bytes], input: bytes = b"") -> Done:
        """Wait for it. Raises Broken when it hangs or breaks down."""
        try:
            stdout, stderr = process.communicate(input, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Broken(f"rootless {' '.join(words)}: hangs for {LIMIT:.0f} s") from None
        done = Done(tuple(words), process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
        if (
            "Traceback (most recent" in done.stderr and "importlib" not in done.stderr
        ) or "this is a bug" in done.stderr:
            raise Broken(str(done))
        return done

    def command(self, *words: str, input: bytes = b"", prefix: Sequence[str] = ()) -> Done:
        """Run a command to its end."""
        return self.finish(words, self.start(words, prefix=prefix), input)

    def run(self, operation: Operation, prefix: Sequence[str] = ()) -> Done:
        """Run an operation to its end."""
        return self.command(*operation.words, input=operation.input, prefix=prefix)

    def must(self, *words: str) -> str:
        """Run a command that has to work; what it prints. Raises Broken."""
        done = self.command(*words)
        if done.code:
            raise Broken(str(done))
        return done.stdout

    def done(self, operation: Operation, done: Done, found: set[Thing] | None = None) -> None:
        """Note how an operation ended. What did not end with 0 may have had its effect or not: the store says.

        found: what `seen` has said since.
        """
        if done.code == 0:
            self.things |= set(operation.makes)
            self.things -= set(operation.ends)
            return
        found = self.seen() if found is None else found
        unsure = {*operation.makes, *operation.ends}
        if operation.moves and not unsure & found:
            raise Broken(f"both names are gone after {done}")
        self.things = (self.things - unsure) | (unsure & found)

    def seen(self) -> set[Thing]:
        """The objects that the store tells of. Raises Broken when a command complains."""
        found: set[Thing] = set()
        for kind, words in (
            (CONTAINER, ("ps", "-a", "--format", "{{.Names}}")),
            (TAG, ("images", "--format", "{{.Repository}}:{{.Tag}}")),
            (VOLUME, ("volume", "ls", "-q")),
        ):
            done = self.command(*words)
            if done.code or any(word in done.stderr for word in ("damaged", "left out")):
                raise Broken(str(done))
            found |= {(kind, _short(name)) for name in done.stdout.split() if name != "<none>:<none>"}
        return found

    def look(self, found: set[Thing] | None = None) -> None:
        """Every object that must be there is, and no other that a campaign makes. Raises Broken."""
        found = self.seen() if found is None else found
        if missing := self.things - found:
            raise Broken(f"lost: {sorted(missing)}; there are {sorted(found)}")
        if extra := {thing for thing in found - self.things if thing[1].startswith("f-")}:
            raise Broken(f"came back, or was never reported: {sorted(extra)}")

    def look_deeper(self) -> None:
        """`look`, and a container can be run, and everything in the store is whole. Raises Broken."""
        self.look()
        if (TAG, "busybox") in self.things and self.must(
            "run", "--rm", "--network=none", "busybox", "echo", "alive"
        ) != "alive\n":
            raise Broken("a new container says nothing")
        self.must("system", "check")

    def clear(self) -> None:
        """Remove everything through the tool, and see that nothing is left. Raises Broken."""
        names = [name for kind, name in sorted(self.things) if kind == CONTAINER]
        if names:
            self.must("rm", "-f", *names)
        self.must("system", "prune", "-af", "--volumes")
        for part in ("containers", "names", "trash", "incoming"):
            if left := os.listdir(self.root / part):
                raise Broken(f"{part} still holds {left}")
        for _ in range(100):
            if not (left_over := processes(self.root)):
                break
            time.sleep(0.1)
        else:
            raise Broken(f"processes are left: {[each.words for each in left_over]}")
        self.things = set()


def _short(name: str) -> str:
    return name.removeprefix("localhost/").removesuffix(":latest")


class Process(NamedTuple):
    """A process that has to do with a store. words: its command line; is_client: whether it is a command."""

    pid: int
    words: str
    is_client: bool
    is_monitor: bool


def processes(root: Path) -> list[Process]:
    """The processes that run for the store `root`: by their environment, arguments or open files."""
    found = []
    wanted = f"ROOTLESS_ROOT={root}".encode()
    own = os.getpid()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == own:
            continue
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes()
            belongs = str(root).encode() in words or wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            if not belongs:
                fds = f"/proc/{name}/fd"
                belongs = any(os.readlink(f"{fds}/{fd}").startswith(f"{root}/") for fd in os.listdir(fds))
        except OSError:
            continue
        if belongs and words:
            text = words.replace(b"\0", b" ").decode(errors="replace")[:300]
            found.append(Process(int(name), text, "rootless.cli.entry" in text, "rootless.monitor" in text))
    return found


def kill(process: Process) -> bool:
    """End it at once; whether it was there."""
    try:
        os.kill(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def remove_files(scene: Scene) -> None:
    """Remove the campaign's own files."""
    shutil.rmtree(scene.files, ignore_errors=True)
