"""`stop`, `kill`, `wait` and `rename` of containers.

Signals go by pidfd only: by its number a process that ended meanwhile could be mistaken for one of the user's own.
"""

from __future__ import annotations

import os
import signal
import time

from rootless.engine import events
from rootless.engine.container.endings import Ended, Target, end_together
from rootless.engine.container.reconcile import state_of
from rootless.engine.plan.signal_names import parse_signal
from rootless.errors import HostLimit, InvalidState, NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rootless.engine.context import Engine
    from rootless.records.state import ContainerState

_PATIENCE = 5.0  # seconds in which a monitor has to record the end of its container
_POLL = 0.05  # seconds between looks at a state for whose change there is no descriptor to wait on


def mark_stop(directory: str) -> None:
    """Mark that the end of the container in `directory` is wanted, so that no restart policy undoes it.

    Raises HostLimit where the mark cannot be written.
    """
    from rootless.monitor import stop_request

    try:
        stop_request.request_stop(directory)
    except FileNotFoundError:
        pass  # It is a container of --rm that has ended, and its directory is gone
    except OSError as e:
        raise HostLimit(f"cannot write '{directory}/stop-requested': {e.strerror}") from e


def _look(engine: Engine, container: str) -> tuple[str, str, ContainerState]:
    """A container's id, directory and state. Raises NotFound; InvalidState for one that runs on another host."""
    container_id = engine.store.containers.find(container)
    state = state_of(engine, container_id)
    if state.remote:
        raise InvalidState(
            f"container '{container}' runs on host '{state.remote}'", hint=f"run the command on {state.remote}"
        )
    return container_id, engine.store.containers.path(container_id), state


def stop_containers(
    engine: Engine, containers: Sequence[str], *, timeout: int | None = None, signal: str | None = None
) -> Iterator[Ended]:
    """Ask containers to end, all at once, kill those that do not in time, and yield each as soon as it has ended.

    signal: the one that is sent first (None: the container's stop signal). timeout: seconds until SIGKILL (None: the
    container's own, which is 10 if nobody chose it; -1: never). A container that does not run is left as it is.
    """
    return end_together(containers, lambda container: _begin_stop(engine, container, timeout, signal))


def _begin_stop(engine: Engine, container: str, timeout: int | None, signal: str | None) -> Target | None:
    container_id, directory, state = _look_for_end(engine, container)
    if state.status == "restarting":
        return _end_restarts(directory, state)
    if not state.is_running:
        return None
    record = engine.store.containers.read(container_id)
    number = parse_signal(signal, "--signal") if signal else record.stop.signal
    patience = record.stop.timeout if timeout is None else timeout
    if state.status == "paused":
        # A frozen process handles no signal, and would only be killed when its time is up
        from rootless.engine.container.pause import unpause_container

        unpause_container(engine, container_id)
    try:
        target = Target(directory, state, container)
    except InvalidState:
        return None  # the container has ended by itself meanwhile
    try:
        # The mark comes before the signal: the monitor looks for it as soon as the process has ended
        mark_stop(directory)
        target.signal(number)
    except BaseException:
        target.close()
        raise
    target.deadline = None if patience < 0 else time.monotonic() + patience
    target.on_end = lambda: events.record_container(engine, record, "stop")
    return target


def _look_for_end(engine: Engine, container: str) -> tuple[str, str, ContainerState]:
    """A container's id, directory and state, as of `_look`, for one that is to be ended.

    Where the process has ended by itself just now and the state does not say so yet, the monitor is told to start no
    other, and is waited for. Otherwise a container with a restart policy would run again right after its stop.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        container_id, directory, state = _look(engine, container)
        if not state.is_running or time.monotonic() > deadline or _is_process(state):
            return container_id, directory, state
        mark_stop(directory)
        time.sleep(_POLL)


def _is_process(state: ContainerState) -> bool:
    """Whether the first process that the state names still exists."""
    from rootless.kernel.procfs import start_time

    try:
        return start_time(state.pid) == state.pid_start
    except OSError:
        return False


def _end_restarts(directory: str, state: ContainerState) -> Target | None:
    """End a container that waits for its next start: its monitor, which gives that up on SIGTERM, is the target."""
    mark_stop(directory)
    monitor = Target.monitor(state)
    if monitor is not None:
        monitor.signal(signal.SIGTERM)
    return monitor


def kill_containers(engine: Engine, containers: Sequence[str], *, signal: str = "KILL") -> Iterator[Ended]:
    """Send `signal` (a name with or without SIG, or a number) to the first process of each of `containers`.

    Each is yielded when it has got the signal; after SIGKILL, when it has ended. The error of one that does not run is
    InvalidState.
    """
    return end_together(containers, lambda container: _begin_kill(engine, container, signal))


def _begin_kill(engine: Engine, container: str, wanted: str) -> Target | None:
    number = parse_signal(wanted, "--signal")
    container_id, directory, state = _look(engine, container)
    if not state.is_running:
        raise InvalidState(f"cannot kill container '{container}': container {container_id[:12]} is not running")
    record = engine.store.containers.read(container_id)
    target = Target(directory, state, container)
    try:
        # As with docker these two mean that the end is wanted, so that no restart policy undoes it; after any other
        # signal the policy decides
        if number in (signal.SIGKILL, record.stop.signal):
            mark_stop(directory)
        events.record_container(engine, record, "kill", signal=str(number))
        if number == signal.SIGKILL:
            target.kill()
            return target
        target.signal(number)
    except BaseException:
        target.close()
        raise
    target.close()
    return None


def begin_forced_end(engine: Engine, container: str) -> Target | None:
    """Kill a container that is to be removed, whatever it does, and return the process to wait for.

    None: it does not run. Raises NotFound, InvalidState for one that runs on another host.
    """
    _, directory, state = _look_for_end(engine, container)
    if state.status == "restarting":
        return _end_restarts(directory, state)
    if not state.is_running:
        return None
    try:
        target = Target(directory, state, container)
    except InvalidState:
        return None
    try:
        mark_stop(directory)
        target.kill()
    except BaseException:
        target.close()
        raise
    return target


def wait_for_container(engine: Engine, container: str, *, condition: str = "not-running") -> int:
    """Block until the container has stopped, and return its exit code.

    condition: docker's not-running (at once where it does not run), next-exit or removed. Raises UsageError for others.
    """
    if condition not in ("not-running", "next-exit", "removed"):
        raise UsageError(f"invalid condition '{condition}'", hint="use not-running, next-exit or removed (--condition)")
    from rootless.engine.container import attach_client
    from rootless.engine.container.reconcile import socket_path

    container_id, directory, state = _look(engine, container)
    code = state.exit_code
    if condition == "next-exit":
        while not state.is_running:
            time.sleep(_POLL)
            state = state_of(engine, container_id)
    path = socket_path(engine, container_id)
    while state.is_running or state.status == "restarting":
        ended = attach_client.wait(path)
        try:
            state = state_of(engine, container_id)
        except NotFound:
            return code if ended is None else ended
        if not os.path.isdir(directory):
            return code if ended is None else ended
        code = state.exit_code if ended is None else ended
        if condition == "next-exit" and ended is not None:
            return ended
        if ended is None:
            time.sleep(_POLL)  # between two runs of a container no monitor may listen at the socket
    while condition == "removed" and os.path.isdir(directory):
        time.sleep(_POLL)
    return code


_CONDITIONS: dict[str, Callable[[ContainerState], bool]] = {
    "created": lambda state: state.status == "created",
    "exited": lambda state: state.status in ("exited", "dead"),
    "healthy": lambda state: state.health is not None and state.health.status == "healthy",
    "paused": lambda state: state.status == "paused",
    "running": lambda state: state.status == "running",
    "stopped": lambda state: state.status in ("exited", "dead", "created"),
    "unhealthy": lambda state: state.health is not None and state.health.status == "unhealthy",
}
STATES = tuple(_CONDITIONS)
"""The states, in podman's words, for which `wait_for_state` can wait."""


def wait_for_state(engine: Engine, container: str, states: Sequence[str]) -> int:
    """Block until the container is in one of `states` (of STATES).

    Returns its exit code, or -1 for one that has not ended, as podman does. Raises NotFound, also when the container is
    removed meanwhile and `states` has others than those of a container that has ended; UsageError.
    """
    unknown = set(states) - set(STATES)
    if unknown:
        raise UsageError(f"invalid condition '{min(unknown)}'", hint=f"use one of: {', '.join(STATES)} (--condition)")
    container_id, _, state = _look(engine, container)
    if set(states) <= {"exited", "stopped"} and (state.is_running or state.status == "restarting"):
        return wait_for_container(engine, container_id)  # its monitor knows the exit code even of one of --rm
    while not any(_CONDITIONS[name](state) for name in states):
        time.sleep(_POLL)
        state = state_of(engine, container_id)
    return state.exit_code if state.status in ("exited", "dead") else -1


def rename_container(engine: Engine, container: str, name: str) -> None:
    """Give the container another name; a leading slash, as docker's API shows it, is dropped.

    Raises NotFound, UsageError for a bad name, AlreadyExists.
    """
    containers = engine.store.containers
    name = name.removeprefix("/")
    # Garbage collection removes names that no record has, and for a moment the new name is such a one
    with engine.store.using():
        container_id = containers.find(container)
        old = containers.read(container_id).name
        containers.write_moved(container_id)
        containers.rename(container_id, name)
        launch = containers.read_launch(container_id)
        launch.rename(name, containers.names)
        containers.write_launch(container_id, launch)
    if launch.network.attachments:
        from rootless.network.shared.hub_client import rename

        rename(launch.runtime_dir, container_id, name)
    events.record_container(engine, containers.read(container_id), "rename", oldName=f"/{old}")
