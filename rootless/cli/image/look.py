"""`image diff` and `image shell`: looks into the files of images."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.changes import format_option, print_changes
from rootless.cli.command import Session, command, pass_session


@command(
    "diff",
    "List what is different between the files of two images",
    description="A: added in the second image, C: changed, D: deleted. With one image: what its topmost layer changes.",
)
@format_option
@click.argument("image", shell_complete=complete.images)
@click.argument("other", required=False, shell_complete=complete.images)
@pass_session
def diff(session: Session, format: str | None, image: str, other: str | None) -> None:
    """Print a line per change."""
    print_changes(session.engine.images.diff(image, other), format)
