"""`image rm`, `tag`, `untag`, `image prune` and `image exists`: names of images come and go."""

from __future__ import annotations

import click

from rootless import output
from rootless.cli.declaration import (
    CommandRules,
    Session,
    command,
    complete_names,
    do_for_each,
    pass_session,
    switch_option,
    value_option,
)
from rootless.cli.run_flags import confirm, filter_option_prune, force_option, names_or_all
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
@switch_option("-a", "--all", help="Remove every image")
@switch_option(
    "-f", "--force", help="Remove it even when stopped containers or several names use it; unknown is no error"
)
@value_option("--platform", metavar="OS/ARCH[/VARIANT]", help="Remove it only if it is for this platform")
@click.argument("images", nargs=-1, metavar="IMAGE...", shell_complete=complete_names("images"))
@pass_session
def rm(session: Session, all: bool, force: bool, platform: str | None, images: tuple[str, ...]) -> int:
    """Take each name away, and the image with its last name."""
    images = names_or_all(images, all, "an image", lambda: _every_name(session))

    def remove_one(name: str) -> None:
        try:
            _print_removed(verbs.remove_image(session.engine, name, force=force, platform=platform))
        except NotFound as e:
            if not force:
                raise
            output.error(str(e))

    return do_for_each(images, remove_one)


def _every_name(session: Session) -> list[str]:
    """The names of all images, and the ids of those without one."""
    return [
        row.id if "<none>" in (row.repository, row.tag) else f"{row.repository}:{row.tag}"
        for row in verbs.list_images(session.engine)
    ]


@command(
    ("image tag", "tag"),
    "Give an image further names",
)
@click.argument("source", metavar="IMAGE", shell_complete=complete_names("images"))
@click.argument("targets", nargs=-1, required=True, metavar="NAME[:TAG]...")
@pass_session
def tag(session: Session, source: str, targets: tuple[str, ...]) -> None:
    """Give the image more names; those it has stay."""
    for target in targets:
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


@command(
    "exists",
    "Tell by the exit code whether an image exists: 0 for yes, 1 for no",
    rules=CommandRules(own_error=125),
)
@click.argument("name", metavar="IMAGE", shell_complete=complete_names("images"))
@pass_session
def exists(session: Session, name: str) -> int:
    """Look for an image, and print nothing."""
    return 0 if verbs.image_exists(session.engine, name) else 1


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
