"""Several transfers at once: threads report progress, and the caller's thread shows it and raises the first error."""

from __future__ import annotations

import queue
import threading
from typing import Generic, TypeVar

from rootless.engine.image_types import PullEvent
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


Result = TypeVar("Result")
_STEP = 1 << 19  # bytes between two reports of a transfer
_FAREWELL = 3.0  # seconds to wait for the end of threads whose transfer was cancelled


class Cancelled(Exception):
    """Raised inside a transfer when another one failed: it ends the thread and is never seen outside."""


class Control:
    """The one link of a transfer to the others: `emit` reports its progress, `check` says whether to go on."""

    __slots__ = ("_cancelled", "emit")

    def __init__(self, emit: Callable[[PullEvent], None], cancelled: threading.Event) -> None:
        self.emit = emit
        self._cancelled = cancelled

    def meter(self, id: str, status: str, total: int) -> Callable[[int], None]:
        """A function that a transfer of `total` bytes calls with the number of bytes that are done.

        It reports progress when half a MiB has passed since the last report, or when the transfer began anew; and it
        raises Cancelled when another transfer has failed.
        """
        shown = 0

        def on_bytes(count: int) -> None:
            nonlocal shown
            self.check()
            if count - shown >= _STEP or count < shown:
                shown = count
                self.emit(PullEvent(id, status, count, total))

        return on_bytes

    def check(self) -> None:
        """Raise Cancelled when another transfer has failed."""
        if self._cancelled.is_set():
            raise Cancelled


class _Done(Generic[Result]):
    __slots__ = ("position", "result")

    def __init__(self, position: int, result: Result) -> None:
        self.position = position
        self.result = result


def run_all(
    jobs: Sequence[Callable[[Control], Result]], progress: Callable[[PullEvent], None], *, at_once: int = 3
) -> list[Result]:
    """Run all jobs, at most `at_once` at a time, and return their results in the order of the jobs.

    progress is called from this thread only. The first error cancels the other jobs and is raised.
    """
    if not jobs:
        return []
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for position in range(len(jobs)):
        waiting.put(position)
    events: queue.SimpleQueue[PullEvent | BaseException | _Done[Result] | None] = queue.SimpleQueue()
    cancelled = threading.Event()
    control = Control(events.put, cancelled)

    def work() -> None:
        try:
            while not cancelled.is_set():
                try:
                    position = waiting.get_nowait()
                except queue.Empty:
                    break
                events.put(_Done(position, jobs[position](control)))
            events.put(None)
        except BaseException as e:  # It is handed to the caller's thread, which raises it
            events.put(e)

    # Daemon threads: one that hangs in a read of the network may not keep the program from ending
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(jobs)))]
    for thread in threads:
        thread.start()
    try:
        return _follow(events, len(threads), progress, cancelled)
    finally:
        cancelled.set()
        for thread in threads:
            thread.join(_FAREWELL)


def _follow(
    events: queue.SimpleQueue[PullEvent | BaseException | _Done[Result] | None],
    running: int,
    progress: Callable[[PullEvent], None],
    cancelled: threading.Event,
) -> list[Result]:
    """Show events and collect results until every thread has ended; then raise the first error."""
    results: dict[int, Result] = {}
    failure: BaseException | None = None
    while running:
        event = events.get()
        if isinstance(event, _Done):
            results[event.position] = event.result
        elif event is None:
            running -= 1
        elif isinstance(event, BaseException):
            running -= 1
            cancelled.set()
            if failure is None or isinstance(failure, Cancelled):
                failure = event
            if not isinstance(event, RootlessError | Cancelled):
                break  # It is a bug or an interrupt, and the other threads may never end
        elif failure is None:
            progress(event)
    if failure is not None:
        raise failure
    return [results[position] for position in sorted(results)]
