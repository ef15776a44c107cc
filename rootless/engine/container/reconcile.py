"""What a container's state is now: the monitor's word, checked against locks, boot id and host.

What a monitor that was killed leaves, its socket and a container of --rm, is removed by whoever looks first.
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
    """The state of a container; a new one is "created".

    When the monitor was killed or the host was booted again, the state is put right first (exit code 137), and a --rm
    container is removed: NotFound is raised. A container that runs on another host (a home shared by NFS) keeps its
    state and gets "remote": that host's name.
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
                stale = reap.stale(directory)
                if stale is not None and collect(engine, container_id):
                    raise NotFound(f"no such container: '{container_id[:12]}'", hint="its monitor was killed")
                # None: somebody else has put it right since we read it, or a monitor has taken over
                state = stale or containers.read_state(container_id) or ContainerState()
    if state.status == "running" and os.path.exists(containers.path(container_id, "paused")):
        state.status = "paused"
    return state


def socket_path(engine: Engine, container_id: str) -> str:
    """Where the container's monitor listens: in the runtime directory that its last start found."""
    try:
        runtime = engine.store.containers.read_launch(container_id).runtime_dir
    except (NotFound, InvalidInput):
        runtime = ""  # removed meanwhile, or damaged
    return f"{runtime or engine.directories.runtime}/containers/{container_id}.sock"


def collect(engine: Engine, container_id: str) -> bool:
    """Remove the socket of a dead monitor, and its container if it was one of --rm; whether that is gone now.

    What cannot be removed now, on a full disk, is left for the next prune: who only looks is not told.
    """
    try:
        os.unlink(socket_path(engine, container_id))
    except OSError:
        pass  # there is none
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
                continue  # another container has it, or the next prune removes it
    return True


def readable_records(engine: Engine) -> Records:
    """The records of all containers, in no order; of each that is damaged the user is told in one line."""
    found = []
    for container_id in engine.store.containers.list():
        try:
            found.append(engine.store.containers.read(container_id))
        except NotFound:
            continue  # removed meanwhile
        except InvalidInput as e:
            tell_damaged(engine, container_id, e)
    return found


def tell_damaged(engine: Engine, container_id: str, error: RootlessError) -> None:
    """Say in one line that a container is left out, and what can be done."""
    short = container_id[:12]
    remedy = "" if isinstance(error, NewerFormat) else f"; `rootless rm -f {short}` removes it"
    engine.warn(f"container {short} is left out: {error.message}{remedy}")


def _unreadable(directory: str) -> ContainerState:
    """The state of a container whose state.json is damaged: after a power cut it may be empty, for it is not synced.

    The container has run, so that `start --after-boot` takes it for one that was cut off. With a living monitor it
    counts as one that only its monitor can end; that writes the file again.
    """
    from rootless.kernel.procfs import start_time
    from rootless.monitor import reap
    from rootless.records.state import timestamp_ns

    state = ContainerState()
    state.error = "state.json is damaged, most likely by a power cut"
    try:
        state.started_at = state.finished_at = timestamp_ns(os.stat(f"{directory}/state.json").st_mtime_ns)
    except OSError:
        return state  # removed meanwhile
    pid = reap.supervisor(directory) if reap.is_supervised(directory) else 0
    if pid:
        state.status, state.monitor_pid, state.monitor_start = "restarting", pid, start_time(pid)
    else:
        state.status, state.exit_code = "exited", reap.DEAD_EXIT_CODE
    return state


def running_pid(engine: Engine, container_id: str) -> int:
    """Host pid of the container's first process, 0 when it does not run here."""
    state = state_of(engine, container_id)
    return state.pid if state.is_running and not state.remote else 0
