"""The monitor's loop: a timer far away must neither end the monitor nor keep it from its events."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from rootless.monitor.loop import Loop


@pytest.fixture(autouse=True)
def wakeup_fd_of_others() -> Iterator[None]:
    before = signal.set_wakeup_fd(-1)
    yield
    signal.set_wakeup_fd(before)


@pytest.mark.parametrize("seconds", [9.3e9, 1e300, float("inf")])
def test_a_timer_of_centuries_waits_its_turn(seconds: float) -> None:
    """epoll_wait(2) takes a 32-bit number of milliseconds; Python raises OverflowError for more."""
    loop = Loop()
    calls: list[str] = []
    loop.later(seconds, lambda: calls.append("far"))
    loop.later(0.01, lambda: calls.append("near"))
    near = [loop.turn() for _ in range(3) if not calls]
    assert (calls, len(near) <= 3) == (["near"], True)
    waits: list[float] = []
    loop._epoll.close()
    loop._epoll = type("Epoll", (), {"poll": lambda self, timeout: waits.append(timeout) or ()})()  # type: ignore[assignment]
    loop.turn()
    assert 0 < waits[0] <= 86400
