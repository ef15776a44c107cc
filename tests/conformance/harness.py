"""One runtime under test, the bundle that a case works with, and the register of cases. It judges nothing.

A case is a function that takes a Box and asserts. It knows no runtime: what differs between runtimes is written down in
`deviations`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rootless.host.subid import default_id_map
from tests.conftest import REPOSITORY, oci_command_path

PATIENCE = 60.0
"""Seconds until something that has to happen counts as missing; a machine may be slow."""
SOURCE = Path(__file__).with_name("probe.c")
BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "true", "false", "cat", "echo", "sleep", "id", "ls", "touch", "readlink", "usleep", "kill", "mkdir",
           "tty", "stat", "test", "mount", "grep", "rm", "mknod", "od", "seq", "head", "env")  # fmt: skip
_OWN_FLAGS = {"crun": ["--cgroup-manager=disabled"]}
_HYBRID = "/sys/fs/cgroup/unified"
_HOLD = """
import sys
sys.path[:0] = {path!r}
from rootless.host.subid import default_id_map
from rootless.host.userns import enter_new_namespace
from rootless.kernel.mounts import MS_RDONLY, mount
enter_new_namespace(default_id_map())
mount("tmpfs", {hybrid!r}, "tmpfs", MS_RDONLY, "size=4k")
print("up", flush=True)
sys.stdin.read()
"""
_JOIN = """
import os, sys
sys.path[:0] = {path!r}
from rootless.kernel.namespaces import CLONE_NEWNS, CLONE_NEWUSER, setns
place = os.getcwd()
fds = [os.open("/proc/{pid}/ns/" + name, os.O_RDONLY) for name in ("user", "mnt")]
setns(fds[0], CLONE_NEWUSER)
setns(fds[1], CLONE_NEWNS)
os.chdir(place)
os.execv(sys.argv[1], sys.argv[1:])
"""
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "user")
MOUNTS = (
    ("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
    ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
)


class NotApplicable(Exception):
    """This host, or this user, cannot show what the case is about."""


class Case(NamedTuple):
    """One question to a runtime. where: the chapter of runtime-spec; demand: MUST, SHOULD, or EXTRA for what the
    specification leaves open and callers of runc's command line count on."""

    id: str
    where: str
    demand: str
    function: Callable[[Box], None]

    @property
    def sentence(self) -> str:
        """What is asked, in words."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    def __str__(self) -> str:
        return self.id


CASES: dict[str, Case] = {}


def case(where: str, demand: str = "MUST") -> Callable[[Callable[[Box], None]], Callable[[Box], None]]:
    """Register a case."""

    def register(function: Callable[[Box], None]) -> Callable[[Box], None]:
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        assert name not in CASES and function.__doc__
        CASES[name] = Case(name, where, demand, function)
        return function

    return register


class Runtime:
    """A runtime's command line, by path (with flags of its own, if any); name: crun, runc, rootless-oci, ...

    crun refuses a host where cgroup v1 and v2 are mounted side by side (hybrid), even when it is to make no cgroup.
    There it is called from inside a user and mount namespace that hides v2, as podman would call it: `surrounded`.
    """

    def __init__(self, command: Sequence[str], name: str) -> None:
        self.name = name
        self.environment: dict[str, str] = {}
        self.command = [*command, *_OWN_FLAGS.get(name, ())]
        self.surrounded = name == "crun" and os.path.exists(_HYBRID)
        self._holder: subprocess.Popen[str] | None = None
        if self.surrounded:
            hold = _HOLD.format(path=[str(REPOSITORY)], hybrid=_HYBRID)
            self._holder = subprocess.Popen(
                [sys.executable, "-I", "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert self._holder.stdout and self._holder.stdout.readline() == "up\n"
            join = _JOIN.format(path=[str(REPOSITORY)], pid=self._holder.pid)
            self.command = [sys.executable, "-I", "-c", join, *self.command]

    def close(self) -> None:
        """End the surroundings."""
        if self._holder is not None:
            self._holder.communicate()
            self._holder = None

    def version(self) -> str:
        """The number that `--version` says first."""
        done = subprocess.run([*self.command, "--version"], capture_output=True, text=True, timeout=60)
        words = done.stdout.split()
        return next((w for w in words if w[0].isdigit()), "") if words else ""


def runtime(text: str) -> Runtime | None:
    """The runtime of a path or a name on PATH; None when there is none. `rootless-oci` is that of this checkout."""
    if text == "rootless-oci":
        return Runtime(oci_command_path(), text)
    words = shlex.split(text)
    path = shutil.which(words[0], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return Runtime([path, *words[1:]], os.path.basename(path)) if path else None


def compiler() -> str | None:
    """A C compiler that links statically."""
    return shutil.which("musl-gcc") or shutil.which("gcc")


def make_root(directory: Path) -> Path:
    """The root file system that every box gets a copy (by hard links) of: busybox and the probe."""
    root = directory / "template"
    for name in ("bin", "etc", "tmp", "data/sub"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "data/file").write_text("of the image\n")
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    program = compiler()
    assert program
    subprocess.run([program, "-static", "-O1", "-o", root / "bin/probe", SOURCE], check=True, timeout=120)
    return root


class Done(NamedTuple):
    """A finished call of the runtime."""

    status: int
    out: str
    err: str

    @property
    def failed(self) -> bool:
        return self.status != 0


class Box:
    """A bundle, a records' root and the verbs of one runtime. `config` is written before create and run."""

    def __init__(self, under_test: Runtime, directory: Path, template: Path) -> None:
        self.runtime = under_test
        self.directory = directory
        self.path = directory / "b"
        self.path.mkdir()
        self.root = self.path / "rootfs"
        shutil.copytree(template, self.root, symlinks=True, copy_function=os.link)
        for name in ("etc/passwd", "data/file"):  # those are written to
            content = (self.root / name).read_bytes()
            (self.root / name).unlink()
            (self.root / name).write_bytes(content)
        self.id = f"t{os.getpid()}{directory.name.replace('_', '')}"
        self.config = configuration(surrounded=under_test.surrounded)
        self.output = self.path / "out"
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(Path.home()),
            "XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", str(directory)),
            "XDG_CACHE_HOME": str(directory.parent / "cache"),
            **under_test.environment,
        }

    @property
    def process(self) -> dict[str, Any]:
        """`process` of the configuration."""
        value: dict[str, Any] = self.config["process"]
        return value

    @property
    def linux(self) -> dict[str, Any]:
        """`linux` of the configuration."""
        value: dict[str, Any] = self.config["linux"]
        return value

    def save(self) -> None:
        """Write config.json."""
        (self.path / "config.json").write_text(json.dumps(self.config))

    def call(self, *words: str, pass_fds: Sequence[int] = (), env: dict[str, str] | None = None,
             stdin: str = "") -> Done:  # fmt: skip
        """Run one verb of the runtime that leaves nothing running behind; its output is read to the end."""
        done = subprocess.run(
            [*self.runtime.command, "--root", str(self.directory / "r"), *words],
            cwd=self.path, capture_output=True, input=stdin.encode(), env={**self.environment, **(env or {})},
            pass_fds=pass_fds, timeout=2 * PATIENCE,
        )  # fmt: skip
        return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def call_with_fd_3(self, fd: int, *words: str) -> Done:
        """Run one verb that finds `fd` open as its fd 3. A child sees to it: in this process 3 may be anything."""
        script = f"import os, sys; os.dup2({fd}, 3); os.execv(sys.argv[1], sys.argv[1:])"
        done = subprocess.run(
            [sys.executable, "-I", "-c", script, *self.runtime.command, "--root", str(self.directory / "r"), *words],
            cwd=self.path, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=self.environment,
            pass_fds=(fd,), timeout=2 * PATIENCE,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def background(self, *words: str, pass_fds: Sequence[int] = (), env: dict[str, str] | None = None) -> Done:
        """Run one verb whose process goes on with our stdout: to the file `output`."""
        with self.output.open("ab") as out, open(os.devnull, "rb") as null:
            before = out.tell()
            status = subprocess.run(
                [*self.runtime.command, "--root", str(self.directory / "r"), *words],
                cwd=self.path, stdin=null, stdout=out, stderr=out, env={**self.environment, **(env or {})},
                pass_fds=pass_fds, timeout=2 * PATIENCE,
            ).returncode  # fmt: skip
        return Done(status, "", self.output.read_bytes()[before:].decode(errors="replace"))

    def run(self, *arguments: str, options: Sequence[str] = (), **settings: Any) -> Done:
        """`run` with these arguments of the process."""
        self.process["args"] = list(arguments)
        self.save()
        return self.call("run", *options, self.id, **settings)

    def sh(self, script: str, **settings: Any) -> Done:
        """`run` of a shell script."""
        return self.run("/bin/sh", "-c", script, **settings)

    def must_run(self, *arguments: str, **settings: Any) -> Done:
        """`run` that has to succeed."""
        done = self.run(*arguments, **settings)
        assert not done.failed, f"run failed: {done.err.strip()[-400:]}"
        return done

    def probe(self, *paths: str, **settings: Any) -> dict[str, Any]:
        """What the probe says from inside a new container."""
        answer: dict[str, Any] = json.loads(self.must_run("/bin/probe", *paths, **settings).out)
        return answer

    def must_fail(self, *, naming: str = "") -> Done:
        """`create` has to be refused, and to leave no container; the message may have to name a property."""
        self.save()
        done = self.background("create", self.id)
        assert done.failed, "create succeeded"
        assert not naming or naming in done.err, f"the message does not name '{naming}': {done.err.strip()[-300:]}"
        assert self.call("state", self.id).failed, "the refused container has a state"
        return done

    def create(self, *arguments: str, options: Sequence[str] = (), **settings: Any) -> None:
        """`create` that has to succeed."""
        self.process["args"] = list(arguments or ("/bin/sleep", "100"))
        self.save()
        done = self.background("create", *options, self.id, **settings)
        assert not done.failed, f"create failed: {done.err.strip()[-400:]}"

    def start(self, **settings: Any) -> None:
        """`start` that has to succeed."""
        done = self.background("start", self.id, **settings)
        assert not done.failed, f"start failed: {done.err.strip()[-400:]}"

    def up(self, *arguments: str) -> int:
        """A running container; the pid of its first process."""
        self.create(*arguments)
        self.start()
        return int(self.state()["pid"])

    def state(self) -> dict[str, Any]:
        """The answer of `state`."""
        done = self.call("state", self.id)
        assert not done.failed, f"state failed: {done.err.strip()}"
        answer: dict[str, Any] = json.loads(done.out)
        return answer

    def status(self) -> str:
        """`status` of the state."""
        return str(self.state()["status"])

    def until(self, fact: Callable[[], object], what: str) -> None:
        """Wait for `fact`."""
        deadline = time.monotonic() + PATIENCE
        while not fact():
            assert time.monotonic() < deadline, f"{what} did not come to pass"
            time.sleep(0.01)

    def until_status(self, status: str) -> None:
        """Wait for a status."""
        self.until(lambda: self.status() == status, f"status {status}")

    def mount(self, destination: str, fstype: str, source: str, *options: str) -> None:
        """Add a mount."""
        self.config["mounts"].append(
            {"destination": destination, "type": fstype, "source": source, "options": list(options)}
        )

    def bind(self, source: Path | str, destination: str, *options: str) -> None:
        """Add a bind mount."""
        self.mount(destination, "bind", str(source), *(options or ("rbind",)))

    def outside(self, name: str) -> Path:
        """A directory of the host for binds, with a file."""
        directory = self.directory / name
        directory.mkdir()
        (directory / "file").write_text("of the host\n")
        return directory

    def close(self) -> None:
        """Delete what a case left."""
        self.call("delete", "--force", self.id)


def configuration(*, surrounded: bool = False) -> dict[str, Any]:
    """A configuration that every runtime takes from this user: no limits, no cgroup mount, all ids that he has."""
    ids = default_id_map()
    mapped = [
        [{"containerID": e.container, "hostID": e.container if surrounded else e.host, "size": e.size} for e in extents]
        for extents in (ids.uids, ids.gids)
    ]
    names = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID",
             "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"]  # fmt: skip
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {key: list(names) for key in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "conformance",
        "mounts": [{"destination": d, "type": t, "source": s, "options": o} for d, t, s, o in MOUNTS],
        "linux": {
            "namespaces": [{"type": name} for name in NAMESPACES],
            "uidMappings": mapped[0],
            "gidMappings": mapped[1],
        },
    }


def own_range() -> bool:
    """Whether this user has more than one id to give."""
    return sum(e.size for e in default_id_map().uids) > 1


def mount_of(report: dict[str, Any], target: str) -> dict[str, Any]:
    """The last mount on `target`: its options, filesystem type, superblock options and propagation fields."""
    found = None
    for line in (report["mountinfo"] or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if fields[4] == target:
            found = {"options": set(fields[5].split(",")), "propagation": fields[6:], "type": tail[0],
                     "super": set(tail[2].split(",")), "root": fields[3]}  # fmt: skip
    assert found, f"nothing is mounted on '{target}'"
    return found
