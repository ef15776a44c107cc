"""Enters user namespaces: this process, a child with a function or a program, an existing one by fd. No policy."""

from __future__ import annotations

import os
import signal

from rootless.errors import CommandNotExecutable, CommandNotFound, HostLimit
from rootless.host.answer import decode_answer, end_with_answer, fork_and_read, fork_with_answer, read_answer
from rootless.host.mapping import write_maps
from rootless.host.subid import read_map
from rootless.kernel.namespaces import CLONE_NEWNS, CLONE_NEWUSER, setns, unshare
from rootless.kernel.process import set_dumpable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import NoReturn

    from rootless.records.id_map import IdMap

    Handler = Callable[[int, FrameType | None], object] | int | None


def enter_new_namespace(id_map: IdMap, *, mount_namespace: bool = True) -> None:
    """Move this process into a new user namespace (and mount namespace) and become its root, or its lowest id.

    A child that stays outside writes the maps, since a process that has left its user namespace has no right to map
    more than its own id. The process must have one thread (unshare(2): EINVAL otherwise). Mounts of the host still
    arrive in the new mount namespace and none of ours goes back: the kernel makes every copy a slave where the user
    namespace changes too (mount_namespaces(7)). The process stays dumpable. Raises HostLimit.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        raise RuntimeError("a process with several threads cannot enter a user namespace")
    flags = CLONE_NEWUSER | CLONE_NEWNS if mount_namespace else CLONE_NEWUSER
    # /proc/PID/uid_map of a process that is not dumpable belongs to root, and nobody of ours could write it
    set_dumpable(True)
    go_read, go_write = os.pipe()
    answer_read, answer_write = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.close(go_write)
        end_with_answer(answer_write, lambda: _write_when_told(go_read, id_map))
    os.close(go_read)
    os.close(answer_write)
    try:
        try:
            unshare(flags)
        except OSError as e:
            from rootless.host.remedies import namespace_error

            raise namespace_error(e) from e
        os.write(go_write, b"!")
        decode_answer(read_answer(answer_read))
    finally:
        os.close(go_write)
        os.close(answer_read)
        os.waitpid(writer, 0)
    _become(id_map.first_uid(), id_map.first_gid())


def _write_when_told(go: int, id_map: IdMap) -> bytes:
    if os.read(go, 1):  # at end of file there is no namespace to map: the unshare has failed
        write_maps(os.getppid(), id_map)
    return b""


def _become(uid: int, gid: int) -> None:
    """Take the ids `uid` and `gid`. With keep-id the caller is another user inside, and has to become root.

    The gids change first: they could not any more once the uids have changed to ones without CAP_SETGID.
    """
    if os.getresgid() != (gid, gid, gid):
        os.setresgid(gid, gid, gid)
    if os.getresuid() != (uid, uid, uid):
        # No capability is lost: that happens when ids change from 0 to others, and none of them is 0 before
        # (capabilities(7), "Effect of user ID changes"). The change makes the process undumpable, which would close
        # its own /proc/self to it.
        os.setresuid(uid, uid, uid)
        set_dumpable(True)


def join_namespace(userns_fd: int, *, mount_namespace_fd: int | None = None) -> None:
    """Move this process, which has one thread, into an existing user namespace (and mount namespace) as its root.

    Only the user who made the namespace may. Raises HostLimit.
    """
    try:
        # The user namespace comes first: setns(2) into a mount namespace wants the capabilities that one has there
        setns(userns_fd, CLONE_NEWUSER)
        if mount_namespace_fd is not None:
            setns(mount_namespace_fd, CLONE_NEWNS)
        first_uid = min(e.container for e in read_map("uid_map"))
        first_gid = min(e.container for e in read_map("gid_map"))
        _become(first_uid, first_gid)
    except OSError as e:
        raise HostLimit(f"cannot join the user namespace: {e.strerror}") from e


def call_in_new_namespace(id_map: IdMap, function: Callable[[], bytes], *, mount_namespace: bool = True) -> bytes:
    """Run `function` in a forked child as root of a new namespace and return its result.

    A RootlessError or OSError raised there is raised here, with the same class. Not for a process with threads whose
    locks the function may need: start an `interpreter.worker_command` there, which calls `enter_new_namespace` itself.
    """

    def inside() -> bytes:
        enter_new_namespace(id_map, mount_namespace=mount_namespace)
        return function()

    return fork_and_read(inside)


def call_in_namespace(userns_fd: int, function: Callable[[], bytes]) -> bytes:
    """Like `call_in_new_namespace`, in the existing user namespace of `userns_fd`."""

    def inside() -> bytes:
        join_namespace(userns_fd)
        return function()

    return fork_and_read(inside)


def run_in_new_namespace(id_map: IdMap, argv: Sequence[str], *, env: dict[str, str] | None = None) -> int:
    """Run host program `argv` as root of a new user and mount namespace; its exit status, 128+n for signal n.

    env: its environment (default: ours). Raises CommandNotFound, CommandNotExecutable, HostLimit.
    """
    program = _find(argv[0])

    def inside() -> bytes:
        enter_new_namespace(id_map)
        _exec(program, argv, env)

    child, read_end = fork_with_answer(inside)
    handlers = _ignore_keys()
    try:
        # execve(2) closes the other end, which is close-on-exec, when it succeeds: an empty answer is its success
        answer = read_answer(read_end)
        os.close(read_end)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
    if answer:
        decode_answer(answer)
    return code if code >= 0 else 128 - code


def _ignore_keys() -> list[tuple[int, Handler]]:
    """Ignore SIGINT and SIGQUIT as system(3) does, and return what was there before, to be put back.

    The terminal sends them to its whole foreground group. They are meant for the program, while this process stays
    and returns the program's exit status.
    """
    try:
        return [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGQUIT)]
    except ValueError:
        return []  # only the main thread has a say over signals


def run_in_place(
    id_map: IdMap,
    argv: Sequence[str],
    *,
    env: dict[str, str] | None = None,
    entered: Callable[[], object] = lambda: None,
) -> NoReturn:
    """Become `argv` as root of a new user and mount namespace: `rootless unshare CMD`. Returns only by an exception.

    entered: called inside, before the program is executed.
    """
    program = _find(argv[0])
    enter_new_namespace(id_map)
    entered()
    _exec(program, argv, env)


def _find(name: str) -> str:
    """Path of host program `name`, looked up in PATH before anything changes."""
    if "/" in name:
        if not os.path.exists(name):
            raise CommandNotFound(f"cannot run '{name}': no such file")
        return name
    denied = False
    for directory in os.environ.get("PATH", os.defpath).split(":"):
        path = f"{directory or '.'}/{name}"
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            denied = True
    if denied:
        raise CommandNotExecutable(f"cannot run '{name}': permission denied")
    raise CommandNotFound(f"cannot run '{name}': not found in PATH")


def _exec(program: str, argv: Sequence[str], env: dict[str, str] | None) -> NoReturn:
    # Python ignores these two signals, and what is ignored stays ignored across execve(2): in `yes | head` the first
    # program would not end with the second
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execve(program, list(argv), os.environ if env is None else env)  # noqa: S606 - no shell is the point
    except OSError as e:
        kind = CommandNotFound if isinstance(e, FileNotFoundError) else CommandNotExecutable
        raise kind(f"cannot run '{program}': {e.strerror}") from e
