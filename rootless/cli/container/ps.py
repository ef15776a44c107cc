"""`ps` (`container ls`): the table of containers, with docker's columns and fields."""

from __future__ import annotations

from collections.abc import Iterable

import click

from rootless.cli.declaration import Session, command, pass_session, switch_option
from rootless.cli.run_flags import filter_option, format_option, no_heading_option, no_trunc_option
from rootless.engine import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.cli.table import Layout
    from rootless.engine.types import ContainerSummary, PortBinding


@command(
    ("container ls", "ps"),
    "List containers",
)
@switch_option("-a", "--all", help="Show stopped containers too")
@filter_option
@format_option
@click.option("-n", "--last", metavar="N", type=int, default=-1, help="Show the N newest containers, in any state")
@switch_option("-l", "--latest", help="Show the newest container, in any state")
@no_heading_option
@no_trunc_option
@switch_option("-q", "--quiet", help="Only print ids")
@switch_option("-s", "--size", help="Show the size of the writable layer")
@pass_session
def ls(
    session: Session,
    all: bool,
    filter: tuple[str, ...],
    format: str | None,
    last: int,
    latest: bool,
    noheading: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> None:
    """Print one line per container, newest first."""
    from rootless.cli.declaration import parse_filters

    # As in docker: sizes, which take long to count, are counted where the format asks for them
    with_size = size or (format is not None and ".Size" in format and not quiet)
    rows = verbs.list_containers(
        session.engine, all=all, filters=parse_filters(filter), last=1 if latest else last, size=with_size
    )
    ps_layout(no_trunc=no_trunc, with_size=size).print(rows, format=format, quiet=quiet, headings=not noheading)


def ps_layout(*, no_trunc: bool, with_size: bool) -> Layout[ContainerSummary]:
    """The columns of `ps`, and the fields of its templates. with_size: whether the plain table has the column SIZE."""
    from rootless import units
    from rootless.cli.table import Column, Layout, short_id, shorten

    def command_text(row: ContainerSummary) -> str:
        from rootless.cli.template.printing import quote

        joined = " ".join(row.command)
        return quote(joined if no_trunc else shorten(joined, 20))

    def image(row: ContainerSummary) -> str:
        shown = row.image or "<no image>"
        if no_trunc:
            return shown
        return short_id(shown) if shown.startswith("sha256:") else shown.partition("@")[0]

    def size(row: ContainerSummary) -> str:
        if row.size_rw is None:
            return "0B"
        virtual = f" (virtual {units.human_size(row.size_root)})" if row.size_root else ""
        return units.human_size(row.size_rw) + virtual

    def mounts(row: ContainerSummary) -> str:
        return ",".join(name if no_trunc else shorten(name, 15) for name in row.mounts)

    def labels(row: ContainerSummary) -> str:
        return ",".join(f"{key}={value}" for key, value in row.labels.items())

    columns: list[Column[ContainerSummary]] = [
        Column("Command", "COMMAND", command_text),
        Column("CreatedAt", "CREATED AT", lambda row: units.local_time(row.created)),
        Column("ID", "CONTAINER ID", lambda row: row.id if no_trunc else short_id(row.id)),
        Column("Image", "IMAGE", image),
        Column("Labels", "LABELS", labels),
        Column("LocalVolumes", "LOCAL VOLUMES", lambda row: str(sum(not name.startswith("/") for name in row.mounts))),
        Column("Mounts", "MOUNTS", mounts),
        Column("Names", "NAMES", lambda row: row.name),
        Column("Networks", "NETWORKS", lambda row: ",".join(row.networks)),
        Column("Ports", "PORTS", lambda row: ports_text(row.ports, row.exposed)),
        Column("RunningFor", "CREATED", lambda row: units.human_age(row.created)),
        Column("Size", "SIZE", size),
        Column("State", "STATE", lambda row: row.state),
        Column("Status", "STATUS", lambda row: row.status),
    ]
    shown = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"]
    return Layout(
        columns,
        [*shown, "Size"] if with_size else shown,
        quiet="ID",
        methods={"Label": lambda row, key: row.labels.get(key, "")},
    )


def ports_text(bindings: Iterable[PortBinding], exposed: Iterable[str]) -> str:
    """Ports in docker's words: published ones as "IP:HOST->CONTAINER/tcp", exposed ones as "CONTAINER/tcp".

    Neighbours are joined to ranges.
    """
    # A run is a list of ports that follow one another on both sides; the host's side of an exposed port is 0
    entries = sorted(
        {(one.protocol, _shown_ip(one.host_ip), one.container_port, one.host_port) for one in bindings}
        | {(text.partition("/")[2] or "tcp", "", int(text.partition("/")[0]), 0) for text in exposed}
    )
    runs: list[list[tuple[str, str, int, int]]] = []
    for entry in entries:
        before = runs[-1][-1] if runs else None
        follows = (
            before is not None
            and before[:2] == entry[:2]
            and before[2] + 1 == entry[2]
            and (before[3] + 1 == entry[3] if entry[3] else not before[3])
        )
        if follows:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    runs.sort(key=lambda run: (run[0][2], run[0][0], run[0][1]))
    return ", ".join(_run_text(run) for run in runs)


def _run_text(run: list[tuple[str, str, int, int]]) -> str:
    (protocol, ip, container, host), last = run[0], run[-1]
    inside = f"{container}-{last[2]}" if len(run) > 1 else f"{container}"
    if not host:
        return f"{inside}/{protocol}"
    outside = f"{host}-{last[3]}" if len(run) > 1 else f"{host}"
    return f"{ip}:{outside}->{inside}/{protocol}"


def _shown_ip(address: str) -> str:
    address = address or "0.0.0.0"  # noqa: S104 - what is shown for "every address"
    return f"[{address}]" if ":" in address and not address.startswith("[") else address
