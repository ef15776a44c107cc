"""Outside of a container: forks its first process, writes the id maps, holds the start gate, waits. It plans no mounts.

The caller forks the first child (runtime.init.outer), which enters the namespaces; its child becomes the command and, as
the caller is a child subreaper, the caller's own child once the first one has ended.
"""

from __future__ import annotations

import errno
import os
import signal
import socket

from rootless import errors
from rootless.errors import InvalidInput, RootlessError, RuntimeFailure
from rootless.host.userns import read_map, write_maps
from rootless.kernel import process as kernel
from rootless.kernel.namespaces import CLONE_NEWUSER
from rootless.runtime import hooks, init, namespaces
from rootless.runtime.channel import Channel, pair
from rootless.runtime.command import Command
from rootless.runtime.plan import Facts, operations, root_propagation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from rootless.host.idmap import IdMap
    from rootless.runtime.operations import Operation


class Launch:
    """One container to start.

    config: validated OCI configuration; bundle: absolute directory; container_id: for hooks.
    id_map: of the new user namespace, None where the configuration wants none.
    root_mount: mounts the root file system at the path it is given, inside the user and mount namespace and outside of
    the pid namespace; None for a plain directory. extra: operations beside the configuration's.
    stdio: fds for 0, 1, 2 (None: the caller's own); preserve_fds: how many from 3 on stay open in the container.
    join_cgroup, on_namespaces: called here with the first child's pid, before it makes its cgroup namespace, and when
    its network namespace is there; it lives until `start` (or the hand-over to a gate).
    seccomp_bpf, seccomp_flags: the filter; keyring: a session keyring of its own; die_with_parent: the container is
    killed when this process ends; init: our own reaper as pid 1; gate: listening SOCK_SEQPACKET socket by which a later
    process starts the container; keep_groups: the caller's supplementary groups stay; pivot: False moves the root instead.
    warn: gets one line for each thing that is weaker than asked.
    """

    __slots__ = (
        "bundle",
        "config",
        "container_id",
        "die_with_parent",
        "extra",
        "gate",
        "id_map",
        "init",
        "join_cgroup",
        "keep_groups",
        "keyring",
        "on_namespaces",
        "pivot",
        "preserve_fds",
        "root_mount",
        "seccomp_bpf",
        "seccomp_flags",
        "stdio",
        "warn",
    )

    def __init__(
        self,
        *,
        config: dict[str, Any],
        bundle: str,
        id_map: IdMap | None,
        container_id: str = "",
        root_mount: Callable[[str], None] | None = None,
        extra: Sequence[Operation] = (),
        stdio: tuple[int, int, int] | None = None,
        preserve_fds: int = 0,
        join_cgroup: Callable[[int], None] | None = None,
        on_namespaces: Callable[[int], None] | None = None,
        seccomp_bpf: bytes | None = None,
        seccomp_flags: int = 0,
        keyring: bool = True,
        die_with_parent: bool = False,
        init: bool = False,
        gate: socket.socket | None = None,
        keep_groups: bool = False,
        pivot: bool = True,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config
        self.bundle = bundle
        self.id_map = id_map
        self.container_id = container_id
        self.root_mount = root_mount
        self.extra = list(extra)
        self.stdio = stdio
        self.preserve_fds = preserve_fds
        self.join_cgroup = join_cgroup
        self.on_namespaces = on_namespaces
        self.seccomp_bpf = seccomp_bpf
        self.seccomp_flags = seccomp_flags
        self.keyring = keyring
        self.die_with_parent = die_with_parent
        self.init = init
        self.gate = gate
        self.keep_groups = keep_groups
        self.pivot = pivot
        self.warn = warn or (lambda text: None)


class Process:
    """A process of a container. pid: as this process sees it; pidfd; console_fd: the pty's master, None without.

    userns_fd: the container's user namespace, None where it is the caller's.
    """

    __slots__ = ("_channel", "_helper", "_keeper", "_status", "console_fd", "pid", "pidfd", "userns_fd", "warn")

    def __init__(self, pid: int, channel: Channel, warn: Callable[[str], None]) -> None:
        self.pid = pid
        self.pidfd = kernel.pidfd_open(pid)
        self.console_fd: int | None = None
        self.userns_fd: int | None = None
        self.warn = warn
        self._channel: Channel | None = channel
        self._helper: int | None = None
        self._keeper: Channel | None = None
        self._status: int | None = None

    def start(self, state: dict[str, Any] | None = None) -> None:
        """Open the gate; return when the command runs. Raises what kept it from running; the process has ended then."""
        channel = self._channel
        if channel is None:
            raise RuntimeFailure("the container has been started before")
        self.release()
        self._channel = None
        try:
            try:
                channel.send({"do": "start", "state": state or {}})
            except OSError as e:
                raise RuntimeFailure("the container's first process ended before its start") from e
            await_exec(channel, self.warn)
        except BaseException:
            self.destroy()
            raise
        finally:
            channel.close()

    def detach(self) -> None:
        """Leave the start to whoever connects to the gate; this process may end."""
        self.release()
        if self._channel is not None:
            self._channel.send({"do": "detach"})
            self._channel.close()
            self._channel = None

    def release(self) -> None:
        """Let the first child end, which nobody needs once the namespaces have been opened."""
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        if self._helper is not None:
            os.waitpid(self._helper, 0)
            self._helper = None

    def wait(self) -> int:
        """The exit status: 0..255, 128+n after signal n. Blocks; may be called again."""
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self.set_status(status)
        assert self._status is not None
        return self._status

    def set_status(self, wait_status: int) -> None:
        """Note the status of a waitpid that the caller has done himself."""
        code = os.waitstatus_to_exitcode(wait_status)
        self._status = code if code >= 0 else 128 - code

    def destroy(self) -> None:
        """Kill the process and reap it; for a launch that failed."""
        try:
            kernel.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.release()
        try:
            self.wait()
        except ChildProcessError:
            pass
        self.close()

    def close(self) -> None:
        """Close the fds that belong to this object."""
        for name in ("pidfd", "console_fd", "userns_fd"):
            fd = getattr(self, name)
            if fd is not None and fd >= 0:
                os.close(fd)
        self.pidfd = -1
        self.console_fd = self.userns_fd = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def create(launch: Launch) -> Process:
    """Build the container up to the start gate. On any failure everything is undone and one RootlessError is raised."""
    setup = _prepare(launch)
    kernel.set_child_subreaper()
    ours, theirs = pair()
    inner_ours, inner_theirs = pair()
    helper = -1
    process: Process | None = None
    try:
        caller = os.getpid()
        helper = os.fork()
        if helper == 0:
            ours.close()
            inner_ours.close()
            init.outer(setup, theirs, inner_theirs, caller)
        theirs.close()
        inner_theirs.close()
        process = _follow(launch, setup, helper, ours, inner_ours)
    except BaseException:
        ours.close()
        inner_ours.close()
        if helper > 0:
            _kill(helper)
        raise
    return process


def _prepare(launch: Launch) -> init.Setup:
    """Everything that can be decided, and every wrong input found, before anything is forked."""
    config = launch.config
    spaces = namespaces.wanted(config)
    if bool(spaces.new & CLONE_NEWUSER) != (launch.id_map is not None):
        raise InvalidInput("config property 'linux.uidMappings': a new user namespace and its id map go together")
    root = os.path.join(launch.bundle, config["root"]["path"])
    id_map = launch.id_map
    if id_map is not None:
        has_gid = id_map.has_gid
        single = id_map.kind == "single"
        _check_user(config, id_map)
    else:
        own = read_map("gid_map")
        single = len(own) == 1 and own[0].size == 1

        def has_gid(gid: int) -> bool:
            return any(e.container <= gid < e.container + e.size for e in own)

    facts = Facts(
        launch.bundle,
        has_gid,
        root_is_mounted=launch.root_mount is not None,
        nosuid=launch.root_mount is None and not _is_ours(root),
        pivot=launch.pivot,
    )
    command = Command(
        config["process"],
        seccomp_bpf=launch.seccomp_bpf,
        seccomp_flags=launch.seccomp_flags,
        preserved=preserved_fds(launch.preserve_fds),
        die_with_parent=launch.die_with_parent,
        keep_groups=launch.keep_groups,
        single_id=single,
    )
    if command.sets.unknown:
        launch.warn(f"capabilities not known to this kernel: {', '.join(command.sets.unknown)}")
    setup = init.Setup(config, command, spaces, operations(config, facts, launch.extra), os.path.realpath(root))
    setup.propagation = root_propagation(config)
    setup.root_mount = launch.root_mount
    setup.stdio = launch.stdio
    setup.gate = launch.gate
    setup.keyring = launch.keyring
    if id_map is not None:
        setup.ids = id_map.first_uid(), id_map.first_gid()
    elif any(kind == "user" for kind, _ in spaces.joined):
        setup.ids = 0, 0
    if launch.init:
        from rootless.runtime.reaper import split

        setup.reap = split
    return setup


def _check_user(config: dict[str, Any], id_map: IdMap) -> None:
    user = config["process"].get("user") or {}
    for name, number, known in (
        ("uid", user.get("uid", 0), id_map.has_uid),
        ("gid", user.get("gid", 0), id_map.has_gid),
    ):
        if not known(number):
            raise RuntimeFailure(
                f"the container's {name} {number} is not in its id map",
                hint="run as another user (`--user 0`), or see `rootless doctor` for a wider range of ids",
            )


def _is_ours(root: str) -> bool:
    """Whether a plain root directory belongs to the caller: of others' files no setuid bit should count."""
    try:
        return os.stat(root).st_uid == os.geteuid()
    except OSError as e:
        raise RuntimeFailure(f"cannot open root file system '{root}': {e.strerror}") from e


def preserved_fds(count: int) -> tuple[int, ...]:
    """Fds 3 to 2+count, which must be open. To be called before anything of ours is opened."""
    fds = tuple(range(3, 3 + count))
    for fd in fds:
        try:
            os.fstat(fd)
        except OSError:
            raise RuntimeFailure(f"cannot preserve fd {fd}: it is not open") from None
    return fds


def _follow(launch: Launch, setup: init.Setup, helper: int, outer: Channel, inner: Channel) -> Process:
    """Our side of the conversation, up to the start gate."""
    expect(outer, "namespaces", launch.warn)
    userns_fd = None
    if launch.id_map is not None:
        write_maps(helper, launch.id_map)
        userns_fd = os.open(f"/proc/{helper}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    process: Process | None = None
    try:
        if launch.join_cgroup is not None:
            launch.join_cgroup(helper)
        outer.send({"do": "mapped"})
        if launch.on_namespaces is not None:
            # beside the mounts, which go on in the child meanwhile
            launch.on_namespaces(helper)
        answer, _ = expect(outer, "init", launch.warn)
        process = Process(answer["pid"], inner, launch.warn)
        process._helper, process._keeper = helper, outer
        process.userns_fd, userns_fd = userns_fd, None
        _until_created(launch, process, inner)
    except BaseException:
        if userns_fd is not None:
            os.close(userns_fd)
        if process is not None:
            process._helper = None  # the caller kills and reaps it
            process._keeper = None
            _kill(helper)
            process.destroy()
        raise
    return process


def _until_created(launch: Launch, process: Process, inner: Channel) -> None:
    while True:
        message, fds = expect(inner, None, launch.warn)
        at = message.get("at")
        if at == "console":
            process.console_fd = fds[0]
        elif at == "mounted":
            state = oci_state(launch, process.pid, "creating")
            for stage in ("prestart", "createRuntime"):
                hooks.run(launch.config, stage, state)
            inner.send({"do": "hooked", "state": state})
        elif at == "created":
            return
        else:
            raise RuntimeFailure(f"the container's first process said {message}")


def oci_state(launch: Launch, pid: int, status: str) -> dict[str, Any]:
    """The state object of runtime.md, as hooks get it."""
    state: dict[str, Any] = {
        "ociVersion": launch.config.get("ociVersion", "1.0.2"),
        "id": launch.container_id,
        "status": status,
        "pid": pid,
        "bundle": launch.bundle,
    }
    if launch.config.get("annotations"):
        state["annotations"] = launch.config["annotations"]
    return state


def expect(channel: Channel, at: str | None, warn: Callable[[str], None]) -> tuple[dict[str, Any], list[int]]:
    """The next message that is no warning, and its fds. Raises the error that came in place of it."""
    while True:
        message, fds = channel.receive()
        if message is None:
            raise RuntimeFailure("the container's first process was killed while it was set up")
        if "warning" in message:
            warn(message["warning"])
        elif "error" in message:
            raise decode_error(message["error"])
        elif at is not None and message.get("at") != at:
            raise RuntimeFailure(f"the container's first process said {message} in place of '{at}'")
        else:
            return message, fds


def await_exec(channel: Channel, warn: Callable[[str], None]) -> None:
    """Return when the peer has become the command: it announced that, and its end of the channel closed at execve."""
    expect(channel, "exec", warn)
    message, _ = channel.receive()
    if message is not None:
        raise decode_error(message["error"])


def decode_error(error: dict[str, Any]) -> RootlessError:
    """The exception that the other process reported."""
    kind = getattr(errors, error["class"], RuntimeFailure)
    result: RootlessError = kind(error["message"], hint=error["hint"])
    return result


def _kill(pid: int) -> None:
    """Kill and reap our own child."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def signal_process(pidfd: int, number: int) -> bool:
    """Send a signal to the very process; False when it has ended."""
    try:
        kernel.pidfd_send_signal(pidfd, number)
    except OSError as e:
        if e.errno == errno.ESRCH:
            return False
        raise
    return True
