"""How a build's output is shown: whole lines, whatever the command writes."""

from __future__ import annotations

import io
import tracemalloc

import pytest

from rootless.builder.session.tracker import StepEvent
from rootless.cli.build_progress import Plain, make_display
from rootless.cli.progress import PullProgress
from rootless.engine.image_types import PullEvent


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


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


def test_a_picture_ends_with_the_image_s_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image without a name could not be found after `build .` on a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    with make_display("auto", screen) as shown:
        shown.event(StepEvent(1, "start", "exporting to image"))
        shown.event(StepEvent(1, "done"))
    shown.show_result("sha256:" + "ab" * 32)
    assert screen.getvalue().endswith(f" => writing image sha256:{'ab' * 32}\n")


@pytest.mark.parametrize("kind", ["auto", "tty"])
def test_a_terminal_that_cannot_draw_gets_lines(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The library for pictures draws nothing on a dumb terminal, as in an editor: pull and build were silent there."""
    monkeypatch.setenv("TERM", "dumb")
    screen = Screen()
    assert isinstance(make_display(kind, screen), Plain)
    with PullProgress(screen) as progress:
        progress.event(PullEvent("abc", "Downloading", 1, 2))
        progress.event(PullEvent("abc", "Pull complete"))
    assert screen.getvalue() == "abc: Pull complete\n"
