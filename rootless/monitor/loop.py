"""The monitor's one event loop: descriptors, timers, signals. It knows nothing of containers.

The signals' functions come from the interpreter's C module `_signal`, because `signal` loads enum: 1 MB in each idle
monitor.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import heapq
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SIGHUP: int = _signal.SIGHUP
SIGINT: int = _signal.SIGINT
SIGKILL: int = _signal.SIGKILL
SIGTERM: int = _signal.SIGTERM
SIGCHLD: int = _signal.SIGCHLD
SIGNAL_NUMBERS = range(1, int(_signal.NSIG))
READ = select.EPOLLIN
WRITE = select.EPOLLOUT
URGENT = select.EPOLLPRI  # a file that the kernel makes, as memory.events of a cgroup, has changed
# Seconds. epoll_wait(2) takes milliseconds in 32 bits, about 24 days, and Python raises OverflowError beyond them.
# `turn` returns after a day without calling anything, and the next one waits for the rest
_LONGEST_WAIT = 24 * 3600.0


def block_signals(numbers: Iterable[int]) -> None:
    """Keep these signals pending until `unblock_signals`, also across execve(2), which keeps mask and pending set."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, numbers)


def unblock_signals(numbers: Iterable[int]) -> None:
    """Deliver the signals again that `block_signals` kept waiting."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, numbers)


def send_signal(pidfd: int, number: int) -> None:
    """Send signal `number` to the process of `pidfd`, which no other process can become. Raises OSError."""
    _signal.pidfd_send_signal(pidfd, number)


class Timer:
    """A call that will be made once, unless cancelled."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Loop:
    """epoll, a heap of timers, and a pipe through which signals wake the loop.

    Without the pipe a signal would go unseen: after its handler has run, Python waits on (PEP 475).
    """

    __slots__ = ("_calls", "_epoll", "_signals", "_timers", "_wake")

    def __init__(self) -> None:
        self._epoll = select.epoll(8)
        self._calls: dict[int, Callable[[int], object]] = {}
        self._timers: list[Timer] = []
        self._signals: dict[int, Callable[[], None]] = {}
        wake, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wake = wake
        _signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.watch(wake, READ, self._woken)

    def watch(self, fd: int, events: int, call: Callable[[int], object]) -> None:
        """Call `call(events)` whenever `fd` is ready; replaces an earlier watch of the same descriptor."""
        if fd in self._calls:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._calls[fd] = call

    def forget(self, fd: int) -> None:
        """Stop watching `fd`, before it is closed; harmless when it is not watched."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call `call()` once, after `seconds` of the monotonic clock, which nobody can set."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, timer)
        return timer

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        """Call `call()` from the loop, never inside other code, after signal `number`."""
        self._signals[number] = call
        _signal.signal(number, lambda *_: None)  # a Python handler must exist for the wake-up byte to be written

    def turn(self) -> None:
        """Wait for the next event or timer and make its calls. The caller looks after each turn whether it is done."""
        now = time.monotonic()
        while self._timers and (self._timers[0].call is None or self._timers[0].when <= now):
            call = heapq.heappop(self._timers).call
            if call is not None:
                call()
                return  # the call may have ended what the caller waits for
        timeout = min(max(self._timers[0].when - now, 0), _LONGEST_WAIT) if self._timers else -1
        for fd, events in self._epoll.poll(timeout):
            call_events = self._calls.get(fd)  # an earlier call of this turn may have forgotten it
            if call_events is not None:
                call_events(events)

    def _woken(self, _events: int) -> None:
        try:
            numbers = set(os.read(self._wake, 4096))
        except BlockingIOError:
            return
        for number in numbers:
            if call := self._signals.get(number):
                call()
