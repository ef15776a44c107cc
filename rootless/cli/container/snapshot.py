"""`commit`, `diff` and `export`: what a container has become, as an image, a list, an archive."""

from __future__ import annotations

import sys

import click

from rootless import output
from rootless.cli.declaration import (
    Session,
    command,
    complete_names,
    pass_session,
    repeated_option,
    switch_option,
    value_option,
)
from rootless.engine import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.engine.image_types import Change

_COMMIT_EXAMPLES = """
rootless commit web web:patched
rootless commit -c 'CMD ["nginx"]' -c 'EXPOSE 80' -m 'config changed' web registry.example/web:2
"""


diff_format_option = value_option(
    "--format",
    metavar="json",
    type=click.Choice(["json"]),
    help="'json': an object with the lists added, changed, deleted",
)
_LISTS = {"A": "added", "C": "changed", "D": "deleted"}


@command(
    "commit",
    "Make an image of a container's changes",
    description="What is in volumes and bind mounts is not part of the image.",
    examples=_COMMIT_EXAMPLES,
)
@value_option("-a", "--author", metavar="TEXT", default="", help="Author of the image, such as 'Name <address>'")
@repeated_option(
    "-c", "--change", metavar="LINE", help="Apply a Dockerfile line: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, ..."
)
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["oci", "docker"]),
    default="oci",
    show_default=True,
    help="Media types of the manifest and config",
)
@value_option("--iidfile", metavar="FILE", type=click.Path(), help="Write the image's id to this file")
@value_option("-m", "--message", metavar="TEXT", default="", help="Comment in the image's history")
@switch_option("-p", "--pause", default=True, help="Freeze a running container meanwhile (default true)")
@switch_option("-q", "--quiet", help="Show no progress, only the result")
@switch_option("-s", "--squash", help="Make one layer of the container and all of its image")
@click.argument("container", shell_complete=complete_names("containers"))
@click.argument("name", required=False, metavar="[NAME[:TAG]]")
@pass_session
def commit(
    session: Session,
    author: str,
    change: tuple[str, ...],
    form: str,
    iidfile: str | None,
    message: str,
    pause: bool,
    quiet: bool,
    squash: bool,
    container: str,
    name: str | None,
) -> None:
    """Make the image and print its id."""
    from rootless.cli.progress import PullProgress
    from rootless.engine.image_types import CommitOptions

    with PullProgress(sys.stderr, quiet=quiet or not output.is_terminal(sys.stderr)) as progress:
        options = CommitOptions(author, change, message, pause, squash, form)
        image = verbs.commit_container(session.engine, container, name, options, progress=progress.event)
    if iidfile:
        from rootless.engine.id_file import write_id_file

        write_id_file(iidfile, image, option="--iidfile")
    output.line(image)


@command(
    "diff",
    "List what a container has changed in its image's files",
    description="A: added, C: changed, D: deleted.",
)
@diff_format_option
@click.argument("container", shell_complete=complete_names("containers"))
@pass_session
def diff(session: Session, format: str | None, container: str) -> None:
    """Print one line per path that the container has changed."""
    print_changes(verbs.container_changes(session.engine, container), format)


def print_changes(changes: Sequence[Change], format: str | None) -> None:
    """Print `KIND PATH` for each change, or one JSON object as podman does."""
    if format == "json":
        found = {name: [change.path for change in changes if change.kind == kind] for kind, name in _LISTS.items()}
        output.line(output.json_text({name: paths for name, paths in found.items() if paths}))
        return
    for change in changes:
        output.line(f"{change.kind} {output.escape(change.path)}")
