"""Signals by number, from the interpreter's C module: `signal` itself loads enum, 1 MB in each idle monitor."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SIGHUP: int = _signal.SIGHUP
SIGINT: int = _signal.SIGINT
SIGKILL: int = _signal.SIGKILL
SIGTERM: int = _signal.SIGTERM
SIGCHLD: int = _signal.SIGCHLD
NUMBERS = range(1, int(_signal.NSIG))


def set_wakeup_fd(fd: int) -> None:
    """Write the number of each signal that has a handler to `fd`, which does not block."""
    _signal.set_wakeup_fd(fd, warn_on_full_buffer=False)


def handle(number: int, handler: Callable[[int, object], object] | None) -> None:
    """Install a handler, or (None) the default action."""
    _signal.signal(number, _signal.SIG_DFL if handler is None else handler)


def block(numbers: Iterable[int]) -> None:
    """Hold these signals back, also across an exec, until `unblock`."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, numbers)


def unblock(numbers: Iterable[int]) -> None:
    """Deliver the signals again that `block` kept waiting."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, numbers)


def send(pidfd: int, number: int) -> None:
    """Send a signal to the very process of `pidfd`. Raises OSError."""
    _signal.pidfd_send_signal(pidfd, number)
