"""Numbers the steps of a build and hands their events on, one at a time, from whatever thread. It renders nothing."""

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
    """A step that has begun. Each of its methods is an event."""

    __slots__ = ("_tracker", "number", "title")

    def __init__(self, tracker: Tracker, number: int, title: str) -> None:
        self._tracker = tracker
        self.number = number
        self.title = title

    def output(self, content: bytes) -> None:
        """What the command wrote."""
        self._tracker.send(StepEvent(self.number, "output", output=content))

    def log(self, text: str) -> None:
        """A line of our own."""
        self._tracker.send(StepEvent(self.number, "log", text))

    def cached(self) -> None:
        """The result was known."""
        self._tracker.send(StepEvent(self.number, "cached"))

    def done(self, text: str = "") -> None:
        """It has ended well."""
        self._tracker.send(StepEvent(self.number, "done", text))

    def error(self, text: str) -> None:
        """It has failed."""
        self._tracker.send(StepEvent(self.number, "error", text))


class Tracker:
    """The steps of one build."""

    __slots__ = ("_lock", "_number", "_report")

    def __init__(self, report: Report | None) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._number = 0

    def start(self, title: str) -> Step:
        """A new step begins."""
        with self._lock:
            self._number += 1
            step = Step(self, self._number, title)
            if self._report is not None:
                self._report(StepEvent(step.number, "start", title))
        return step

    def send(self, event: StepEvent) -> None:
        """Hand one event on."""
        if self._report is None:
            return
        with self._lock:
            self._report(event)
