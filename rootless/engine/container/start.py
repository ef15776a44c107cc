"""`run`, `start`, `restart` and `attach`: a monitor launches the container, and the caller's terminal follows it."""

from __future__ import annotations

import os

from rootless.engine.types import AttachOptions, RunOutcome
from rootless.errors import HostLimit, InvalidState, NotFound, RootlessError, RuntimeFailure, UsageError
from rootless.monitor import stop_request
from rootless.paths import Lock
from rootless.records.container_options import ContainerOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

    from rootless.engine.container import attach_client
    from rootless.engine.container.endings import Ended
    from rootless.engine.context import Engine
    from rootless.records.container import ContainerRecord
    from rootless.records.launch import LaunchPlan


def run_container(engine: Engine, options: ContainerOptions, attach: AttachOptions) -> RunOutcome:
    """Create and start a container, and wait for its end unless detached.

    Raises the errors of `create`, and of the step of the start that failed (CommandNotFound, CommandNotExecutable,
    RuntimeFailure).
    """
    _check_streams(options, attach)
    from rootless.engine.container import attach_client

    connection = attach_client.spawn_monitor(engine.take_monitor())
    container_id = ""
    try:
        from rootless.engine.container.create import make

        container_id, directory = make(engine, options, starts=True)
        if attach.detach:
            attach_client.launch_detached(connection, directory, engine.warn)
            return RunOutcome(container_id, None)
        streams = _streams(options, attach)
        target = LaunchTarget(container_id, directory)
        outcome = _launch_attached(engine, connection, target, streams, ends=options.rm)
    except RuntimeFailure:
        if options.rm and container_id:
            _discard(engine, container_id)
        raise
    finally:
        connection.close()
    return RunOutcome(container_id, outcome.exit_code)


class LaunchTarget:
    """The container that a monitor is told to start. on_started: is called as soon as it has started."""

    __slots__ = ("container_id", "directory", "on_started")

    def __init__(self, container_id: str, directory: str, on_started: Callable[[], None] | None = None) -> None:
        self.container_id = container_id
        self.directory = directory
        self.on_started = on_started


def _launch_attached(
    engine: Engine,
    connection: socket.socket,
    target: LaunchTarget,
    streams: attach_client.StreamOptions,
    *,
    ends: bool,
) -> attach_client.Outcome:
    """Have the monitor start a container, and follow it.

    ends: the container is ended when its output can be written nowhere any more. This is for those of --rm: nobody
    would see what it does, and no other command will be asked about it, so that `run --rm … | head` would leave it
    behind for ever. Any other container is left to run.
    """
    from rootless.engine.container import attach_client

    container_id, on_started = target.container_id, target.on_started
    tell = None if on_started is None else lambda _: on_started()
    try:
        outcome = attach_client.launch_attached(connection, target.directory, streams, tell, warn=engine.warn)
    except HostLimit:  # the output cannot be written, as on a full disk
        if ends:
            _end_abandoned(engine, container_id)
        raise
    if ends and outcome.is_abandoned:
        _end_abandoned(engine, container_id)
    return outcome


def _end_abandoned(engine: Engine, container_id: str) -> None:
    """Stop a container as `stop` does, but kill it at once where the stop signal does nothing to its first process."""
    from rootless.engine.container.lifecycle import stop_containers
    from rootless.engine.container.reconcile import state_of

    try:
        state = state_of(engine, container_id)
        record = engine.store.containers.read(container_id)
        if not state.is_running:
            return
        is_deaf = _is_deaf(state.pid, record.stop.signal)
    except RootlessError:
        return  # the container has ended by itself, and its monitor has removed it
    for ended in stop_containers(engine, [container_id], timeout=0 if is_deaf else None):
        if ended.error is not None and not isinstance(ended.error, NotFound):
            engine.warn(f"container {container_id[:12]} runs on: {ended.error.message}")


def _is_deaf(pid: int, number: int) -> bool:
    """Whether signal `number` does nothing to process `pid`.

    A signal without a handler does not end the first process of a pid namespace (pid_namespaces(7)). So that process
    must have a handler (SigCgt), or have the signal blocked, to take it by sigwait(3) or signalfd(2) (SigBlk).
    """
    from rootless.kernel.procfs import status_field

    try:
        is_first = status_field(pid, "NSpid").split()[1:][-1:] == ["1"]
        heard = int(status_field(pid, "SigCgt"), 16) | int(status_field(pid, "SigBlk"), 16)
    except (OSError, KeyError, ValueError):
        return False  # the process has ended, or the kernel hides these lines of /proc/PID/status
    return is_first and not heard >> (number - 1) & 1


def _discard(engine: Engine, container_id: str) -> None:
    """Remove a container of --rm whose monitor was killed before it could do so; mostly there is none."""
    from rootless.engine.container.reconcile import collect, state_of

    try:
        if not state_of(engine, container_id).is_running:
            collect(engine, container_id)
    except RootlessError:
        pass  # the monitor has removed the container; if not, the next command that looks at it does


def _check_streams(options: ContainerOptions, attach: AttachOptions) -> None:
    if attach.detach and options.attach:
        raise UsageError("conflicting options: cannot specify both --attach and --detach")
    if options.tty and options.interactive and not attach.detach and not os.isatty(0):
        raise UsageError("the input device is not a TTY", hint="leave out -t, or run it in a terminal")
    for name in options.attach:
        if name.lower() not in ("stdin", "stdout", "stderr"):
            raise UsageError(f"invalid --attach '{name}'", hint="use stdin, stdout or stderr")


def _streams(options: ContainerOptions, attach: AttachOptions) -> attach_client.StreamOptions:
    from rootless.engine.container import attach_client

    chosen = {name.lower() for name in options.attach} or {
        "stdout",
        "stderr",
        *(("stdin",) if options.interactive else ()),
    }
    return attach_client.StreamOptions(
        streams=attach_client.Streams(
            stdin=0 if "stdin" in chosen and options.interactive else None,
            stdout=1 if "stdout" in chosen else None,
            stderr=2 if "stderr" in chosen else None,
        ),
        terminal=options.tty,
        detach_keys=attach.detach_keys,
        sig_proxy=attach.sig_proxy,
    )


def start_container(
    engine: Engine, container: str, attach: AttachOptions | None = None, *, interactive: bool = False
) -> RunOutcome:
    """Start a container that does not run. attach: how to follow it (start -a), None to leave it in the background.

    interactive: the caller's standard input is attached as well (start -i).

    One that runs already is left as it is, and only followed. Raises NotFound, InvalidState for one that runs on
    another host, and the error of the step of the start that failed.
    """
    from rootless.engine.container import attach_client
    from rootless.engine.container.reconcile import state_of

    store = engine.store
    container_id = store.containers.find(container)
    # Commands that start one container at the same time take turns until it has started: the first starts it, and the
    # others find that it runs. Else they would change its files and take its ports under the first one's hands
    turn = Lock(store.containers.path(container_id, "start.lock"))
    try:
        turn.acquire()
    except OSError:
        pass  # the disk is full: whoever comes second is refused by the monitor's lock
    try:
        state = state_of(engine, container_id)
        if state.remote:
            raise InvalidState(f"container '{container}' runs on host '{state.remote}'", hint="start it there")
        if state.is_running or state.status == "restarting":
            turn.release()
            return attach_to(engine, container_id, attach) if attach is not None else RunOutcome(container_id, None)
        connection = attach_client.spawn_monitor(engine.take_monitor())
        try:
            directory = refresh(engine, container_id, first=state.never_started)
            if attach is None:
                attach_client.launch_detached(connection, directory, engine.warn)
                return RunOutcome(container_id, None)
            options = _saved_options(engine, container_id)
            if not interactive:
                attach = attach._replace(no_stdin=True)
            target = LaunchTarget(container_id, directory, turn.release)
            outcome = _launch_attached(engine, connection, target, _follow(options, attach), ends=options.rm)
        finally:
            connection.close()
    finally:
        turn.release()
    return RunOutcome(container_id, outcome.exit_code)


def restart_containers(
    engine: Engine, containers: Sequence[str], *, timeout: int | None = None, signal: str | None = None
) -> Iterator[Ended]:
    """Stop those of `containers` that run, all at once, start each when it has ended, and yield its result.

    timeout, signal: as of `stop_containers`.
    """
    from rootless.engine.container.lifecycle import stop_containers

    for ended in stop_containers(engine, containers, timeout=timeout, signal=signal):
        error = ended.error
        if error is None:
            try:
                _start_again(engine, containers[ended.position])
            except RootlessError as e:
                error = e
        yield ended._replace(error=error)


def _start_again(engine: Engine, container: str) -> None:
    from rootless.engine import events

    start_container(engine, container)
    record = engine.store.containers.read(engine.store.containers.find(container))
    events.record_container(engine, record, "restart")


def refresh(engine: Engine, container_id: str, *, first: bool) -> str:
    """Bring the files of a container up to date before a start, and return its directory.

    These are the paths of joined namespaces, the marks of the last stop and pause, host ports, the place of sockets,
    and filters in the cache. first: the container never ran, so that empty volumes may still be filled with the image's
    files. After that a volume is empty because its user has emptied it, and stays so.
    """
    from rootless.records.fields import Fields
    from rootless.records.json_file import read_record, write_record

    containers = engine.store.containers
    directory = containers.path(container_id)
    containers.write_moved(container_id)
    stop_request.withdraw_request(directory)
    try:
        os.unlink(f"{directory}/paused")
    except FileNotFoundError:
        pass
    options = _saved_options(engine, container_id)
    record = containers.read(container_id)
    from rootless.engine.container import joins
    from rootless.engine.plan.bundle import rejoin
    from rootless.engine.plan.security import wants_cdi

    if joins.named_containers(options):
        joined = joins.resolve(engine, options, record.network.mode)
        config = read_record(f"{directory}/config.json", what="bundle")
        rejoin(Fields(config, "config.json"), joined.namespaces)
        write_record(f"{directory}/config.json", config)
    if wants_cdi(options):
        _renew_devices(engine, record, directory)
    launch = containers.read_launch(container_id)
    before = launch.to_json()
    # The runtime directory may be another one than at the last start: after a login or reboot $XDG_RUNTIME_DIR differs,
    # and in /tmp another user may have taken the name since
    launch.runtime_dir = engine.directories.runtime
    if not first:
        launch.seed_volumes = []
    if launch.network.attachments:
        from rootless.engine.plan.attachments import choose_attachments

        # A network may have been removed since, or made again with another subnet
        launch.network.attachments = list(choose_attachments(engine, options))
    if options.publish or options.publish_all:
        from rootless.engine.plan import networking
        from rootless.network.modes import recorded_mode

        if recorded_mode(record.network.mode).can_publish:
            ports = networking.allocated(networking.wanted_ports(options, tuple(record.exposed)))
            launch.network.ports = list(ports)
            record.network.ports = list(ports)
            containers.update(record)
    launch.seccomp_bpf = _filter_path(engine, record, directory, launch)
    if launch.root_emulation is not None:
        from rootless.engine.plan import root_emulation

        launch.root_emulation = root_emulation.refreshed(engine, launch.root_emulation)
    if launch.to_json() != before:
        containers.write_launch(container_id, launch)
    return directory


def _renew_devices(engine: Engine, record: ContainerRecord, directory: str) -> None:
    """Read the specifications of CDI again: a reboot, or another driver, may have changed what they say."""
    from rootless.engine.container.host_facts import device_edits
    from rootless.engine.plan.device_edits import take_back
    from rootless.records.json_file import read_record, write_record

    edits = device_edits(engine, record.options, record.id_map)
    if edits is None:
        return
    for warning in edits.warnings:
        engine.warn(warning)
    config = read_record(f"{directory}/config.json", what="bundle")
    take_back(config)
    edits.apply(config)
    write_record(f"{directory}/config.json", config)


def _filter_path(engine: Engine, record: ContainerRecord, directory: str, launch: LaunchPlan) -> str | None:
    """The path of the compiled seccomp filter, which is compiled again when the cache was cleared or is damaged."""
    from rootless.runtime.seccomp import filter_cache

    path = launch.seccomp_bpf
    if path is None or filter_cache.is_whole(path):
        return path
    from rootless.engine.plan import security
    from rootless.records.json_file import read_record
    from rootless.runtime.spec.oci_config import OciConfig

    config = OciConfig.from_json(read_record(f"{directory}/config.json", what="bundle"))
    capabilities = config.first_process().bounding_set()
    return security.filter_path(engine, security.seccomp_profile(engine, record.options, capabilities))


def _saved_options(engine: Engine, container_id: str) -> ContainerOptions:
    """The options that the container was made with."""

    return engine.store.containers.read(container_id).options


def _follow(options: ContainerOptions, attach: AttachOptions) -> attach_client.StreamOptions:
    from rootless.engine.container import attach_client

    return attach_client.StreamOptions(
        streams=attach_client.Streams(stdin=0 if options.interactive and not attach.no_stdin else None),
        terminal=options.tty,
        detach_keys=attach.detach_keys,
        sig_proxy=attach.sig_proxy,
    )


def attach_container(engine: Engine, container: str, how: AttachOptions) -> RunOutcome:
    """Follow a running container with the caller's terminal until it ends or the detach keys are typed.

    Raises NotFound, InvalidState for a container that does not run or is paused.
    """
    from rootless.engine.container.reconcile import state_of

    container_id = engine.store.containers.find(container)
    state = state_of(engine, container_id)
    if state.status == "paused":
        raise InvalidState("you cannot attach to a paused container, unpause it first")
    if state.status == "restarting":
        raise InvalidState("you cannot attach to a restarting container, wait until it is running")
    if state.status != "running":
        raise InvalidState("you cannot attach to a stopped container, start it first")
    return attach_to(engine, container_id, how)


def attach_to(engine: Engine, container_id: str, how: AttachOptions) -> RunOutcome:
    """Follow a container whose monitor runs, as `attach_container` does, in whatever state it is."""
    from rootless.engine.container import attach_client
    from rootless.engine.container.reconcile import socket_path

    options = _saved_options(engine, container_id)
    outcome = attach_client.attach(socket_path(engine, container_id), _follow(options, how))
    return RunOutcome(container_id, outcome.exit_code)
