"""How a build's output is shown: whole lines, whatever the command writes."""

from __future__ import annotations

import io
import tracemalloc

from rootless.builder.session.tracker import StepEvent
from rootless.cli.build_progress import Plain


def test_an_endless_line_comes_in_pieces() -> None:
    """A RUN that writes gigabytes without a newline must not be kept until there is one."""

    class Sink(io.StringIO):
        size = 0

        def write(self, text: str) -> int:
            self.size += len(text)
            return len(text)

    sink = Sink()
    shown = Plain(sink)
    shown.event(StepEvent(1, "start", "RUN yes"))
    tracemalloc.start()
    for _ in range(512):
        shown.event(StepEvent(1, "output", output=b"x" * 65536))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    shown.event(StepEvent(1, "done"))
    assert sink.size > 512 * 65536 and peak < 4 << 20


def test_lines_stay_whole() -> None:
    sink = io.StringIO()
    shown = Plain(sink)
    shown.event(StepEvent(1, "start", "RUN x"))
    for piece in (b"one", b" line\nand", b" another"):
        shown.event(StepEvent(1, "output", output=piece))
    shown.event(StepEvent(1, "done"))
    said = [line.split(" ", 2)[-1] for line in sink.getvalue().splitlines()]
    assert said[1:3] == ["one line", "and another"]
