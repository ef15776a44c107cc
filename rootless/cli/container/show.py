"""`inspect`, `logs`, `top` and `port` of containers: read and print."""

from __future__ import annotations

import sys

import click

from rootless import output
from rootless.cli.declaration import (
    CommandRules,
    Session,
    command,
    complete_names,
    pass_session,
    switch_option,
    value_option,
)
from rootless.engine import verbs
from rootless.errors import UsageError

_ONE_LOG = "it tells the lines of several containers apart, and here logs shows those of one"


@command(("container inspect",), "Display detailed information on containers")
@value_option("-f", "--format", metavar="FORMAT", help="'json' or a Go template over the object")
@switch_option("-s", "--size", help="Show the size of the writable layer")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_names("containers"))
@pass_session
def inspect(session: Session, format: str | None, size: bool, names: tuple[str, ...]) -> int:
    """Print each container as JSON, or as the template says."""
    from rootless.cli.inspect_any import print_objects

    return print_objects(names, lambda name: verbs.inspect_container(session.engine, name, size=size), format)


@command(
    "logs",
    "Fetch the logs of a container",
    rules=CommandRules(absent={"--color": _ONE_LOG, "--names": _ONE_LOG}),
)
@switch_option("-f", "--follow", help="Go on with what comes")
@value_option(
    "--since", metavar="TIME", help="From this time on: RFC 3339, seconds since 1970, or a duration such as 10m"
)
@value_option("-n", "--tail", metavar="N", default="all", help="Only the last N lines (default all)")
@switch_option("-t", "--timestamps", help="Show the time of each line")
@value_option("--until", metavar="TIME", help="Up to this time")
@click.argument("container", shell_complete=complete_names("containers"))
@pass_session
def logs(
    session: Session,
    follow: bool,
    since: str | None,
    tail: str,
    timestamps: bool,
    until: str | None,
    container: str,
) -> None:
    """Print what the container wrote: its bytes as they were, each to the stream it came from."""
    from rootless.engine.report_types import LogOptions

    lines = verbs.container_logs(session.engine, container, LogOptions(follow, _tail(tail), since, until))
    streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    wrote_to = ""
    for stream, moment, content in lines:
        if wrote_to and wrote_to != stream:
            streams[wrote_to].flush()  # lines keep their order where both streams lead to one place
        wrote_to = stream
        target = streams.get(stream, sys.stdout.buffer)
        target.write(f"{moment} ".encode() + content if timestamps else content)
        if follow:
            target.flush()


def _tail(text: str) -> int | None:
    if text.lower() in ("all", ""):
        return None
    try:
        number = int(text)
    except ValueError:
        raise UsageError(f"invalid --tail '{text}'", hint="a number of lines, or all") from None
    return None if number < 0 else number


@command(
    "top",
    "Display the running processes of a container",
    description="Further arguments are options of ps, such as -o pid,args.",
    rules=CommandRules(command_first=True),
)
@click.argument("container", shell_complete=complete_names("running_containers"))
@click.argument("ps_options", nargs=-1, type=click.UNPROCESSED, metavar="[PS OPTIONS]...")
@pass_session
def top(session: Session, container: str, ps_options: tuple[str, ...]) -> None:
    """Print the container's processes."""
    from rootless.cli.table import align_columns

    table = verbs.container_processes(session.engine, container, ps_options)
    rows = [table.titles, *table.rows]
    output.write(align_columns([[output.escape(cell) for cell in row] for row in rows]))


@command("port", "List port mappings of a container")
@click.argument("container", shell_complete=complete_names("running_containers"))
@click.argument("private_port", required=False, metavar="[PORT[/PROTOCOL]]")
@pass_session
def port(session: Session, container: str, private_port: str | None) -> None:
    """Print each published port; for one port only the host's side."""
    for binding in verbs.container_ports(session.engine, container, private_port):
        host = binding.host_ip or "0.0.0.0"  # noqa: S104 - what is shown for "every address"
        side = f"[{host}]:{binding.host_port}" if ":" in host else f"{host}:{binding.host_port}"
        output.line(side if private_port else f"{binding.container_port}/{binding.protocol} -> {side}")
