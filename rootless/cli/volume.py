"""`volume create`, `ls`, `inspect`, `rm`, `prune`, `exists`, `export` and `import`."""

from __future__ import annotations

import sys

import click

from rootless import output
from rootless.cli.declaration import (
    CommandRules,
    Session,
    command,
    complete_names,
    do_for_each,
    pass_session,
    repeated_option,
    switch_option,
    value_option,
)
from rootless.cli.run_flags import (
    confirm,
    filter_option,
    filter_option_prune,
    force_option,
    format_option,
    no_heading_option_short,
)
from rootless.engine import verbs
from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.types import VolumeSummary

_VOLUMES = click.argument(
    "names", nargs=-1, required=True, metavar="VOLUME...", shell_complete=complete_names("volumes")
)


@command("create", "Create a volume")
@value_option("-d", "--driver", metavar="NAME", default="local", help="Driver (default local)")
@repeated_option("--label", metavar="KEY[=VALUE]", help="Set a label")
@repeated_option("-o", "--opt", metavar="KEY=VALUE", help="Set an option of the driver")
@click.argument("name", required=False)
@pass_session
def create(session: Session, driver: str, label: tuple[str, ...], opt: tuple[str, ...], name: str | None) -> None:
    """Make a volume, and print its name."""
    output.line(verbs.create_volume(session.engine, name, driver=driver, labels=label, options=opt))


@command("ls", "List volumes")
@filter_option
@format_option
@no_heading_option_short
@switch_option("-q", "--quiet", help="Only print names")
@pass_session
def ls(session: Session, filter: tuple[str, ...], format: str | None, noheading: bool, quiet: bool) -> None:
    """Print one line per volume."""
    from rootless import units
    from rootless.cli.declaration import parse_filters
    from rootless.cli.table import Column, Layout

    def labels(row: VolumeSummary) -> str:
        return ",".join(f"{key}={value}" for key, value in row.labels.items())

    def size(row: VolumeSummary) -> str:
        return "N/A" if row.size is None else units.human_size(row.size)

    columns: list[Column[VolumeSummary]] = [
        Column("Driver", "DRIVER", lambda row: row.driver),
        Column("Labels", "LABELS", labels),
        Column("Mountpoint", "MOUNTPOINT", lambda row: row.mountpoint),
        Column("Name", "VOLUME NAME", lambda row: row.name),
        Column("Scope", "SCOPE", lambda row: "local"),
        Column("Size", "SIZE", size),
    ]
    layout = Layout(
        columns, ["Driver", "Name"], quiet="Name", methods={"Label": lambda row, key: row.labels.get(key, "")}
    )
    rows = verbs.list_volumes(session.engine, filters=parse_filters(filter))
    layout.print(rows, format=format, quiet=quiet, headings=not noheading)


@command("inspect", "Display detailed information on volumes")
@value_option("-f", "--format", metavar="FORMAT", help="'json' or a Go template over the object")
@_VOLUMES
@pass_session
def inspect(session: Session, format: str | None, names: tuple[str, ...]) -> int:
    """Print each volume as JSON, or as the template says."""
    from rootless.cli.inspect_any import print_objects

    return print_objects(names, lambda name: verbs.inspect_volume(session.engine, name), format)


@command(
    "exists", "Tell by the exit code whether a volume exists: 0 for yes, 1 for no", rules=CommandRules(own_error=125)
)
@click.argument("name", metavar="VOLUME", shell_complete=complete_names("volumes"))
@pass_session
def exists(session: Session, name: str) -> int:
    """Look for a volume, and print nothing."""
    return 0 if verbs.volume_exists(session.engine, name) else 1


@command("export", "Write the files of a volume as a tar archive")
@value_option("-o", "--output", "target", metavar="FILE", default="-", help="File to write (default: standard output)")
@click.argument("name", metavar="VOLUME", shell_complete=complete_names("volumes"))
@pass_session
def export(session: Session, target: str, name: str) -> None:
    """Write the archive, which `import` and tar read."""
    if target == "-" and output.is_terminal(sys.stdout):
        raise UsageError(
            "an archive is not written to a terminal", hint="name a file with -o FILE, or redirect standard output"
        )
    verbs.export_volume(session.engine, name, target)


@command(
    "import",
    "Put the files of a tar archive into a volume",
    description="The volume must exist. What it has stays, but for the files that the archive has too. FILE may be "
    "compressed; - or none reads standard input.",
)
@click.argument("name", metavar="VOLUME", shell_complete=complete_names("volumes"))
@click.argument("file", metavar="[FILE]", required=False, default="-")
@pass_session
def import_(session: Session, name: str, file: str) -> None:
    """Place the archive's files."""
    if file == "-" and output.is_terminal(sys.stdin):
        raise UsageError("an archive is not read from a terminal", hint="name a file, or redirect standard input")
    verbs.import_volume(session.engine, name, file)


@command("rm", "Remove volumes")
@switch_option("-f", "--force", help="An unknown volume is no error")
@_VOLUMES
@pass_session
def rm(session: Session, force: bool, names: tuple[str, ...]) -> int:
    """Remove each volume, unless a container uses it, and print its name."""

    def remove_one(name: str) -> str:
        verbs.remove_volume(session.engine, name, force=force)
        return name

    return do_for_each(names, remove_one)


@command("prune", "Remove unused volumes")
@switch_option("-a", "--all", help="Remove named volumes too, not only anonymous ones")
@force_option
@filter_option_prune
@pass_session
def prune(session: Session, all: bool, force: bool, filter: tuple[str, ...]) -> None:
    """Ask, then remove the volumes that no container uses, and print what was removed."""
    from rootless.cli.declaration import parse_filters
    from rootless.cli.table import print_pruned

    filters = parse_filters(filter)
    which = "all volumes" if all else "anonymous volumes"
    if confirm(f"This will remove {which} not used by at least one container.", force=force):
        print_pruned(verbs.prune_volumes(session.engine, all=all, filters=filters))
