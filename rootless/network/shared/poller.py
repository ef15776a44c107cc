"""The event loop of the process that serves networks: descriptors and timers. It knows nothing of networks."""

from __future__ import annotations

import errno
import heapq
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors of accept(2) after which the connection is still there to be accepted: the socket stays ready."""
_REST = 0.1  # seconds


class Later:
    """A call that will be made once, unless cancelled."""

    __slots__ = ("_call", "when")

    def __init__(self, when: float, call: Callable[[], object]) -> None:
        self.when = when
        self._call: Callable[[], object] | None = call

    def __lt__(self, other: Later) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Do not make the call; harmless when it was made."""
        self._call = None

    def run(self) -> None:
        """Make the call, unless it was cancelled or made."""
        call, self._call = self._call, None
        if call is not None:
            call()

    @property
    def is_cancelled(self) -> bool:
        """Whether the call will not be made any more."""
        return self._call is None


class Poller:
    """epoll, and a heap of timers."""

    __slots__ = ("_calls", "_epoll", "_timers")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], object]] = {}
        self._timers: list[Later] = []

    def watch(self, fd: int, call: Callable[[], object], events: int = READ) -> None:
        """Call `call` whenever `fd` is ready, has ended or has failed; replaces an earlier watch of it."""
        if fd in self._calls:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._calls[fd] = call

    def forget(self, fd: int) -> None:
        """Stop watching `fd`, before it is closed; harmless when it is not watched."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def rest(self, fd: int) -> None:
        """Do not watch `fd` for a moment: it stays ready, while what it is ready for fails."""
        call = self._calls[fd]
        self._epoll.modify(fd, 0)
        self.later(_REST, lambda: self.watch(fd, call) if self._calls.get(fd) == call else None)

    def later(self, seconds: float, call: Callable[[], object]) -> Later:
        """Call `call` once, after `seconds` of the monotonic clock."""
        timer = Later(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, timer)
        return timer

    def turn(self) -> None:
        """Wait for the next event or timer, and make its calls."""
        while self._timers and self._timers[0].is_cancelled:
            heapq.heappop(self._timers)
        now = time.monotonic()
        if self._timers and self._timers[0].when <= now:
            heapq.heappop(self._timers).run()
            return
        timeout = self._timers[0].when - now if self._timers else -1
        for fd, _ in self._epoll.poll(timeout):
            call = self._calls.get(fd)  # an earlier call of this turn may have forgotten it
            if call is not None:
                call()
