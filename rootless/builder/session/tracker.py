"""Numbers the steps of a build and passes their events on, one at a time, from any thread.

Nothing is displayed here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple


class StepEvent(NamedTuple):
    """Something that happened in a step, for the progress display.

    number: from 1 in order of appearance; kind: "start" (text: the step's title), "output" (bytes of the command),
    "log" (text), "cached", "done" (text: "" or a remark), "error" (text), "total" (number: steps in all).
    """

    number: int
    kind: str
    text: str = ""
    output: bytes = b""


Report = Callable[[StepEvent], None]


class Step:
    """A step that has begun. Each of its methods reports one event of the step."""

    __slots__ = ("_tracker", "number", "title")

    def __init__(self, tracker: Tracker, number: int, title: str) -> None:
        self._tracker = tracker
        self.number = number
        self.title = title

    def output(self, content: bytes) -> None:
        """Report what the step's command wrote, as it came: pieces end anywhere, even inside of a character."""
        self._tracker.send(StepEvent(self.number, "output", output=content))

    def log(self, text: str) -> None:
        """Report a line of the tool itself, without its line end."""
        self._tracker.send(StepEvent(self.number, "log", text))

    def cached(self) -> None:
        """Report that the result was in the cache, so that nothing is carried out."""
        self._tracker.send(StepEvent(self.number, "cached"))

    def done(self, text: str = "") -> None:
        """Report that the step has ended well. text: a remark, "" for none."""
        self._tracker.send(StepEvent(self.number, "done", text))

    def error(self, text: str) -> None:
        """Report that the step has failed. text: why."""
        self._tracker.send(StepEvent(self.number, "error", text))


class Tracker:
    """Numbers the steps of one build and reports their events, from any thread, one at a time."""

    __slots__ = ("_lock", "_number", "_report")

    def __init__(self, report: Report | None) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._number = 0

    def start(self, title: str) -> Step:
        """Report that a step begins; return the step, by which its further events are reported."""
        with self._lock:
            self._number += 1
            step = Step(self, self._number, title)
            if self._report is not None:
                self._report(StepEvent(step.number, "start", title))
        return step

    def send(self, event: StepEvent) -> None:
        """Report one event, unless nobody wants them. The lock makes the display see one event at a time."""
        if self._report is None:
            return
        with self._lock:
            self._report(event)
