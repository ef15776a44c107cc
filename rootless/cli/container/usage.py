"""`stats` and `update` of containers: what they use, and new limits for them."""

from __future__ import annotations

import sys

import click

from rootless import output
from rootless.cli.declaration import (
    Session,
    command,
    complete_names,
    do_for_each,
    pass_session,
    switch_option,
    value_option,
)
from rootless.cli.run_flags import format_option, limit_options, no_trunc_option
from rootless.engine import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.cli.table import Layout
    from rootless.engine.report_types import ContainerStats
    from rootless.storage.store.eventlog import EventEntry

_HOME, _CLEAR_BELOW = "\x1b[H", "\x1b[J"


def _layout(*, trunc: bool) -> Layout[ContainerStats]:
    from rootless.cli.table import Column, Layout, short_id
    from rootless.units import human_binary_size, human_size

    def amounts(one: int, other: int, show: Callable[[int], str], *, known: str) -> str:
        return f"{show(one)} / {show(other)}" if known else "-- / --"

    def percent(value: float, *, known: str) -> str:
        return f"{value:.2f}%" if known else "--"

    def pressure(stats: ContainerStats, kind: str) -> str:
        return f"{stats.pressure[kind]:.2f}%" if kind in stats.pressure else "--"

    def number(stats: ContainerStats) -> str:
        return short_id(stats.id) if trunc else stats.id

    def block_io(stats: ContainerStats) -> str:
        return amounts(stats.block_read, stats.block_written, human_size, known=stats.source)

    def net_io(stats: ContainerStats) -> str:
        return amounts(stats.net_received, stats.net_sent, human_size, known=stats.source)

    def memory(stats: ContainerStats) -> str:
        return amounts(stats.memory, stats.memory_limit, human_binary_size, known=stats.source)

    def memory_with_cache(stats: ContainerStats) -> str:
        return amounts(stats.memory_cached, stats.memory_limit, human_binary_size, known=stats.source)

    columns: list[Column[ContainerStats]] = [
        Column("BlockIO", "BLOCK I/O", block_io),
        Column("CPUPerc", "CPU %", lambda s: percent(s.cpu, known=s.source)),
        Column("CPUPressure", "CPU PSI", lambda s: pressure(s, "cpu")),
        Column("Container", "CONTAINER", number),
        Column("ID", "CONTAINER ID", number),
        Column("IOPressure", "IO PSI", lambda s: pressure(s, "io")),
        Column("MemPerc", "MEM %", lambda s: percent(s.memory_percent, known=s.source)),
        Column("MemPressure", "MEM PSI", lambda s: pressure(s, "memory")),
        Column("MemUsage", "MEM USAGE / LIMIT", memory),
        Column("MemWithCache", "MEM WITH CACHE / LIMIT", memory_with_cache),
        Column("Name", "NAME", lambda s: s.name),
        Column("NetIO", "NET I/O", net_io),
        Column("PIDs", "PIDS", lambda s: str(s.pids) if s.source else "--"),
        Column("Source", "SOURCE", lambda s: s.source or s.status),
    ]
    plain = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"]
    return Layout(columns, plain, quiet="")


@command(
    "stats",
    "Display what containers use of CPU, memory, network and disk",
    description="The memory is without the page cache that can be dropped at once; .MemWithCache has it. CPU % of the "
    "first sample is over the whole life of the container, later ones over the time since the one before. "
    "Without a cgroup of its own (SOURCE proc) the numbers of a container are sums over its processes.",
    examples="rootless stats\nrootless stats --no-stream --format '{{.Name}} {{.CPUPerc}} {{.MemPressure}}' web",
)
@switch_option("-a", "--all", help="Show containers that do not run too")
@format_option
@click.option(
    "-i",
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    help="Time between two samples",
)
@switch_option("--no-reset", help="Do not clear the screen between samples")
@switch_option("--no-stream", help="Print one sample and end")
@no_trunc_option
@click.argument("containers", nargs=-1, metavar="[CONTAINER...]", shell_complete=complete_names("running_containers"))
@pass_session
def stats(
    session: Session,
    all: bool,
    format: str | None,
    interval: float,
    no_reset: bool,
    no_stream: bool,
    no_trunc: bool,
    containers: tuple[str, ...],
) -> None:
    """Print one table per sample, until the user interrupts it."""
    layout = _layout(trunc=not no_trunc)
    clears = not no_stream and not no_reset and output.is_terminal(sys.stdout) and format != "json"
    samples = verbs.container_stats(session.engine, containers, all=all, stream=not no_stream, interval=interval)
    for sample in samples:
        if clears:
            output.raw(_HOME + _CLEAR_BELOW)
        layout.print(sample, format=format, quiet=False)
        sys.stdout.flush()


@command(
    "update",
    "Change the limits of containers, running or not",
    description="A limit that is not named stays. Running containers have the new limits at once.",
    examples="rootless update --memory 1g --cpus 2 web",
)
@limit_options
@value_option("--restart", metavar="POLICY", help="no, on-failure[:N], always or unless-stopped")
@click.argument(
    "containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_names("containers")
)
@pass_session
def update(session: Session, /, containers: tuple[str, ...], restart: str | None, **limits: str | int | None) -> int:
    """Change each container; the names of those that were changed are printed."""
    given = {name: value for name, value in limits.items() if value is not None}

    def update_one(name: str) -> str:
        verbs.update_container(session.engine, name, given, restart=restart)
        return name

    return do_for_each(containers, update_one)


@command(
    ("system events", "events"),
    "Show what happens to containers, images and volumes",
    description="Without --until the command waits for what comes. The last one or two megabytes of events are kept: "
    "--since looks into them, no daemon is needed.",
    examples="rootless events --since 1h --until 0s\nrootless events --filter event=die --format '{{.ID}}'",
)
@value_option(
    "-f",
    "--filter",
    metavar="KEY=VALUE",
    multiple=True,
    help="Show only what matches: container, image, volume, type, event, label",
)
@value_option("--format", metavar="FORMAT", help="'json', or a Go template of fields")
@value_option(
    "--since", metavar="TIME", help="From this time on: RFC 3339, seconds since 1970, or a duration such as 10m"
)
@value_option("--until", metavar="TIME", help="Up to this time")
@switch_option("--stream", default=True, help="Go on with what comes (default true)")
@pass_session
def events(
    session: Session,
    filter: tuple[str, ...],
    format: str | None,
    since: str | None,
    until: str | None,
    stream: bool,
) -> None:
    """Print each event when it happens."""
    from rootless.cli.declaration import parse_filters

    happened = verbs.stream_events(
        session.engine, since=since, until=until, filters=parse_filters(filter), follow=stream
    )
    print_one = _event_printer(format)
    for event in happened:
        print_one(event)
        sys.stdout.flush()


def _event_printer(format: str | None) -> Callable[[EventEntry], None]:
    if not format:
        return lambda event: output.line(_event_line(event))
    if format in ("json", "{{json .}}"):
        return lambda event: output.line(output.json_text(event.document(), indent=None))
    from rootless.cli.template import Row, Template

    template = Template(format)

    def show(event: EventEntry) -> None:
        more = {"ID": event.id, "Name": event.attributes.get("name", ""), "Status": event.action}
        output.line(template.execute(Row({**more, **event.document()})))

    return show


def _event_line(event: EventEntry) -> str:
    """An event as docker prints it: time type action id (key=value, ...)."""
    from rootless.units import local_timestamp_ns

    listed = ", ".join(f"{key}={event.attributes[key]}" for key in sorted(event.attributes))
    shown = f"{local_timestamp_ns(event.nanoseconds)} {event.kind} {event.action} {event.id}"
    return output.escape(f"{shown} ({listed})" if listed else shown)
