"""Prints the lines of `diff`, of containers and of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rootless import output
from rootless.cli.declaration import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.engine.image_types import Change

format_option = text(
    "--format",
    metavar="json",
    type=click.Choice(["json"]),
    help="'json': an object with the lists added, changed, deleted",
)
_LISTS = {"A": "added", "C": "changed", "D": "deleted"}


def print_changes(changes: Sequence[Change], format: str | None) -> None:
    """Print `KIND PATH` for each, or one object as podman does."""
    if format == "json":
        found = {name: [change.path for change in changes if change.kind == kind] for kind, name in _LISTS.items()}
        output.line(output.json_text({name: paths for name, paths in found.items() if paths}))
        return
    for change in changes:
        output.line(f"{change.kind} {output.escape(change.path)}")
