"""`image diff`, `image shell` and why there is no `image mount`: looks into the files of images."""

from __future__ import annotations

import click

from rootless.cli.container.snapshot import diff_format_option, print_changes
from rootless.cli.declaration import CommandRules, Session, command, complete_names, pass_session
from rootless.engine import verbs
from rootless.errors import UsageError


@command(
    "diff",
    "List what is different between the files of two images",
    description="A: added in the second image, C: changed, D: deleted. With one image: what its topmost layer changes.",
)
@diff_format_option
@click.argument("image", shell_complete=complete_names("images"))
@click.argument("other", required=False, shell_complete=complete_names("images"))
@pass_session
def diff(session: Session, format: str | None, image: str, other: str | None) -> None:
    """Print one line per path that is different."""
    print_changes(verbs.image_changes(session.engine, image, other), format)


@command(
    "shell",
    "Look into the files of an image with the programs of the host",
    description="Starts your shell, or COMMAND, in the image's tree, as root of your user namespace. What it changes "
    "there is dropped at its end. Nothing of the image is run: for that there is `rootless run`.",
    examples="rootless image shell debian\nrootless image shell debian du -sh usr\nrootless image shell web tar -c etc",
    rules=CommandRules(command_first=True),
)
@click.argument("image", shell_complete=complete_names("images"))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND [ARG...]]")
@pass_session
def shell(session: Session, image: str, arguments: tuple[str, ...]) -> int:
    """Run the command in the image's tree, and end with its exit status."""
    return verbs.image_shell(session.engine, image, arguments)


@command(
    "mount", "Say how to reach the files of an image", description="A mount of an image could not outlive its shell."
)
@click.argument("images", nargs=-1, metavar="[IMAGE]...", shell_complete=complete_names("images"))
@pass_session
def mount(session: Session, images: tuple[str, ...]) -> None:
    """Say why there is no such command, and what to use instead. Raises UsageError."""
    name = images[0] if images else "IMAGE"
    raise UsageError(
        "an ordinary user's mounts end with the process that made them: there is no `image mount`",
        hint=f"use `rootless image shell {name}`, or `rootless create {name}` and `rootless export`",
    )
