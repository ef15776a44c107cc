"""`image rm`, `tag`, `untag` and `image prune`: names and images go away."""

from __future__ import annotations

import click

from rootless import output
from rootless.cli.declaration import Session, command, complete_names, do_for_each, pass_session, switch_option
from rootless.cli.run_flags import confirm, filter_option_prune, force_option
from rootless.engine import verbs
from rootless.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.image_types import RemovedImage


def _print_removed(removed: RemovedImage) -> None:
    for name in removed.untagged:
        output.line(f"Untagged: {name}")
    for number in removed.deleted:
        output.line(f"Deleted: {number}")


@command(
    ("image rm", "rmi"),
    "Remove images",
)
@switch_option(
    "-f", "--force", help="Remove it even when stopped containers or several names use it; unknown is no error"
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_names("images"))
@pass_session
def rm(session: Session, force: bool, images: tuple[str, ...]) -> int:
    """Take each name away, and the image with its last name."""

    def remove_one(name: str) -> None:
        try:
            _print_removed(verbs.remove_image(session.engine, name, force=force))
        except NotFound as e:
            if not force:
                raise
            output.error(str(e))

    return do_for_each(images, remove_one)


@command(
    ("image tag", "tag"),
    "Give an image a further name",
)
@click.argument("source", metavar="IMAGE", shell_complete=complete_names("images"))
@click.argument("target", metavar="NAME[:TAG]")
@pass_session
def tag(session: Session, source: str, target: str) -> None:
    """Give the image another name; the one it has stays."""
    verbs.tag_image(session.engine, source, target)


@command(
    ("image untag", "untag"),
    "Take names away from an image, and keep the image",
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_names("images"))
@pass_session
def untag(session: Session, names: tuple[str, ...]) -> int:
    """Take each name away, and keep the image, which may have no name then."""
    return do_for_each(names, lambda name: _print_removed(verbs.untag_image(session.engine, name)))


@command("prune", "Remove unused images")
@switch_option("-a", "--all", help="Remove every image that no container uses, not only those without a name")
@force_option
@filter_option_prune
@pass_session
def prune(session: Session, all: bool, force: bool, filter: tuple[str, ...]) -> None:
    """Remove images that nothing needs."""
    from rootless.cli.declaration import parse_filters
    from rootless.cli.table import print_pruned

    filters = parse_filters(filter)
    which = "all images without at least one container associated to them" if all else "all dangling images"
    if confirm(f"This will remove {which}.", force=force):
        print_pruned(verbs.prune_images(session.engine, all=all, filters=filters))
