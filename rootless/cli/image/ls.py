"""`image ls`, `image inspect` and `history`: docker's columns and fields of images."""

from __future__ import annotations

import click

from rootless.cli.declaration import Session, command, complete_names, pass_session, switch_option, value_option
from rootless.cli.run_flags import filter_option, format_option, no_heading_option_short, no_trunc_option
from rootless.engine import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.image_types import HistoryEntry, ImageSummary


@command(
    ("image ls", "images"),
    "List images",
)
@switch_option("-a", "--all", help="Show all images (none are hidden)")
@switch_option("--digests", help="Show digests")
@filter_option
@format_option
@no_heading_option_short
@no_trunc_option
@switch_option("-q", "--quiet", help="Only print ids")
@click.argument("names", nargs=-1, metavar="[REPOSITORY[:TAG]]...", shell_complete=complete_names("images"))
@pass_session
def ls(
    session: Session,
    all: bool,
    digests: bool,
    filter: tuple[str, ...],
    format: str | None,
    noheading: bool,
    no_trunc: bool,
    quiet: bool,
    names: tuple[str, ...],
) -> None:
    """Print one line per name of an image, newest first."""
    from rootless import units
    from rootless.cli.declaration import parse_filters
    from rootless.cli.table import Column, Layout, short_id

    def number(row: ImageSummary) -> str:
        return row.id if no_trunc else short_id(row.id)

    columns: list[Column[ImageSummary]] = [
        Column("Containers", "CONTAINERS", lambda row: str(row.containers)),
        Column("CreatedAt", "CREATED AT", lambda row: units.local_time(row.created)),
        Column("CreatedSince", "CREATED", lambda row: units.human_age(row.created)),
        Column("Digest", "DIGEST", lambda row: row.digest or "<none>"),
        Column("ID", "IMAGE ID", number),
        Column("Repository", "REPOSITORY", lambda row: row.repository),
        Column("SharedSize", "SHARED SIZE", lambda row: "N/A"),
        Column("Size", "SIZE", lambda row: units.human_size(row.size)),
        Column("Tag", "TAG", lambda row: row.tag),
        Column("UniqueSize", "UNIQUE SIZE", lambda row: "N/A"),
        Column("VirtualSize", "SIZE", lambda row: units.human_size(row.size)),
    ]
    rows = verbs.list_images(session.engine, filters=parse_filters(filter), names=names)
    middle = ["Digest"] if digests else []
    shown = ["Repository", "Tag", *middle, "ID", "CreatedSince", "Size"]
    Layout(columns, shown, quiet="ID").print(rows, format=format, quiet=quiet, headings=not noheading)


@command("inspect", "Display detailed information on images")
@value_option("-f", "--format", metavar="FORMAT", help="'json' or a Go template over the object")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_names("images"))
@pass_session
def inspect(session: Session, format: str | None, names: tuple[str, ...]) -> int:
    """Print each image as JSON, or as the template says."""
    from rootless.cli.inspect_any import print_objects

    return print_objects(names, lambda name: verbs.inspect_image(session.engine, name), format)


@command(
    ("image history", "history"),
    "Show the history of an image",
)
@format_option
@switch_option("-H", "--human", default=True, help="Sizes and times for people (default true)")
@no_trunc_option
@switch_option("-q", "--quiet", help="Only print ids")
@click.argument("image", shell_complete=complete_names("images"))
@pass_session
def history(session: Session, format: str | None, human: bool, no_trunc: bool, quiet: bool, image: str) -> None:
    """Print one line per step that made the image, newest first."""
    from rootless import units
    from rootless.cli.table import Column, Layout, short_id, shorten

    def created_by(row: HistoryEntry) -> str:
        one_line = row.created_by.replace("\t", " ")
        return one_line if no_trunc else shorten(one_line, 45)

    def created(row: HistoryEntry) -> str:
        return units.human_age(row.created) if human else units.local_timestamp(row.created)

    columns: list[Column[HistoryEntry]] = [
        Column("Comment", "COMMENT", lambda row: row.comment),
        Column("CreatedAt", "CREATED AT", lambda row: units.local_timestamp(row.created)),
        Column("CreatedBy", "CREATED BY", created_by),
        Column("CreatedSince", "CREATED", created),
        Column("ID", "IMAGE", lambda row: row.id if no_trunc or row.id == "<missing>" else short_id(row.id)),
        Column("Size", "SIZE", lambda row: units.human_size(row.size) if human else str(row.size)),
    ]
    shown = ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"]
    Layout(columns, shown, quiet="ID").print(verbs.image_history(session.engine, image), format=format, quiet=quiet)
