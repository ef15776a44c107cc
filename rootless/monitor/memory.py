"""Reports processes that the kernel kills for the container's memory limit, when that happens. It kills nothing."""

from __future__ import annotations

import os

from rootless.monitor.loop import URGENT, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.monitor.cgroup import AnyGroup


class MemoryWatch:
    """Calls `report()` once for each change that killed something, until `close`, which looks a last time.

    The last look is needed where the first process itself was killed: its end may be heard of before the change.
    is_reported: an earlier image of this process has reported what was killed so far.
    """

    __slots__ = ("_fd", "_group", "_kills", "_loop", "_report")

    def __init__(self, loop: Loop, group: AnyGroup, report: Callable[[], None], *, is_reported: bool) -> None:
        self._loop = loop
        self._group = group
        self._report = report
        self._kills = group.oom_kills() if is_reported else 0
        self._fd = -1
        path = group.watched()
        if path:
            try:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                loop.watch(self._fd, URGENT, lambda _: self._look())
            except OSError:
                pass  # without the memory controller there is no file, and nothing is killed for a limit

    def _look(self) -> None:
        if self._fd >= 0:
            try:
                # The kernel notes at each open file which change it has read: without a read of this very descriptor
                # poll would report the same change again at once, and the loop would spin
                os.pread(self._fd, 4096, 0)
            except OSError:
                self._stop()
        kills = self._group.oom_kills()
        if kills > self._kills:
            self._kills = kills
            self._report()

    def _stop(self) -> None:
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """Look a last time, now that the container has ended, and stop watching."""
        self._look()
        self._stop()
