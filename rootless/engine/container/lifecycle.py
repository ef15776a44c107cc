"""stop, restart, kill, wait, rename: what changes the life of a container. It signals by pidfd only."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time

from rootless.engine import events
from rootless.engine.container.container_cgroup import kill_all
from rootless.engine.container.reconcile import state_of
from rootless.engine.plan.signal_names import parse_signal
from rootless.errors import HostLimit, InvalidState, NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.records.state import ContainerState

_POLL = 0.05  # seconds between looks where nothing can be waited on


class Target:
    """The first process of a running container, held so that its number cannot come to mean another process.

    `with Target(...)`: the lock file of the monitor is open too, for waiting until the monitor has cleaned up.
    """

    __slots__ = ("_lock", "directory", "pidfd")

    def __init__(self, directory: str, state: ContainerState, what: str) -> None:
        from rootless.kernel.process import pidfd_open
        from rootless.kernel.procfs import start_time

        self.directory = directory
        pid = state.pid
        try:
            self._lock = os.open(f"{directory}/monitor.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as e:
            raise InvalidState(f"container '{what}' is not running") from e
        try:
            # the pidfd first: then what start_time says is said of this very process
            self.pidfd = pidfd_open(pid)
            try:
                if start_time(pid) != state.pid_start:
                    raise ProcessLookupError
            except BaseException:
                os.close(self.pidfd)
                raise
        except OSError as e:
            os.close(self._lock)
            raise InvalidState(f"container '{what}' is not running") from e

    def signal(self, number: int) -> None:
        """Send a signal; none if it has ended. Raises HostLimit when the kernel refuses."""
        from rootless.kernel.process import pidfd_send_signal

        try:
            pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass
        except OSError as e:
            raise HostLimit(f"cannot send signal {number} to the container: {e.strerror}") from e

    def ends_within(self, seconds: float | None) -> bool:
        """Wait for its end, at most `seconds` (None: for ever)."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(None if seconds is None else min(max(0, int(seconds * 1000)), (1 << 31) - 1)))

    def settle(self) -> None:
        """Wait until the monitor has written the last state, removed a --rm container, and gone."""
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def request_stop(self) -> None:
        """Say that this end is wanted: no restart policy may undo it."""
        mark_stop(self.directory)

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.pidfd)
        os.close(self._lock)


def mark_stop(directory: str) -> None:
    """Say that the container's end is wanted."""
    from rootless.monitor import stop_request

    try:
        stop_request.ask(directory)
    except FileNotFoundError:
        pass  # a --rm container that has just gone
    except OSError as e:
        raise HostLimit(f"cannot write '{directory}/stop-requested': {e.strerror}") from e


def _look(engine: Engine, container: str) -> tuple[str, str, ContainerState]:
    """(id, directory, state). Raises NotFound, InvalidState for a container of another host."""
    container_id = engine.store.containers.find(container)
    state = state_of(engine, container_id)
    if state.remote:
        raise InvalidState(
            f"container '{container}' runs on host '{state.remote}'", hint=f"run the command on {state.remote}"
        )
    return container_id, engine.store.containers.path(container_id), state


def stop_container(engine: Engine, container: str, *, timeout: int | None = None, signal: str | None = None) -> None:
    """Ask a container to end, and kill it when it does not.

    signal: what is sent first (default: its stop signal). timeout: seconds until SIGKILL (default: its own, else 10;
    -1: never). A container that does not run is left as it is.
    """
    container_id, directory, state = _look(engine, container)
    if state.status == "restarting":
        _end_restarts(directory, state)
        return
    if not state.is_running:
        return
    record = engine.store.containers.read(container_id)
    settings = record.stop
    number = parse_signal(signal, "--signal") if signal else settings.signal
    patience = settings.timeout if timeout is None else timeout
    if state.status == "paused":
        from rootless.engine.container.pause import unpause_container

        unpause_container(engine, container_id)
    try:
        target = Target(directory, state, container)
    except InvalidState:
        return  # it ended by itself meanwhile
    with target:
        target.request_stop()
        target.signal(number)
        if not target.ends_within(None if patience < 0 else patience):
            kill_all(state)
            target.signal(_SIGKILL)
            target.ends_within(None)
        target.settle()
    events.record_container(engine, record, "stop")


_SIGKILL = int(signal.SIGKILL)


def _end_restarts(directory: str, state: ContainerState) -> None:
    """A container that waits for its next start: its monitor gives that up on SIGTERM."""
    from rootless.kernel.process import pidfd_open, pidfd_send_signal
    from rootless.kernel.procfs import start_time

    mark_stop(directory)
    pid = state.monitor_pid
    try:
        pidfd = pidfd_open(pid)
    except OSError:
        return
    try:
        if start_time(pid) == state.monitor_start:
            pidfd_send_signal(pidfd, signal.SIGTERM)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll()
    except OSError:
        pass  # it has ended by itself
    finally:
        os.close(pidfd)


def restart_container(engine: Engine, container: str, *, timeout: int | None = None, signal: str | None = None) -> None:
    """Stop if it runs, then start."""
    from rootless.engine.container.start import start_container

    stop_container(engine, container, timeout=timeout, signal=signal)
    start_container(engine, container)
    record = engine.store.containers.read(engine.store.containers.find(container))
    events.record_container(engine, record, "restart")


def kill_container(engine: Engine, container: str, *, signal: str = "KILL") -> None:
    """Send `signal` (name, SIGname or number) to its first process. Raises InvalidState when it does not run."""
    number = parse_signal(signal, "--signal")
    container_id, directory, state = _look(engine, container)
    if not state.is_running:
        raise InvalidState(f"cannot kill container '{container}': container {container_id[:12]} is not running")
    record = engine.store.containers.read(container_id)
    with Target(directory, state, container) as target:
        if number in (_SIGKILL, record.stop.signal):
            target.request_stop()
        events.record_container(engine, record, "kill", signal=str(number))
        if number == _SIGKILL:
            kill_all(state)
        target.signal(number)
        if number == _SIGKILL:
            target.ends_within(None)
            target.settle()


def wait_for_container(engine: Engine, container: str, *, condition: str = "not-running") -> int:
    """Block until the container stops (condition: not-running, next-exit, removed); its exit code."""
    if condition not in ("not-running", "next-exit", "removed"):
        raise UsageError(f"invalid condition '{condition}'", hint="use not-running, next-exit or removed (--condition)")
    from rootless.engine.container import attach_client
    from rootless.engine.container.start import socket_path

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
            time.sleep(_POLL)  # between two runs nobody listens
    while condition == "removed" and os.path.isdir(directory):
        time.sleep(_POLL)
    return code


def rename_container(engine: Engine, container: str, name: str) -> None:
    """Give the container another name; a leading slash, as docker's API shows it, is dropped. Raises AlreadyExists."""
    containers = engine.store.containers
    name = name.removeprefix("/")
    container_id = containers.find(container)
    old = containers.read(container_id).name
    containers.rename(container_id, name)
    launch = containers.read_launch(container_id)
    launch.rename(name, containers.names)
    containers.write_launch(container_id, launch)
    events.record_container(engine, containers.read(container_id), "rename", oldName=f"/{old}")
