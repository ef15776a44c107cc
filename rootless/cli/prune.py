"""What the prune commands say they did, in docker's words."""

from __future__ import annotations

from rootless import output, units
from rootless.engine.types import PruneReport


def print_report(report: PruneReport) -> None:
    """Print what was deleted, kind by kind, and the space that came free."""
    for title, names in (
        ("Deleted Containers", report.containers),
        ("Deleted Volumes", report.volumes),
        ("Deleted Images", report.images),
        ("Deleted build cache objects", report.cache),
    ):
        if names:
            output.line(f"{title}:")
            for name in names:
                output.line(name)
            output.line()
    output.line(f"Total reclaimed space: {units.human_size(report.reclaimed)}")
