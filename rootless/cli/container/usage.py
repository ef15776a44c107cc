"""`stats` and `update` of containers: what they use, and new limits for them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from rootless import output
from rootless.cli import completion
from rootless.cli.declaration import Session, command, each, pass_session, switch, text
from rootless.cli.run_flags import format_option, limit_options, no_trunc_option
from rootless.engine import verbs

if TYPE_CHECKING:
    from rootless.cli.table import Layout
    from rootless.engine.container.stats import ContainerStats

_HOME, _CLEAR_BELOW = "\x1b[H", "\x1b[J"


def _layout(*, trunc: bool) -> Layout:
    from rootless.cli.table import Column, Layout, short_id
    from rootless.units import human_binary_size, human_size

    def shown(value: str) -> Any:
        return lambda s: getattr(s, value)

    def pair(one: str, other: str) -> Any:
        return lambda s: (
            "-- / --" if not s.source else f"{human_size(getattr(s, one))} / {human_size(getattr(s, other))}"
        )

    def percent(value: float, known: Any) -> str:
        return f"{value:.2f}%" if known else "--"

    def pressure(kind: str) -> Any:
        return lambda s: f"{s.pressure[kind]:.2f}%" if kind in s.pressure else "--"

    def memory(field: str) -> Any:
        def cell(s: ContainerStats) -> str:
            if not s.source:
                return "-- / --"
            return f"{human_binary_size(getattr(s, field))} / {human_binary_size(s.memory_limit)}"

        return cell

    columns = [
        Column("BlockIO", "BLOCK I/O", pair("block_read", "block_written")),
        Column("CPUPerc", "CPU %", lambda s: percent(s.cpu, s.source)),
        Column("CPUPressure", "CPU PSI", pressure("cpu")),
        Column("Container", "CONTAINER", lambda s: short_id(s.id) if trunc else s.id),
        Column("ID", "CONTAINER ID", lambda s: short_id(s.id) if trunc else s.id),
        Column("IOPressure", "IO PSI", pressure("io")),
        Column("MemPerc", "MEM %", lambda s: percent(s.memory_percent, s.source)),
        Column("MemPressure", "MEM PSI", pressure("memory")),
        Column("MemUsage", "MEM USAGE / LIMIT", memory("memory")),
        Column("MemWithCache", "MEM WITH CACHE / LIMIT", memory("memory_cached")),
        Column("Name", "NAME", shown("name")),
        Column("NetIO", "NET I/O", pair("net_received", "net_sent")),
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
@switch("-a", "--all", help="Show containers that do not run too")
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
@switch("--no-reset", help="Do not clear the screen between samples")
@switch("--no-stream", help="Print one sample and end")
@no_trunc_option
@click.argument("containers", nargs=-1, metavar="[CONTAINER...]", shell_complete=completion.running)
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
    """Print sample after sample."""
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
@text("--restart", metavar="POLICY", help="no, on-failure[:N], always or unless-stopped")
@click.argument("containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=completion.containers)
@pass_session
def update(session: Session, /, **limits: Any) -> int:
    """Change each."""
    containers: tuple[str, ...] = limits.pop("containers")
    restart: str | None = limits.pop("restart")
    given = {name: value for name, value in limits.items() if value is not None}

    def update_one(name: str) -> str:
        verbs.update_container(session.engine, name, given, restart=restart)
        return name

    return each(containers, update_one)


@command(
    "events",
    "Show what happens to containers, images and volumes",
    places=(
        "system events",
        "events",
    ),
    description="Without --until the command waits for what comes. The last one or two megabytes of events are kept: "
    "--since looks into them, no daemon is needed.",
    examples="rootless events --since 1h --until 0s\nrootless events --filter event=die --format '{{.ID}}'",
)
@text(
    "-f",
    "--filter",
    metavar="KEY=VALUE",
    multiple=True,
    help="Show only what matches: container, image, volume, type, event, label",
)
@text("--format", metavar="FORMAT", help="'json', or a Go template of fields")
@text("--since", metavar="TIME", help="From this time on: RFC 3339, seconds since 1970, or a duration such as 10m")
@text("--until", metavar="TIME", help="Up to this time")
@switch("--stream", default=True, help="Go on with what comes (default true)")
@pass_session
def events(
    session: Session,
    filter: tuple[str, ...],
    format: str | None,
    since: str | None,
    until: str | None,
    stream: bool,
) -> None:
    """Print each event as it comes."""
    from rootless.cli.declaration import parse_filters

    happened = verbs.stream_events(
        session.engine, since=since, until=until, filters=parse_filters(filter), follow=stream
    )
    print_one = _event_printer(format)
    for event in happened:
        print_one(event)
        sys.stdout.flush()


def _event_printer(format: str | None) -> Any:
    if not format:
        return lambda event: output.line(_event_line(event))
    if format in ("json", "{{json .}}"):
        return lambda event: output.line(output.json_text(event, indent=None))
    from rootless.cli.template import Row, Template

    template = Template(format)

    def show(event: dict[str, Any]) -> None:
        actor = event["Actor"]
        more = {"ID": actor["ID"], "Name": actor["Attributes"].get("name", ""), "Status": event["Action"]}
        output.line(template.execute(Row({**more, **event})))

    return show


def _event_line(event: dict[str, Any]) -> str:
    """docker's line: time type action id (key=value, ...)."""
    from rootless.units import local_timestamp_ns

    attributes = event["Actor"]["Attributes"]
    listed = ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes))
    told = f"{local_timestamp_ns(event['timeNano'])} {event['Type']} {event['Action']} {event['Actor']['ID']}"
    return output.escape(f"{told} ({listed})" if listed else told)
