"""How probes are tried: a child each, a time limit, a scratch directory that is removed. It knows no primitive."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time

from rootless.errors import RootlessError
from rootless.host.probes.result import Probe
from rootless.paths import make_new_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_PREFIX = ".rootless-probe-"


def attempt_probe(name: str, function: Callable[[str], Probe], directory: str, timeout: float) -> Probe:
    """Run `function` on `directory` in a forked child and return its Probe.

    After `timeout` seconds the child and all that it started are killed and its scratch directory is removed.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            os.close(read_end)
            _quiet()
            os.write(write_end, json.dumps(_guarded(name, function, directory).to_json()).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    answer = b""
    deadline = time.monotonic() + timeout
    try:
        while select.select([read_end], [], [], max(0.0, deadline - time.monotonic()))[0]:
            chunk = os.read(read_end, 1 << 16)
            if not chunk:
                break
            answer += chunk
    finally:
        os.close(read_end)
        for pid in (-child, child):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        os.waitpid(child, 0)
        _sweep(directory, child)
    if not answer:
        return Probe(name, False, f"no answer after {timeout:.0f} s", "report this with the output of `rootless info`")
    value = json.loads(answer)
    return Probe(name, value["works"], value["detail"], value["remedy"], flaw=value.get("flaw", ""))


def _guarded(name: str, function: Callable[[str], Probe], directory: str) -> Probe:
    try:
        return function(directory)
    except RootlessError as e:
        return Probe(name, False, e.message, e.hint)
    except OSError as e:
        return Probe(name, False, f"{e.filename}: {e.strerror}" if e.filename else str(e.strerror))


def _quiet() -> None:
    """Replace the standard streams by /dev/null: a program that is tried must not read the terminal or write to it."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        os.dup2(null, number)


def existing_parent(directory: str) -> str:
    """`directory`, or the nearest directory above it that exists."""
    path = os.path.abspath(directory)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def scratch_path(directory: str) -> str:
    """A new name below (the nearest existing parent of) `directory`, which `attempt_probe` removes in any case."""
    return f"{existing_parent(directory)}/{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"


class Scratch:
    """A private directory below (the nearest existing parent of) `directory`, removed at the end of the `with`."""

    __slots__ = ("path",)

    def __init__(self, directory: str) -> None:
        self.path = scratch_path(directory)

    def __enter__(self) -> str:
        make_new_private(self.path)
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove_scratch(self.path)


def _sweep(directory: str, child: int) -> None:
    """Remove the scratch directories of probe process `child`, which was killed before it could do so itself."""
    try:
        parent = os.open(existing_parent(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for name in os.listdir(parent):
            if name.startswith(f"{_PREFIX}{child}-"):
                _remove_tree(parent, name)
    except OSError:
        pass  # somebody else's entry of that name, or one that cannot be removed now: it is in nobody's way
    finally:
        os.close(parent)


def remove_scratch(path: str) -> None:
    """Remove a small tree of our own, with directories that overlayfs left at mode 000. Raises OSError.

    Others may be able to write to the directory that it lies in, and put a link or a directory of theirs in its place:
    a link is not followed, and what belongs to another user stays.
    """
    parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_tree(parent, os.path.basename(path))
    finally:
        os.close(parent)


def _remove_tree(parent: int, name: str) -> None:
    # O_PATH opens a directory of mode 000 too, and from here on the descriptor means that directory, whatever the name
    # comes to mean. chmod(2) by /proc/self/fd changes what the descriptor is of
    opened = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if os.fstat(opened).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user", name)
        os.chmod(f"/proc/self/fd/{opened}", 0o700)
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=opened)
    finally:
        os.close(opened)
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _remove_tree(directory, entry.name)
                else:
                    os.unlink(entry.name, dir_fd=directory)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=parent)


def run_program(argv: list[str], timeout: float = 10.0) -> tuple[int, str]:
    """The exit status and the last line of output of a host program, which is killed after `timeout` seconds."""
    read_end, write_end = os.pipe()
    child = os.posix_spawn(
        argv[0],
        argv,
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **_runtime()},
        file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 1), (os.POSIX_SPAWN_DUP2, write_end, 2)],
        # Python ignores SIGPIPE, and what is ignored stays so across execve(2); pasta of 2023 takes the SIG_IGN that
        # signal(2) returns for a failure, and ends
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
    )
    os.close(write_end)
    words = b""
    deadline = time.monotonic() + timeout
    while select.select([read_end], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(read_end, 4096)
        if not chunk:
            break
        words = (words + chunk)[-4096:]
    else:
        os.kill(child, signal.SIGKILL)
    os.close(read_end)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = words.decode(errors="replace").strip().splitlines()
    return code, lines[-1] if lines else ""


def _runtime() -> dict[str, str]:
    names = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
    return {name: os.environ[name] for name in names if name in os.environ}
