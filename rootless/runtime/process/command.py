"""The last steps of a container's process: who it is, what it may, and execve. It builds nothing around it.

Used by the first process of a container (runtime.process.init) and by those that join it (runtime.process.join).
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys

from rootless.errors import CommandNotExecutable, CommandNotFound, InvalidInput, RuntimeFailure
from rootless.host.interpreter import program_interpreter
from rootless.kernel import process as kernel
from rootless.kernel.files import open_in_root
from rootless.kernel.process import FILTER_FLAG_NEW_LISTENER, load_filter
from rootless.runtime import capabilities
from rootless.runtime.capabilities import CapabilitySets
from rootless.runtime.channel import Report
from rootless.runtime.spec.process_config import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from rootless.records.launch import SeccompListener
    from rootless.runtime.channel import Channel
    from rootless.runtime.seccomp.emulation import Emulation
    from rootless.runtime.spec.process_config import OciProcess, Rlimit

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PIPEFS_MAGIC = 0x50495045
_INFINITY = (1 << 64) - 1
_MOST_OF_PASSWD = 4 << 20  # bytes of the image's /etc/passwd that are looked at
_MOST_SCRIPTS = 6  # the kernel follows five `#!` lines


class SeccompFilters:
    """The seccomp filters of a process. program: BPF, None for none; flags: of seccomp(2), for `program`.

    listener: the agent that answers the calls of SCMP_ACT_NOTIFY; emulation: of root, where the id map has one id: a
    filter of its own, and the supervisor that answers it.
    """

    __slots__ = ("emulation", "flags", "listener", "program")

    def __init__(
        self,
        program: bytes | None = None,
        flags: int = 0,
        listener: SeccompListener | None = None,
        emulation: Emulation | None = None,
    ) -> None:
        self.program = program
        self.flags = flags
        self.listener = listener
        self.emulation = emulation


class ProcessOptions:
    """What the specification does not say about a process. keyring: it gets a session keyring of its own.

    die_with_parent: it is killed when the launcher ends; keep_groups: it keeps the caller's supplementary groups.
    """

    __slots__ = ("die_with_parent", "keep_groups", "keyring")

    def __init__(self, *, keyring: bool = True, die_with_parent: bool = False, keep_groups: bool = False) -> None:
        self.keyring = keyring
        self.die_with_parent = die_with_parent
        self.keep_groups = keep_groups


class ProcessStreams:
    """The fds of a process. stdio: for 0, 1 and 2, None for the caller's own; preserve_fds: how many from 3 on stay."""

    __slots__ = ("preserve_fds", "stdio")

    def __init__(self, stdio: tuple[int, int, int] | None = None, preserve_fds: int = 0) -> None:
        self.stdio = stdio
        self.preserve_fds = preserve_fds

    def preserved(self) -> tuple[int, ...]:
        """The fds from 3 on that stay open. Raises RuntimeFailure when one is not open."""
        fds = tuple(range(3, 3 + self.preserve_fds))
        for fd in fds:
            try:
                os.fstat(fd)
            except OSError:
                raise RuntimeFailure(f"cannot preserve fd {fd}: it is not open") from None
        return fds


class ProcessCommand:
    """What one process of a container is to become: made where the host's files are still there, carried out inside.

    sets: its capabilities; preserved: fds 3 and up that stay open; single_id: the kernel denies setgroups;
    supervisor: the socket to the supervisor of the emulated root, once that runs;
    own_executable: (device, inode) of the interpreter that we are; None where the kernel executes its loader instead
    (host.interpreter), which may start inside like any program.
    """

    __slots__ = ("filters", "options", "own_executable", "preserved", "process", "sets", "single_id", "supervisor")

    def __init__(
        self,
        process: OciProcess,
        filters: SeccompFilters,
        options: ProcessOptions,
        preserved: tuple[int, ...] = (),
        *,
        single_id: bool = False,
    ) -> None:
        self.process = process
        self.filters = filters
        self.options = options
        self.preserved = preserved
        self.single_id = single_id
        self.supervisor: socket.socket | None = None
        self.sets: CapabilitySets = capabilities.from_oci(process.capabilities)
        self._load_ahead()
        self.own_executable = _executable_of_python()

    def replace(self, arguments: list[str], environment: list[str]) -> None:
        """In a child that was forked for it: become a startContainer hook, under all that confines the command.

        The hook gets neither the preserved fds nor the emulation of root, whose supervisor has one listener.
        """
        self.process.args, self.process.env = arguments, environment
        self.preserved = ()
        self.filters = SeccompFilters(self.filters.program, self.filters.flags, self.filters.listener)

    def open_null(self) -> int:
        """The null device for `start_supervisor`, opened while /dev is the host's; -1 where root is not emulated."""
        return -1 if self.filters.emulation is None else os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def _load_ahead(self) -> None:
        """Import the modules that this command needs and most do not.

        After the change of root Python would look for them among the image's files, and run what it finds there.
        """
        if self.process.rlimits:
            import resource  # noqa: F401
        if self.process.terminal:
            import rootless.kernel.tty
        if self.process.scheduler is not None or self.process.io_priority is not None:
            import rootless.runtime.process.scheduling
        if self.filters.emulation is not None:
            import rootless.runtime.seccomp.emulation  # noqa: F401

    def start_supervisor(self, null: int) -> None:
        """Fork the supervisor that answers the calls of an emulated root, where root is emulated.

        To be called before the pid namespace is entered: the supervisor must see the container's processes, and must
        not be one of them, which the container could kill. null: the fd that `open_null` gave, which is closed.
        """
        if self.filters.emulation is not None:
            from rootless.runtime.seccomp import emulation

            self.supervisor = emulation.fork_supervisor(self.filters.emulation, null)
            os.close(null)

    def kept_fds(self) -> set[int]:
        """The fds that stay open from the fork on: streams, what is preserved, the socket to the supervisor."""
        own = () if self.supervisor is None else (self.supervisor.fileno(),)
        return {0, 1, 2, *self.preserved, *own}

    @property
    def arguments(self) -> list[str]:
        """The argument vector that execve(2) gets."""
        return list(self.process.args)

    @property
    def environment(self) -> dict[str, str]:
        """The environment; a later entry of one name wins."""
        return dict(entry.partition("=")[::2] for entry in self.process.env if "=" in entry)


def _executable_of_python() -> tuple[int, int] | None:
    status = os.stat("/proc/self/exe")
    try:
        if not os.path.samestat(status, os.stat(sys.executable)):
            return None
    except OSError:
        pass  # it was removed since we run
    return status.st_dev, status.st_ino


def set_home(process: OciProcess) -> None:
    """Where the environment has no HOME, or an empty one: that of the user's entry in /etc/passwd of the root that is
    `/` by now, else `/`. runtime-spec says nothing of it; runc and crun do the same, and programs count on it."""
    given = next((entry for entry in reversed(process.env) if entry.startswith("HOME=")), "HOME=")
    if given == "HOME=":
        process.env = [*process.env, f"HOME={_home_of(process.user.uid)}"]


def _home_of(uid: int) -> str:
    """The home directory of `uid` by the container's /etc/passwd, `/` where that does not say.

    CVE-2024-9676: the file is the image's. It is looked up inside the root, may be a FIFO, whose open(2) would wait,
    and of any size.
    """
    try:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = open_in_root(root, "/etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        finally:
            os.close(root)
        with open(fd, "rb") as file:
            content = file.read(_MOST_OF_PASSWD) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return "/"
    wanted = str(uid).encode()
    for line in content.splitlines():
        fields = line.split(b":")
        if len(fields) > 5 and fields[2] == wanted:
            return "/" if b"\0" in fields[5] else os.fsdecode(fields[5]) or "/"
    return "/"


def find_program(command: ProcessCommand) -> str:
    """Path of the program inside the root that is `/` by now. Raises CommandNotFound or CommandNotExecutable."""
    name = command.arguments[0]
    if not name:
        raise CommandNotFound('exec: "": executable file not found in $PATH')
    if "/" in name:
        reason = _refusal(command, name)
        if reason == errno.ENOENT:
            raise CommandNotFound(f'exec: "{name}": stat {name}: no such file or directory')
        if reason:
            raise not_executable(name, reason)
        return name
    refused = 0
    for directory in (command.environment.get("PATH") or DEFAULT_PATH).split(":"):
        path = f"{directory or '.'}/{name}"
        reason = _refusal(command, path)
        if not reason:
            return path
        if reason not in (errno.ENOENT, errno.EISDIR):
            refused = reason
    if refused:
        raise not_executable(name, refused)
    raise CommandNotFound(f'exec: "{name}": executable file not found in $PATH')


def _refusal(command: ProcessCommand, path: str) -> int:
    """0 when `path` may be a program, else the errno that says why not."""
    try:
        status = os.stat(path)
    except OSError as e:
        return errno.ENOENT if e.errno in (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP) else e.errno or errno.ENOENT
    if stat.S_ISDIR(status.st_mode):
        return errno.EISDIR
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        return errno.EACCES
    if command.own_executable is not None and _starts(path, status, command.own_executable):
        # CVE-2019-5736: `/proc/self/exe` as the command would be this interpreter, started inside the container
        return errno.EPERM
    return 0


def _starts(path: str, status: os.stat_result, executable: tuple[int, int]) -> bool:
    """Whether the file at `path`, or what the kernel starts for it (`#!`, an ELF interpreter), is `executable` by a
    magic link of /proc. The same file by a mount of the host's /usr is a program like others.

    Another process of the container can change a file after this look; the file itself is safe whoever starts it
    (host.interpreter).
    """
    name: str | None = path
    for _ in range(_MOST_SCRIPTS):
        if (status.st_dev, status.st_ino) == executable:
            return not _is_plain(name or "", executable)
        try:
            fd = os.open(name or "", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                name = program_interpreter(fd)
            finally:
                os.close(fd)
            if not name:
                return False
            status = os.stat(name)
        except (OSError, ValueError):
            return False  # not readable, or not there: execve says so
    return False


def _is_plain(path: str, executable: tuple[int, int]) -> bool:
    """Whether a lookup without /proc's magic links finds `executable` at `path`."""
    try:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = open_in_root(root, os.path.join(os.getcwd(), path), os.O_PATH)
        finally:
            os.close(root)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == executable


def not_executable(name: str, code: int) -> CommandNotExecutable:
    """The error for a program that is there and cannot be run, in docker's words."""
    if code == errno.EISDIR:
        return CommandNotExecutable(f'exec: "{name}": is a directory: permission denied')
    if code == errno.ENOEXEC:
        return CommandNotExecutable(
            f'exec: "{name}": exec format error', hint="the image may be made for another processor"
        )
    return CommandNotExecutable(f'exec: "{name}": {os.strerror(code).lower()}')


def apply_rlimits(limits: Sequence[Rlimit]) -> None:
    """`process.rlimits`. Raises RuntimeFailure naming the one that the caller's hard limit does not allow."""
    if not limits:
        return
    import resource

    for limit in limits:
        number = RLIMITS.index(limit.kind)
        soft, hard = (resource.RLIM_INFINITY if v >= _INFINITY or v < 0 else v for v in (limit.soft, limit.hard))
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError) as e:
            allowed = resource.getrlimit(number)[1]
            shown = "unlimited" if allowed == resource.RLIM_INFINITY else str(allowed)
            raise RuntimeFailure(
                f"cannot set {limit.kind} to {limit.soft}:{limit.hard}: {e}",
                hint=f"your own hard limit is {shown}",
            ) from e


def enter_directory(path: str, *, quiet: bool = False) -> bool:
    """chdir by a lookup that cannot leave the root nor go through /proc's magic links (CVE-2024-21626).

    quiet: return False where permission is missing; the container's user may have it later. Raises CommandNotFound and
    CommandNotExecutable, with docker's words and exit codes, for a directory that is not there or may not be entered.
    """
    try:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            directory = open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
        finally:
            os.close(root)
        try:
            os.fchdir(directory)
        finally:
            os.close(directory)
    except PermissionError:
        if quiet:
            return False
        raise CommandNotExecutable(_chdir_failure(path, errno.EACCES)) from None
    except OSError as e:
        kind = CommandNotFound if e.errno in (errno.ENOENT, errno.ENOTDIR) else RuntimeFailure
        raise kind(_chdir_failure(path, e.errno or errno.ENOENT)) from e
    check_directory()
    return True


def _chdir_failure(path: str, code: int) -> str:
    return f'chdir to cwd ("{path}") set in config.json failed: {os.strerror(code).lower()}'


def check_directory() -> None:
    """Raise when the current directory is not below the root: the kernel then says "(unreachable)"."""
    try:
        reachable = os.getcwd().startswith("/")
    except OSError:
        reachable = False
    if not reachable:
        raise RuntimeFailure("the current working directory is outside of the container")


def become_user(command: ProcessCommand, warn: Callable[[str], None]) -> None:
    """Take on the groups, the group and the user of `process.user`; the permitted capabilities survive.

    The order is groups, group, user: the right to change the first two (CAP_SETGID) is no longer effective once the
    user is another one than 0. Raises RuntimeFailure.
    """
    user = command.process.user
    uid, gid = user.uid, user.gid
    if not command.options.keep_groups:
        _set_groups(command, user.additional_gids, gid, warn)
    capabilities.keep_over_setuid()
    try:
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as e:
        if e.errno == errno.EINVAL:
            raise RuntimeFailure(
                f"user {uid}:{gid} does not exist in the container: the id map has no such id",
                hint="run as another user (`--user 0`), or see `rootless doctor` for a wider range of ids",
            ) from e
        raise RuntimeFailure(f"cannot become user {uid}:{gid}: {e.strerror}") from e
    os.umask(0o022 if user.umask is None else user.umask)


def _set_groups(command: ProcessCommand, groups: list[int], gid: int, warn: Callable[[str], None]) -> None:
    try:
        os.setgroups(groups)
    except PermissionError:
        # In a namespace with one id setgroups(2) is denied (user_namespaces(7), CVE-2014-8989): the process keeps the
        # caller's own groups, and can have no others
        missing = [g for g in groups if g != gid and g not in os.getgroups()]
        if missing:
            names = ", ".join(map(str, missing))
            warn(f"additional groups {names} are not set: with one id the kernel allows no change of groups")
    except OSError as e:
        if not command.single_id:
            raise RuntimeFailure(
                f"cannot set the additional groups {', '.join(map(str, groups))}: {e.strerror}",
                hint="each group has to be in the container's id map",
            ) from e


def give_stdio(uid: int) -> None:
    """Give the pipes of fds 0 to 2 to the container's user `uid`.

    Many programs open /dev/stdout again to write their log. That is an open of the pipe by /proc/self/fd, for which the
    kernel looks at the pipe's owner, so that it fails for a user who does not own it. Only nameless pipes are given
    away: a file or a terminal of the caller must not change its owner.
    """
    if uid == 0:
        return
    from rootless.kernel.mounts import fs_magic

    for fd in (0, 1, 2):
        try:
            if fs_magic(fd) == _PIPEFS_MAGIC:
                os.fchown(fd, uid, -1)
        except OSError:
            pass  # the fd is closed, or the pipe is another user's: reading and writing need no owner


def execute(
    command: ProcessCommand,
    program: str,
    *,
    extra_filter: bytes | None,
    outside: Channel,
) -> None:
    """Take on identity and limits, then execve. Returns only by an exception.

    outside: the channel to the launcher. It gets the report "exec" when nothing but execve can fail any more, and the
    listener of a seccomp filter that has one.
    """
    confine_process(
        command, extra_filter=extra_filter, outside=outside, before_filter=lambda: outside.send(Report("exec"))
    )
    arguments = command.arguments
    try:
        os.execve(program, arguments, command.environment)  # noqa: S606 - no shell is the point
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR):
            # `find_program` has seen the file, so execve(2) means the interpreter that its first line or its ELF header
            # names
            raise CommandNotFound(f'exec: "{arguments[0]}": no such file or directory') from e
        raise not_executable(arguments[0], e.errno or errno.EACCES) from e
    except ValueError as e:
        raise InvalidInput(f"config property 'process': {e}") from e


def confine_process(
    command: ProcessCommand,
    *,
    extra_filter: bytes | None,
    outside: Channel,
    before_filter: Callable[[], None] = lambda: None,
) -> None:
    """Take on everything that the command runs under, so that only execve is left. Raises OSError and RootlessError.

    Each step needs what a later one takes away, so the order is fixed:

    1. limits and scheduling, while our capabilities still allow them;
    2. the working directory, then groups and ids, then the directory once more where only the new user may enter it;
    3. the parent-death signal, which a change of ids clears;
    4. with no_new_privs: capabilities, no_new_privs, and the seccomp filter last, so that it has to allow nothing but
       execve. Without: the filter before the capabilities, since only CAP_SYS_ADMIN may load it then (seccomp(2)).

    before_filter: is called when no filter can forbid yet what it does.
    """
    process = command.process
    if process.scheduler is not None or process.io_priority is not None:
        from rootless.runtime.process.scheduling import apply_scheduling

        apply_scheduling(process)
    apply_rlimits(process.rlimits)
    directory = process.cwd
    entered = enter_directory(directory, quiet=True)
    give_stdio(process.user.uid)
    become_user(command, outside.warn)
    if not entered:
        enter_directory(directory)
    check_directory()
    missing = capabilities.not_held(command.sets)
    if missing:
        outside.warn(f"capabilities not granted, since the runtime does not have them: {', '.join(missing)}")
    no_new_privileges = process.no_new_privileges
    if command.options.die_with_parent:
        # The kernel forgets the wish when ids change (prctl(2), PR_SET_PDEATHSIG), so it comes after that. A parent
        # that ended before the wish has sent no signal: that is seen by the closed end of its channel.
        kernel.set_pdeathsig(signal.SIGKILL)
        if outside.peer_is_gone():
            os._exit(1)
    for fd in command.preserved:
        os.set_inheritable(fd, True)
    given = command.filters
    filters = [(f, flags) for f, flags in ((extra_filter, 0), (given.program, given.flags)) if f]
    before_filter()
    if (filters or given.emulation is not None) and not no_new_privileges:
        # A change from user 0 to another has emptied the effective set, and left the permitted one (keep_over_setuid):
        # CAP_SYS_ADMIN must be effective for the filter
        effective, permitted, inheritable = kernel.capget()
        if effective != permitted:
            kernel.capset(permitted, permitted, inheritable)
        _load(command, filters, outside)
        capabilities.apply(command.sets)
    else:
        capabilities.apply(command.sets)
        if no_new_privileges:
            kernel.set_no_new_privs()
        _load(command, filters, outside)


def _load(command: ProcessCommand, filters: list[tuple[bytes, int]], outside: Channel) -> None:
    """Load the seccomp filters in their order, and hand the listener of one that has it to the launcher."""
    for program, flags in filters:
        try:
            listener = load_filter(program, flags)
        except OSError as e:
            raise _filter_refusal(e, flags) from e
        if listener is not None:
            _hand_over(listener, outside)
    if command.filters.emulation is not None and command.supervisor is not None:
        from rootless.runtime.seccomp import emulation

        # The emulation's filter is loaded last. Where two filters both answer with an errno, the kernel takes the one
        # that was loaded later (seccomp(2)); the profile's refuses the calls that the emulation answers with success.
        emulation.load(command.filters.emulation, command.supervisor, outside.warn)


def _hand_over(listener: int, outside: Channel) -> None:
    """Give the listener of a filter to the launcher, and wait until the agent has it.

    Where the agent does not get it, this process ends: every call that the filter hands on would wait for ever.
    """
    outside.send(Report("listener"), (listener,))
    os.close(listener)
    answer = outside.receive_order()
    if answer is None or answer.do != "go on":
        os._exit(1)


def _filter_refusal(error: OSError, flags: int) -> RuntimeFailure:
    """Why a filter could not be loaded."""
    hint = None
    if flags & FILTER_FLAG_NEW_LISTENER and error.errno == errno.EINVAL:
        return RuntimeFailure(
            "cannot load the seccomp filter: this kernel cannot hand system calls to another process",
            hint="SCMP_ACT_NOTIFY needs Linux 5.0, its flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV Linux 5.19",
        )
    if flags & FILTER_FLAG_NEW_LISTENER and error.errno == errno.EBUSY:
        hint = "another seccomp listener is around this container already, and the kernel allows one"
    if error.errno == errno.ENOSYS:
        hint = "run without it: --security-opt seccomp=unconfined"
    return RuntimeFailure(f"cannot load the seccomp filter: {error.strerror}", hint=hint)
