"""Hears of processes that the kernel kills for the container's memory limit, when it happens. It kills nothing."""

from __future__ import annotations

import os

from rootless.monitor.loop import URGENT, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.monitor.cgroup import AnyGroup


class MemoryWatch:
    """Calls `tell()` once for each change that killed something, until `close`, which looks a last time.

    told: what was killed so far has been told, by an earlier image of this process.
    """

    __slots__ = ("_fd", "_group", "_kills", "_loop", "_tell")

    def __init__(self, loop: Loop, group: AnyGroup, tell: Callable[[], None], *, told: bool) -> None:
        self._loop = loop
        self._group = group
        self._tell = tell
        self._kills = group.oom_kills() if told else 0
        self._fd = -1
        path = group.watched()
        if path:
            try:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                loop.watch(self._fd, URGENT, lambda _: self._look())
            except OSError:
                pass  # no memory controller: nothing will be killed for a limit

    def _look(self) -> None:
        if self._fd >= 0:
            try:
                os.pread(self._fd, 4096, 0)  # only reading this very descriptor makes it wait for the next change
            except OSError:
                self._stop()
        kills = self._group.oom_kills()
        if kills > self._kills:
            self._kills = kills
            self._tell()

    def _stop(self) -> None:
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """The container has ended."""
        self._look()
        self._stop()
