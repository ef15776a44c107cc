"""create, start, run, kill and delete of rootless-oci, by the rules of runtime.md. It parses and prints nothing."""

from __future__ import annotations

import os
import signal
import socket
import time

from rootless.errors import HookFailed, InvalidInput, InvalidState, NotFound, RuntimeFailure, UsageError
from rootless.host.facts import is_privileged
from rootless.kernel import process as kernel
from rootless.kernel import procfs
from rootless.kernel.container_members import Members
from rootless.records.id_map import IdMap
from rootless.runtime.channel import Channel, Order
from rootless.runtime.oci import bundle_cgroup
from rootless.runtime.oci.bundle_cgroup import CgroupPlacing, Policy
from rootless.runtime.oci.oci_records import OciFacts, OciRecord, Records
from rootless.runtime.process import console, hooks, notify
from rootless.runtime.process.command import ProcessOptions, ProcessStreams, SeccompFilters
from rootless.runtime.process.launch import Launch, UserIds
from rootless.runtime.process.launch import create as launch_container
from rootless.runtime.process.running import Process, await_exec
from rootless.runtime.seccomp.listener import handler_of_launch
from rootless.runtime.spec.oci_config import OciConfig, parse_json, read_content
from rootless.runtime.spec.oci_state import Bundle
from rootless.units import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.runtime.spec.oci_config import OciConfig

    Warn = Callable[[str], None]

_KILL_PATIENCE = 10.0


class CreateOptions:
    """The flags of create and run. bundle: the directory in which relative paths start; config_path: of the
    configuration, config.json of the bundle unless another file is named.

    pid_file, console_socket: paths, None without; preserve_fds: how many fds from 3 on the command gets; listen_fds:
    how many of them are sockets that systemd has passed to us (sd_listen_fds(3)); keyring: make a session keyring;
    pivot: False moves the root instead (the old root is an initramfs); notify: the address in our NOTIFY_SOCKET. Of run
    alone: detach returns when the command runs, keep does not delete the ended container.
    """

    __slots__ = (
        "bundle",
        "cgroups",
        "config_path",
        "console_socket",
        "detach",
        "keep",
        "keyring",
        "listen_fds",
        "notify",
        "pid_file",
        "pivot",
        "preserve_fds",
    )

    def __init__(self, bundle: str, config: str = "config.json") -> None:
        self.bundle = os.path.abspath(bundle)
        self.config_path = os.path.join(self.bundle, config)
        self.cgroups = Policy()
        self.pid_file: str | None = None
        self.console_socket: str | None = None
        self.preserve_fds = 0
        self.listen_fds = 0
        self.keyring = True
        self.pivot = True
        self.notify: str | None = None
        self.detach = False
        self.keep = False


def create(records: Records, container_id: str, options: CreateOptions, warn: Warn) -> None:
    """Make the container and leave it waiting at its gate."""
    config, content = _read_config(options.config_path)
    _check_terminal(config, options, detached=True)
    record = _new_record(records, container_id, options.bundle, config, content)
    try:
        with record.lock():
            gate = _listen(record)
            placing = CgroupPlacing(config, container_id, options.cgroups, warn)
            process = _build(record, config, options, placing, gate)
            try:
                _note(record, process, options)
                if process.console_fd is not None and options.console_socket:
                    console.send_master(options.console_socket, process.console_fd)
                process.detach()
                process.close()
            except BaseException:
                process.destroy()
                placing.undo()
                raise
            gate.close()
    except BaseException as e:
        _forget(record, config, e, warn)
        raise


def start(records: Records, container_id: str, warn: Warn, *, notify_socket: str | None = None) -> None:
    """Open the gate of a created container; return when its command runs, and with a notify socket when it is ready."""
    record = records.get(container_id)
    with record.lock():
        record = records.get(container_id)
        record.require("start", "created")
        config = record.config()
        listener = _notifier(record, notify_socket)
        try:
            _open_gate(record, config, warn)
            _after_start(record, config)
        except HookFailed:
            # the container is destroyed (runtime.md, lifecycle: on with step 12); others leave it stopped
            _kill_and_wait(record)
            _finish(record, config, warn)
            raise
    if listener is not None and notify_socket:
        try:
            pidfd = kernel.pidfd_open(record.pid)
        except ProcessLookupError:
            return
        with listener:
            notify.pass_on(listener, notify_socket, record.pid, pidfd)
        os.close(pidfd)


def _open_gate(record: OciRecord, config: OciConfig, warn: Warn) -> None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with connection:
        _reach(record, connection.connect)
        channel = Channel(connection)
        channel.send(Order("start", record.oci_state("created")))
        # whatever comes now, the gate is used up: a failed start leaves a stopped container
        os.unlink(record.gate)
        agent = handler_of_launch(config.linux.seccomp_listener, lambda: record.oci_state("created"))
        await_exec(channel, warn, agent)


def run(records: Records, container_id: str, options: CreateOptions, warn: Warn) -> int:
    """create and start in one process; the exit status, 0 when detached. Attached, the container is deleted then."""
    config, content = _read_config(options.config_path)
    _check_terminal(config, options, detached=options.detach)
    record = _new_record(records, container_id, options.bundle, config, content)
    try:
        placing = CgroupPlacing(config, container_id, options.cgroups, warn)
        process = _build(record, config, options, placing, None)
        try:
            _note(record, process, options)
            if process.console_fd is not None and options.console_socket:
                console.send_master(options.console_socket, process.console_fd)
            listener = _notifier(record, options.notify)
            with console.Forward(process.pidfd, process.console_fd):
                if process.console_fd is not None and not options.console_socket:
                    console.prepare_terminal(process.console_fd)
                process.start(record.oci_state("created"))
                _after_start(record, config)
                if listener is not None and options.notify:
                    report = notify.pass_on if options.detach else notify.pass_on_beside
                    report(listener, options.notify, process.pid, process.pidfd)
                if options.detach:
                    return 0
                if process.console_fd is not None and not options.console_socket:
                    console.relay_terminal(process.console_fd, process.pidfd)
                status = process.wait()
        except BaseException:
            process.kill()
            placing.undo()
            raise
        finally:
            process.close()
    except BaseException as e:
        _forget(record, config, e, warn)
        raise
    if not options.keep:
        _finish(record, config, warn)
    return status


def kill(records: Records, container_id: str, word: str, *, everything: bool = False) -> None:
    """Send a signal to the first process, or to all processes of the container."""
    number = signal_number(word)
    record = records.get(container_id)
    if not everything or record.status() != "stopped":
        record.require("kill", "created", "running", "paused")
    group = bundle_cgroup.group_of(record)
    if everything and group is not None and number == signal.SIGKILL:
        group.kill()
    elif everything and number == signal.SIGKILL and _end_company(record):
        pass
    elif everything:
        for pid in processes(record):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
    elif _send(record, number):
        if number == signal.SIGKILL:
            _end_company(record)
    else:
        raise InvalidState(f"cannot kill container '{record.id}': it is stopped, not created or running")


def delete(records: Records, container_id: str, warn: Warn, *, force: bool = False) -> None:
    """Remove a stopped container; force kills it first."""
    record = records.get(container_id)
    with record.lock():
        record = records.get(container_id)
        if force:
            _kill_and_wait(record)
        elif record.pid:
            record.require("delete", "stopped")
        _finish(record, record.config() if record.pid else None, warn)


def delete_each(records: Records, container_ids: list[str], warn: Warn, *, force: bool) -> None:
    """`delete` for each of the ids; with `force` none of them has to exist."""
    for container_id in container_ids:
        try:
            delete(records, container_id, warn, force=force)
        except NotFound:
            if not force:
                raise


def signal_number(word: str) -> int:
    """`9`, `KILL`, `SIGKILL`, `RTMIN+3` → 9, 9, 9, 37. Raises UsageError."""
    name = word.upper().removeprefix("SIG")
    plain = whole_number(name, signal.NSIG - 1)
    if plain is not None:
        return plain
    base, sign, text = name.partition("+") if "+" in name else name.partition("-")
    offset = whole_number(text, signal.NSIG) if sign else 0
    if base in ("RTMIN", "RTMAX") and offset is not None:
        number = int(getattr(signal, f"SIG{base}")) + (-offset if sign == "-" else offset)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    elif hasattr(signal, f"SIG{name}") and isinstance(getattr(signal, f"SIG{name}"), signal.Signals):
        return int(getattr(signal, f"SIG{name}"))
    raise UsageError(f"unknown signal '{word}'", hint="kill -l lists the names")


def pause(records: Records, container_id: str) -> None:
    """Freeze all processes of a running container."""
    record = records.get(container_id)
    with record.lock():
        record.require("pause", "created", "running")
        bundle_cgroup.require(record, "pause").freeze()


def resume(records: Records, container_id: str) -> None:
    """Let the processes of a paused container go on."""
    record = records.get(container_id)
    with record.lock():
        record.require("resume", "paused")
        bundle_cgroup.require(record, "resume").thaw()


def processes(record: OciRecord) -> list[int]:
    """The processes in the container's cgroup, else in its pid namespace, else only the first one."""
    group = bundle_cgroup.group_of(record)
    if group is not None:
        return sorted(group.pids())
    if not record.is_alive():
        return []  # its number may mean another process by now, and of its namespace nothing is left
    if record.facts.namespaces is not None and record.facts.namespaces.shares_processes:
        return sorted(_members(record).pids())
    own = os.stat("/proc/self/ns/pid").st_ino
    try:
        wanted = os.stat(f"/proc/{record.pid}/ns/pid").st_ino
    except OSError:
        return []
    if wanted == own:
        return [record.pid]
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}/ns/pid").st_ino == wanted:
                    found.append(int(name))
            except OSError:
                pass
    return sorted(found)


def map_of(config: OciConfig) -> IdMap | None:
    """The id map of a configuration, None when it wants no new user namespace. Raises InvalidInput.

    Where it wants one and names no ids, the namespace has all that the caller may map, as with crun.
    """
    linux = config.linux
    uids, gids = linux.uids, linux.gids
    if not linux.makes("user"):
        if linux.namespace("user") is None and not is_privileged():
            raise InvalidInput(
                "config property 'linux.namespaces' lists no user namespace, which an ordinary user needs",
                hint="`rootless-oci spec` makes a configuration that has one",
            )
        return None
    if not uids and not gids:
        from rootless.host.subid import default_id_map

        return default_id_map()
    if not uids or not gids:
        missing = "gidMappings" if uids else "uidMappings"
        raise InvalidInput(f"config property 'linux.{missing}' is missing, and the other one is there")
    single = len(uids) == len(gids) == 1 and uids[0].size == gids[0].size == 1 and not is_privileged()
    return IdMap(uids, gids, "single" if single else "range")


def _read_config(path: str) -> tuple[OciConfig, bytes]:
    """The configuration of a container to be made, and its file as it is now. Raises InvalidInput."""
    content = read_content(path)
    config = OciConfig.from_json(parse_json(content, path))
    config.check_host()
    return config, content


def _new_record(records: Records, container_id: str, bundle: str, config: OciConfig, content: bytes) -> OciRecord:
    """Take the id for a container of the bundle; content: of its config.json. Raises AlreadyExists."""
    config.first_process()
    facts = OciFacts(config.version, bundle)
    facts.rootfs = os.path.realpath(os.path.join(bundle, config.root))
    facts.created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    facts.boot_id = procfs.boot_id()
    facts.annotations = config.annotations
    return records.new(container_id, facts, content)


def _check_terminal(config: OciConfig, options: CreateOptions, *, detached: bool) -> None:
    terminal = config.process is not None and config.process.terminal
    if terminal and detached and not options.console_socket:
        raise UsageError("'process.terminal' is true and nobody takes the terminal", hint="give --console-socket")
    if options.console_socket and not terminal:
        raise UsageError("--console-socket is given, but 'process.terminal' is false")


def _build(
    record: OciRecord,
    config: OciConfig,
    options: CreateOptions,
    placing: CgroupPlacing,
    gate: socket.socket | None,
) -> Process:
    filters = filters_of(config)
    if options.notify:
        config = notify.with_socket(config, f"{record.directory}/notify")
    if options.listen_fds:
        config = _with_listening(config, options.listen_fds)
    launch = Launch(Bundle(config, options.bundle, record.id), UserIds(map_of(config)))
    launch.filters = filters
    launch.options = ProcessOptions(keyring=options.keyring, keep_groups=config.keeps_groups)
    launch.streams = ProcessStreams(preserve_fds=options.preserve_fds)
    launch.join_cgroup = placing.join
    launch.gate = gate
    launch.pivot = options.pivot
    launch.warn = placing.warn
    try:
        process = launch_container(launch)
        try:
            placing.complete(process)
        except BaseException:
            process.destroy()
            raise
    except BaseException:
        placing.undo()
        raise
    if placing.group is not None:
        record.facts.cgroup = placing.group.to_json()
    return process


def _with_listening(config: OciConfig, count: int) -> OciConfig:
    """The configuration with the variables by which the command knows the sockets that it gets (sd_listen_fds(3))."""
    changed = config.copy()
    process = changed.process = config.first_process().copy()
    process.env = [*process.env, f"LISTEN_FDS={count}", "LISTEN_PID=1"]
    names = os.environ.get("LISTEN_FDNAMES")
    if names:
        process.env.append(f"LISTEN_FDNAMES={names}")
    return changed


def filters_of(config: OciConfig) -> SeccompFilters:
    """The filter of the configuration's profile, from the cache where it was compiled before."""
    if config.linux.seccomp is None:
        return SeccompFilters()
    from rootless.runtime.seccomp.filter_cache import cached, load_flags
    from rootless.runtime.seccomp.seccomp_profile import resolve

    profile = resolve(config.linux.seccomp)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    program = cached(profile, os.path.join(base, "rootless"))
    return SeccompFilters(program, load_flags(profile), config.linux.seccomp_listener)


def _reach(record: OciRecord, reach: Callable[[str], None]) -> None:
    """Call `reach` with the gate's path by a fd of its directory: addresses of sockets end at 107 bytes."""
    directory = os.open(record.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reach(f"/proc/self/fd/{directory}/start.sock")
    finally:
        os.close(directory)


def _listen(record: OciRecord) -> socket.socket:
    gate = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    _reach(record, gate.bind)
    gate.listen(1)
    return gate


def _note(record: OciRecord, process: Process, options: CreateOptions) -> None:
    record.facts.pid = process.pid
    record.facts.pid_start = procfs.start_time(process.pid)
    record.facts.namespaces = process.namespaces
    record.save()
    if options.pid_file:
        write_pid_file(options.pid_file, process.pid)


def write_pid_file(path: str, pid: int) -> None:
    """Write the pid so that a reader never sees a part of it."""
    from rootless.paths import atomic_write

    try:
        atomic_write(os.path.abspath(path), str(pid).encode(), mode=0o644, durable=False)
    except OSError as e:
        raise RuntimeFailure(f"cannot write pid file '{path}': {e.strerror}") from e


def _after_start(record: OciRecord, config: OciConfig) -> None:
    """The poststart hooks. Since runtime-spec 1.3 one that fails stops the container; the callers do that."""
    # a quick command may have ended by now
    hooks.run(config.hooks.poststart, record.oci_state("running"))


def _notifier(record: OciRecord, address: str | None) -> socket.socket | None:
    """The container's notify socket, when it was made with one and there is somebody to tell."""
    directory = f"{record.directory}/notify"
    return notify.listen(directory) if address and os.path.isdir(directory) else None


def _forget(record: OciRecord, config: OciConfig, error: BaseException, warn: Warn) -> None:
    """Remove the record of a container that could not be made; after a failed hook the poststop hooks run too."""
    state = record.oci_state("stopped")
    record.remove()
    if isinstance(error, HookFailed):
        for failure in hooks.run(config.hooks.poststop, state, required=False):
            warn(failure)


def _finish(record: OciRecord, config: OciConfig | None, warn: Warn) -> None:
    """Remove cgroup and record of a container that has ended, then run its poststop hooks.

    config: None for a container that never had a process: no hook of it has run, so none has anything to undo.
    """
    state = record.oci_state("stopped")
    bundle_cgroup.remove(record, warn)
    record.remove()
    if config is not None:
        for failure in hooks.run(config.hooks.poststop, state, required=False):
            warn(failure)


def _send(record: OciRecord, number: int) -> bool:
    """Signal the very process that was recorded: pidfd first, then the look at its start time."""
    try:
        pidfd = kernel.pidfd_open(record.pid)
    except ProcessLookupError:
        return False
    try:
        if not record.is_alive():
            return False
        kernel.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def _kill_and_wait(record: OciRecord) -> None:
    was_alive = bool(record.pid) and _send(record, signal.SIGKILL)
    if was_alive:
        deadline = time.monotonic() + _KILL_PATIENCE
        while record.is_alive():
            if time.monotonic() > deadline:
                raise InvalidState(f"container '{record.id}' does not end: its process {record.pid} survives SIGKILL")
            time.sleep(0.005)
    _end_company(record, was_alive=was_alive)


def _members(record: OciRecord) -> Members:
    """The processes of a container whose pid namespace is another's.

    Those of a pod live in the user namespace of its first container: it tells nothing where another has joined it.
    """
    namespaces = record.facts.namespaces
    if namespaces is None:
        raise InvalidState(f"container '{record.id}' has a pid namespace of its own")
    others = (r.facts.namespaces for r in Records(os.path.dirname(record.directory)).all() if r.id != record.id)
    if any(other is not None and other.user == namespaces.user for other in others):
        namespaces.makes_user = False
    return Members(namespaces)


def _end_company(record: OciRecord, *, was_alive: bool = True) -> bool:
    """Kill every process of a container whose pid namespace is another's, and wait; whether it is one.

    was_alive: its first process has ended just now. Else the inodes of its namespaces may be another container's, and
    nothing is killed where the kernel has no numbers of namespaces that it never gives again.
    """
    namespaces = record.facts.namespaces
    if namespaces is None or not namespaces.shares_processes or record.facts.boot_id != procfs.boot_id():
        return False
    members = _members(record)
    if not was_alive and not namespaces.is_unique:
        return False
    left = members.end()
    if left:
        raise InvalidState(f"container '{record.id}' does not end: process {left[0]} survives SIGKILL")
    return True
