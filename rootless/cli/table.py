"""Lists as docker prints them: aligned columns, `--format` templates, JSON lines, -q. It knows no noun."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from rootless import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.cli.template import Row
    from rootless.engine.types import PruneReport

Line = TypeVar("Line")  # what one row of a list shows
# Docker's tabwriter has these widths, in characters
_LEAST_WIDTH = 10
_PADDING = 3


class Column(Generic[Line]):
    """One column: its heading, the template field it is, and how to make its text from a row's object."""

    __slots__ = ("field", "heading", "value")

    def __init__(self, field: str, heading: str, value: Callable[[Line], object]) -> None:
        self.field = field
        self.heading = heading
        self.value = value


class Layout(Generic[Line]):
    """What a list can show. Columns are all fields of templates; `shown` are those of the plain table, in order.

    methods: fields that take an argument, such as Label "key". quiet: the field that -q prints.
    """

    def __init__(
        self,
        columns: Sequence[Column[Line]],
        shown: Sequence[str],
        *,
        quiet: str,
        methods: Mapping[str, Callable[[Line, str], str]] | None = None,
    ) -> None:
        self.columns = {column.field: column for column in columns}
        self.shown = tuple(shown)
        self.quiet = quiet
        self.methods = methods or {}

    def print(self, objects: Iterable[Line], *, format: str | None, quiet: bool, headings: bool = True) -> None:
        """Print one line per object in the way that the flags ask for."""
        if quiet and self.quiet:
            value = self.columns[self.quiet].value
            for item in objects:
                output.line(_cell(value(item)))
            return
        if not format or format == "table":
            columns = [self.columns[field] for field in self.shown]
            rows = [[_cell(column.value(item)) for column in columns] for item in objects]
            if headings:
                rows.insert(0, [column.heading for column in columns])
            output.write(align_columns(rows))
        else:
            self._print_formatted(objects, format, headings=headings)

    def _print_formatted(self, objects: Iterable[Line], format: str, *, headings: bool) -> None:
        from rootless.cli.template import Template

        is_table = format.startswith(("table ", "table\\t", "table\t"))
        source = format[len("table") :].lstrip(" ") if is_table else format
        source = "{{json .}}" if source == "json" else source.replace("\\t", "\t").replace("\\n", "\n")
        source = source.strip() if is_table else source
        template = Template(source)
        lines = [template.execute(self._row(item)) for item in objects]
        if not is_table:
            for printed in lines:
                output.line(printed)
            return
        if headings:
            lines.insert(0, Template(source, heading=True).execute(self._heading_row()))
        output.write(align_columns([line.split("\t") for text in lines for line in text.split("\n")]))

    def _row(self, item: Line) -> Row:
        from rootless.cli.template import Row

        fields = {field: column.value(item) for field, column in sorted(self.columns.items())}
        return Row(fields, {name: _bound(method, item) for name, method in self.methods.items()})

    def _heading_row(self) -> Row:
        from rootless.cli.template import Row

        headings = {field: column.heading for field, column in self.columns.items()}
        return Row(headings, dict.fromkeys(self.methods, _label_heading))


def _bound(method: Callable[[Line, str], str], item: Line) -> Callable[[str], str]:
    return lambda argument: method(item, argument)


def _label_heading(name: str) -> str:
    """The heading that docker has for the column of one label: the last component of the label's name."""
    return name.split(".")[-1].replace("-", " ").replace("_", " ")


def _cell(value: object) -> str:
    text = str(value)
    # A row is one line: scripts count on it, and a label may have line ends
    return output.escape(text) if output.is_terminal(sys.stdout) else text.replace("\n", " ")


def align_columns(rows: Sequence[Sequence[str]]) -> str:
    """The text of rows of cells, with the columns one below the other; the last cell of a row is not padded.

    A column's width counts in runs of rows that have it, as Go's tabwriter does.
    """
    widths = [[0] * len(row) for row in rows]
    for at in range(max((len(row) for row in rows), default=0)):
        run: list[int] = []
        for number in range(len(rows) + 1):
            if number < len(rows) and at < len(rows[number]) - 1:
                run.append(number)
            elif run:
                width = max(_LEAST_WIDTH, max(len(rows[member][at]) for member in run) + _PADDING)
                for member in run:
                    widths[member][at] = width
                run = []
    lines = [
        "".join(cell.ljust(width) for cell, width in zip(row, sizes, strict=True))
        for row, sizes in zip(rows, widths, strict=True)
    ]
    return "".join(f"{line}\n" for line in lines)


def print_pruned(report: PruneReport) -> None:
    """Print what a prune command deleted, kind by kind, and the space that came free, in docker's words."""
    from rootless.units import human_size

    for title, names in (
        ("Deleted Containers", report.containers),
        ("Deleted Volumes", report.volumes),
        ("Deleted Networks", report.networks),
        ("Deleted Images", report.images),
        ("Deleted build cache objects", report.cache),
    ):
        if names:
            output.line(f"{title}:")
            for name in names:
                output.line(name)
            output.line()
    output.line(f"Total reclaimed space: {human_size(report.reclaimed)}")


def shorten(text: str, width: int) -> str:
    """`text` cut to `width` characters, the last an ellipsis where something was cut (docker's Ellipsis)."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def short_id(text: str) -> str:
    """The first twelve digits of an id or digest."""
    return text.removeprefix("sha256:")[:12]
