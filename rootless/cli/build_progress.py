"""How a build is shown: plain lines, a live picture on a terminal, JSON lines, or nothing. It starts no build."""

from __future__ import annotations

import json
import time

from rootless import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import TextIO

    from rich.console import Group
    from rich.text import Text as RichText

    from rootless.builder.session.tracker import StepEvent

_TAIL = 6  # lines of output below a running step
_KEPT = 50  # lines that a failure shows


class Display:
    """What shows the events of a build, one at a time, and failures. This one shows nothing; others extend it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def event(self, event: StepEvent) -> None:
        """Take one event of the build, in the order in which they happen."""

    def show_failure(self) -> None:
        """Show output of the step that failed where the display has not shown all of it."""

    def show_result(self, image_id: str) -> None:
        """Show which image was built, where the display has not shown it. It is closed already."""

    def close(self) -> None:
        """Leave the terminal to others: the build is over."""


_LONGEST_LINE = 1 << 16  # bytes that are kept of a line whose end has not come


class _Lines:
    """What a command of the build prints, as whole and harmless lines.

    A carriage return begins a line anew, as on a terminal. A line without end is cut into pieces, so that a command
    cannot fill the memory. Control characters are escaped: the command may be a stranger's.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[str]:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        return [self._text(line) for line in lines]

    def rest(self) -> list[str]:
        rest, self._rest = self._rest, b""
        return [self._text(rest)] if rest else []

    @staticmethod
    def _text(line: bytes) -> str:
        return output.escape_block(line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace"))


class Plain(Display):
    """BuildKit's plain log: `#5 [2/4] RUN make`, output with the seconds since the step began."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._began: dict[int, float] = {}
        self._lines: dict[int, _Lines] = {}

    def event(self, event: StepEvent) -> None:
        """Print one event as one or more lines."""
        number = event.number
        if event.kind == "start":
            self._began[number] = time.monotonic()
            self._lines[number] = _Lines()
            self._line(number, output.escape(event.text))
            return
        passed = time.monotonic() - self._began.get(number, time.monotonic())
        if event.kind == "output":
            for line in self._lines[number].feed(event.output):
                self._line(number, f"{passed:.3f} {line}")
            return
        for line in self._lines[number].rest():
            self._line(number, f"{passed:.3f} {line}")
        if event.kind == "log":
            self._line(number, output.escape(event.text))
        elif event.kind == "cached":
            self._line(number, "CACHED\n")
        elif event.kind == "done":
            self._line(number, f"DONE {passed:.1f}s\n")
        elif event.kind == "error":
            self._line(number, f"ERROR: {output.escape(event.text)}\n")

    def _line(self, number: int, text: str) -> None:
        output.raw(f"#{number} {text}\n", self.stream)
        self.stream.flush()


class RawJson(Display):
    """Prints one JSON object per event and line, for programs."""

    def event(self, event: StepEvent) -> None:
        """Write the event as one JSON object, at once."""
        fields: dict[str, object] = {"step": event.number, "event": event.kind, "time": time.time()}
        if event.text:
            fields["text"] = event.text
        if event.output:
            fields["output"] = event.output.decode("utf-8", "replace")
        output.raw(json.dumps(fields) + "\n", self.stream)
        self.stream.flush()


class _Shown:
    """A step on the live picture: its title, state, times in seconds, and the last lines that it has printed."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.began = time.monotonic()
        self.took = 0.0
        self.state = "running"
        self.lines = _Lines()
        self.tail: list[str] = []

    def add(self, lines: list[str]) -> None:
        self.tail = [*self.tail, *lines][-_KEPT:]


class Live(Display):
    """A picture of the running steps on a terminal, drawn again and again; finished ones scroll away above it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        from rich.console import Console
        from rich.live import Live as Picture

        self._console = Console(file=stream, highlight=False, soft_wrap=False)
        self._steps: dict[int, _Shown] = {}
        self._failed: _Shown | None = None
        self._picture = Picture(
            console=self._console, get_renderable=self._render, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> Display:
        self._picture.start()
        return self

    def close(self) -> None:
        """Stop drawing, so that others can write to the terminal."""
        self._picture.stop()

    def event(self, event: StepEvent) -> None:
        """Show one event in the live picture."""
        if event.kind == "start":
            self._steps[event.number] = _Shown(output.escape(event.text))
            return
        step = self._steps.get(event.number)
        if step is None:
            return
        if event.kind == "output":
            step.add(step.lines.feed(event.output))
        elif event.kind == "log":
            step.add([output.escape(event.text)])
        else:
            step.add(step.lines.rest())
            step.took = time.monotonic() - step.began
            step.state = event.kind
            if event.kind == "error":
                self._failed = step
            del self._steps[event.number]
            self._console.print(self._line(step), highlight=False)

    def show_failure(self) -> None:
        """Print the last lines of the step that failed, of which the picture has shown a few."""
        if self._failed is not None:
            for line in self._failed.tail:
                self._console.out(f" > {line}", highlight=False)

    def show_result(self, image_id: str) -> None:
        """Print the image's id, which is the only way to the image where it got no name."""
        self._console.out(f" => writing image {image_id}", highlight=False)

    def _line(self, step: _Shown) -> RichText:
        from rich.text import Text

        took = time.monotonic() - step.began if step.state == "running" else step.took
        mark, style = {"cached": ("CACHED ", "cyan"), "error": ("ERROR ", "red")}.get(step.state, ("", ""))
        text = Text(f" => {mark}{step.title}", style=style or ("" if step.state == "running" else "blue"))
        text.truncate(max(20, self._console.width - 9), overflow="ellipsis")
        text.append(f" {took:6.1f}s")
        return text

    def _render(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        rows = []
        for step in list(self._steps.values()):
            rows.append(self._line(step))
            for line in step.tail[-_TAIL:]:
                text = Text(f" => => # {line}", style="dim")
                text.truncate(max(20, self._console.width - 1), overflow="ellipsis")
                rows.append(text)
        return Group(*rows)


def make_display(kind: str, stream: TextIO) -> Display:
    """The display of that kind: auto (a picture on a terminal, else lines), plain, tty, rawjson or quiet."""
    if kind == "auto":
        kind = "tty" if output.can_draw(stream) else "plain"
    if kind == "tty" and (output.can_draw(stream) or not output.is_terminal(stream)):
        return Live(stream)
    if kind == "rawjson":
        return RawJson(stream)
    return Display(stream) if kind == "quiet" else Plain(stream)
