"""How a pull, load or import shows its steps: bars on a terminal, docker's lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

from rootless import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from rootless.engine.image_types import PullEvent

_DONE = ("Pull complete", "Already exists", "Download complete", "Pushed", "Layer already exists", "Mounted", "Copied")
_MOVING = ("Downloading", "Extracting", "Pushing", "Copying")


class PullProgress:
    """The display of one operation: `with PullProgress(stream) as progress: pull_image(..., progress=progress.event)`.

    quiet: show nothing. Bars use the library rich, which is imported with the first event of a layer on a terminal.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.stream = stream or sys.stdout
        self.quiet = quiet
        self._said: dict[str, str] = {}
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> PullProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop drawing, so that others can write to the terminal; the bars stay on it as they are."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def event(self, event: PullEvent) -> None:
        """Show one step of a pull or push as soon as it happens."""
        if self.quiet:
            return
        # A pull ends with these lines: what is drawn again after them would stand between them and the prompt
        if not event.id and event.status.startswith(("Digest: ", "Status: ")):
            self.close()
        if not event.id:
            self._line(event.status)
        elif output.can_draw(self.stream):
            self._bar(event)
        elif event.status not in _MOVING and self._said.get(event.id) != event.status:
            self._said[event.id] = event.status
            self._line(f"{event.id}: {event.status}")

    def _line(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.out(output.escape(text), highlight=False)
        else:
            output.line(text, self.stream)
            self.stream.flush()

    def _bar(self, event: PullEvent) -> None:
        bars = self._bars or self._start()
        task = self._tasks.get(event.id)
        if task is None:
            task = self._tasks[event.id] = bars.add_task(
                "", total=None, layer=output.escape(event.id), status="", amount=""
            )
        from rootless import units

        moving = event.status in _MOVING
        amount = units.human_size(event.current) if moving else ""
        if moving and event.total:
            amount += f"/{units.human_size(event.total)}"
        done = event.status.startswith(_DONE)
        bars.update(
            task,
            total=(event.total or None) if moving else 1,
            completed=event.current if moving else int(done),
            status=output.escape(event.status),
            amount=amount,
        )

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        # Names and texts come from strangers: as rich's markup they could colour, link and hide what is shown
        self._bars = Progress(
            TextColumn("{task.fields[layer]}:", markup=False),
            TextColumn("{task.fields[status]}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[amount]}", markup=False),
            console=Console(file=self.stream, highlight=False),
        )
        self._bars.start()
        return self._bars
