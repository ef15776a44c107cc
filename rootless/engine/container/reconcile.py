"""The present state of a container: what its monitor wrote, checked against the monitor's lock, boot id and host.

A monitor that is killed cannot clean up, and there is no daemon to do so. Therefore the first command that asks for the
state ends what is left of the container, and removes the monitor's socket and a container of --rm.
"""

from __future__ import annotations

import os

from rootless.errors import InvalidInput, NewerFormat, NotFound, RootlessError
from rootless.records.state import LIVE, ContainerState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.records.container import ContainerRecord

    Records = list[ContainerRecord]


def state_of(engine: Engine, container_id: str) -> ContainerState:
    """The state of a container; one that was never started is "created".

    When the monitor was killed or the host was booted again, the state is corrected first (exit code 137), and a
    container of --rm is removed: NotFound is raised then. A container that runs on another host (a home shared by NFS)
    keeps its state, as neither locks nor pids of that host mean anything here, and `remote` is that host's name. Raises
    NewerFormat for a state that a later version wrote.
    """
    containers = engine.store.containers
    try:
        state = containers.read_state(container_id)
    except NewerFormat:
        raise
    except InvalidInput:
        return _unreadable(containers.path(container_id))
    if state is None:
        state = ContainerState()
    elif state.status in LIVE:
        if state.host != os.uname().nodename:
            state.remote = state.host or "unknown"
        else:
            from rootless.monitor import reap

            directory = containers.path(container_id)
            if not reap.is_supervised(directory):
                stale = reap.clean_up_after_monitor(directory)
                if stale is not None and collect(engine, container_id):
                    raise NotFound(f"no such container: '{container_id[:12]}'", hint="its monitor was killed")
                # `stale` is None when another command has corrected the state since we read it, or a new monitor runs
                state = stale or containers.read_state(container_id) or ContainerState()
    if state.status == "running" and os.path.exists(containers.path(container_id, "paused")):
        state.status = "paused"
    return state


def socket_path(engine: Engine, container_id: str) -> str:
    """The path of the socket at which the container's monitor listens.

    It is in the runtime directory that its last start found, which need not be the present one: $XDG_RUNTIME_DIR
    differs between a login and a cron job.
    """
    try:
        runtime = engine.store.containers.read_launch(container_id).runtime_dir
    except (NotFound, InvalidInput):
        runtime = ""  # the container was removed meanwhile, or launch.json is damaged
    return f"{runtime or engine.directories.runtime}/containers/{container_id}.sock"


def collect(engine: Engine, container_id: str) -> bool:
    """Remove the socket of a dead monitor, and its container if that is one of --rm. Whether the container is gone now.

    What cannot be removed now, on a full disk, is left for the next prune without a word: `ps`, which only wanted to
    read, must not fail for that.
    """
    try:
        os.unlink(socket_path(engine, container_id))
    except OSError:
        pass  # there is no socket, or its directory has gone with a reboot
    containers = engine.store.containers
    try:
        launch, record = containers.read_launch(container_id), containers.read(container_id)
        if launch.remove is None:
            return False
        containers.remove(container_id, launch.id_map)
    except (RootlessError, OSError):
        return not os.path.exists(containers.path(container_id))
    from rootless.engine import events

    events.record_container(engine, record, "destroy")
    for mount in record.mounts:
        if mount.kind == "volume" and mount.anonymous:
            try:
                engine.store.volumes.remove(mount.name)
            except (RootlessError, OSError):
                continue  # another container uses the volume, or the next prune removes it
    return True


def readable_records(engine: Engine) -> Records:
    """The records of all containers, in no order. Those that are damaged are left out, with one warning for each."""
    found = []
    for container_id in engine.store.containers.list():
        try:
            found.append(engine.store.containers.read(container_id))
        except NotFound:
            continue  # the container was removed meanwhile
        except InvalidInput as e:
            tell_damaged(engine, container_id, e)
    return found


def tell_damaged(engine: Engine, container_id: str, error: RootlessError) -> None:
    """Warn in one line that a container is left out of what is shown, and say what can be done about it."""
    short = container_id[:12]
    remedy = "" if isinstance(error, NewerFormat) else f"; `rootless rm -f {short}` removes it"
    engine.warn(f"container {short} is left out: {error.message}{remedy}")


def _unreadable(directory: str) -> ContainerState:
    """The state of a container whose state.json is damaged.

    After a power cut the file may be empty, as it is not synced (a start would wait for the disk). The container has
    run, so that `start --after-boot` takes it for one that was cut off. With a living monitor it counts as restarting,
    which `stop` and `rm -f` end by the monitor alone, without the pid that the file had; the monitor writes the file
    again when it ends.
    """
    from rootless.kernel.procfs import start_time
    from rootless.monitor import reap
    from rootless.records.state import timestamp_ns

    state = ContainerState()
    state.error = "state.json is damaged, most likely by a power cut"
    try:
        state.started_at = state.finished_at = timestamp_ns(os.stat(f"{directory}/state.json").st_mtime_ns)
    except OSError:
        return state  # the container was removed meanwhile
    pid = reap.find_monitor(directory) if reap.is_supervised(directory) else 0
    if pid:
        state.status, state.monitor_pid, state.monitor_start = "restarting", pid, start_time(pid)
    else:
        state.status, state.exit_code = "exited", reap.DEAD_EXIT_CODE
    return state


def running_pid(engine: Engine, container_id: str) -> int:
    """The host pid of the container's first process; 0 when it does not run on this host."""
    state = state_of(engine, container_id)
    return state.pid if state.is_running and not state.remote else 0
