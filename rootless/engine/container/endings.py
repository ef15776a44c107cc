"""Waits for the ends of many containers at once, and kills each when its time is up.

The callers (`stop`, `kill`, `rm`, `restart`) say what each container is sent to end it.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from typing import NamedTuple

from rootless.engine.container.container_cgroup import kill_all
from rootless.errors import HostLimit, InvalidState, RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rootless.records.state import ContainerState

_SIGKILL = 9
_SETTLE_POLL = 0.01  # seconds between looks at the locks of monitors that clean up
_SPARE_DESCRIPTORS = 64  # of the limit of open files, left for all else than the two of each container
_LONGEST_WAIT = (1 << 31) - 1  # milliseconds, the most that poll(2) takes, for a --timeout of some weeks and more


class Ended(NamedTuple):
    """A container that does not run any more, or the error for which it may. position: that of its name in the list."""

    position: int
    error: RootlessError | None = None


class Target:
    """A process to be ended, held by a pidfd, so that no signal can go to another process which got its number.

    It is the first process of a running container, or the monitor of one that waits for its next start. The first has
    the monitor's lock beside it, by which the end of the monitor's cleaning up is seen.
    """

    __slots__ = ("_lock", "deadline", "on_end", "pidfd", "state")

    def __init__(self, directory: str, state: ContainerState, what: str) -> None:
        """Take the first process of the container in `directory`, whose name is `what`.

        Raises InvalidState when it has ended.
        """
        try:
            self._lock = os.open(f"{directory}/monitor.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as e:
            raise InvalidState(f"container '{what}' is not running") from e
        try:
            self.pidfd = _open_process(state.pid, state.pid_start)
        except OSError as e:
            os.close(self._lock)
            raise InvalidState(f"container '{what}' is not running") from e
        except BaseException:
            os.close(self._lock)
            raise
        self.state = state
        self.deadline: float | None = None
        self.on_end: Callable[[], None] | None = None

    @classmethod
    def monitor(cls, state: ContainerState) -> Target | None:
        """Take the monitor of a container that waits for its next start; None when the monitor has ended."""
        target = cls.__new__(cls)
        try:
            target.pidfd = _open_process(state.monitor_pid, state.monitor_start)
        except OSError:
            return None
        target._lock = -1
        target.state = state
        target.deadline = None
        target.on_end = None
        return target

    def signal(self, number: int) -> None:
        """Send a signal; do nothing if the process has ended. Raises HostLimit when the kernel refuses."""
        from rootless.kernel.process import pidfd_send_signal

        try:
            pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass
        except OSError as e:
            raise HostLimit(f"cannot send signal {number} to the container: {e.strerror}") from e

    def kill(self) -> None:
        """Send SIGKILL to all processes of the container. Raises HostLimit when the kernel refuses."""
        kill_all(self.state)
        self.signal(_SIGKILL)

    def has_settled(self) -> bool:
        """Whether the monitor has written the last state, removed a container of --rm, and ended.

        The monitor holds the lock exclusively until then, and the kernel drops it even if the monitor is killed. There
        is no event to wait for that lock with others in one poll(2), so the caller asks again and again.
        """
        if self._lock < 0:
            return True
        try:
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        return True

    def close(self) -> None:
        """Close the descriptors; the process itself is left alone."""
        os.close(self.pidfd)
        if self._lock >= 0:
            os.close(self._lock)

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_process(pid: int, started: int) -> int:
    """A pidfd of process `pid`. Raises OSError when that is not the process which began at `started`.

    started: in clock ticks since the boot (proc_pid_stat(5), starttime).
    """
    from rootless.kernel.process import pidfd_open
    from rootless.kernel.procfs import start_time

    # The pidfd is opened before start_time is read. If the number still belongs to the recorded process after that, it
    # did so before, and the pidfd is of that process. The other way about it could end between the two calls, and the
    # pidfd be that of a stranger
    pidfd = pidfd_open(pid)
    try:
        if start_time(pid) != started:
            raise ProcessLookupError
    except BaseException:
        os.close(pidfd)
        raise
    return pidfd


def end_together(containers: Sequence[str], begin: Callable[[str], Target | None]) -> Iterator[Ended]:
    """Tell all of `containers` to end, and yield each as soon as it has ended. Their times run at once.

    begin: is given a container's name, sends what shall end the container, and returns the process to wait for, or None
    where it does not run. The `deadline` of the process (time.monotonic()) says when it is killed, and its `on_end` is
    called when it has ended. An error of one container is in its `Ended` and stops no other.
    """
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    at_once = max(1, (limit - _SPARE_DESCRIPTORS) // 2) if limit != resource.RLIM_INFINITY else len(containers)
    for first in range(0, len(containers), max(1, at_once)):
        yield from _Endings(first, containers[first : first + at_once], begin).run()


class _Endings:
    """The ends of as many containers as the limit of open files allows at once.

    first: the position of the first of them in the whole list.
    """

    def __init__(self, first: int, containers: Sequence[str], begin: Callable[[str], Target | None]) -> None:
        self.first = first
        self.containers = containers
        self.begin = begin
        self.running: dict[int, tuple[int, Target]] = {}  # pidfd → position in the whole list, and the process
        self.settling: list[tuple[int, Target]] = []
        self.poll = select.poll()

    def run(self) -> Iterator[Ended]:
        """Begin all, and yield each that has ended."""
        try:
            ended = []
            for position, container in enumerate(self.containers, self.first):
                try:
                    target = self.begin(container)
                except RootlessError as e:
                    ended.append(Ended(position, e))
                    continue
                if target is None:
                    ended.append(Ended(position))
                    continue
                self.running[target.pidfd] = (position, target)
                self.poll.register(target.pidfd, select.POLLIN)
            # Only now, when all have been told to end: the caller takes its time with each that is yielded (it may
            # remove files or start it again), and the others use that time to end
            yield from ended
            while self.running or self.settling:
                yield from self._turn()
        finally:
            for _, target in (*self.running.values(), *self.settling):
                target.close()

    def _turn(self) -> list[Ended]:
        """Wait for the next end or deadline, and return the containers that have ended and settled by then."""
        ended = []
        for position, target in list(self.running.values()):
            if target.deadline is not None and target.deadline <= time.monotonic():
                target.deadline = None
                try:
                    target.kill()
                except HostLimit as e:
                    self._forget(target).close()
                    ended.append(Ended(position, e))
        for pidfd, _ in self.poll.poll(self._patience()):
            position, target = self.running[pidfd]
            self.settling.append((position, self._forget(target)))
        settled = [(position, target) for position, target in self.settling if target.has_settled()]
        self.settling = [one for one in self.settling if one not in settled]
        for position, target in settled:
            target.close()
            ended.append(Ended(position))
            if target.on_end is not None:
                target.on_end()
        return ended

    def _forget(self, target: Target) -> Target:
        del self.running[target.pidfd]
        self.poll.unregister(target.pidfd)
        return target

    def _patience(self) -> int | None:
        """Milliseconds until there is something to do even if no process ends before; None: there never is."""
        if self.settling:
            return int(_SETTLE_POLL * 1000)
        deadlines = [target.deadline for _, target in self.running.values() if target.deadline is not None]
        if not deadlines:
            return None
        return min(max(0, int((min(deadlines) - time.monotonic()) * 1000) + 1), _LONGEST_WAIT)
