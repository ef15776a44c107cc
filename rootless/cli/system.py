"""`info`, `version`, `doctor`, `unshare` and `prune` of the whole."""

from __future__ import annotations

import sys

import click

from rootless import output
from rootless.cli.declaration import CommandRules, Session, command, pass_session, switch_option, value_option
from rootless.cli.run_flags import confirm, filter_option_prune, force_option
from rootless.engine import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootless.host.doctor import Section

_OBJECT_FORMAT = value_option("-f", "--format", metavar="FORMAT", help="'json' or a Go template over the object")


def _print_object(found: Mapping[str, object], format: str | None) -> None:
    if format == "json":
        output.line(output.json_text(found, indent=None))
    elif format:
        from rootless.cli.template import Row, Template

        output.line(Template(format).execute(Row(found)))
    else:
        _print_tree(found, 0)


def _print_tree(found: Mapping[str, object], depth: int) -> None:
    """Print a document as `docker info` does: "Key: value", one space deeper per level."""
    indent = " " * depth
    for key, value in found.items():
        if isinstance(value, dict):
            output.line(f"{indent}{key}:")
            _print_tree(value, depth + 1)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            output.line(f"{indent}{key}:")
            for item in value:
                name = item.get("Name", "") if isinstance(item, dict) else item
                output.line(f"{indent} {name}:")
                if isinstance(item, dict):
                    _print_tree({k: v for k, v in item.items() if k != "Name"}, depth + 2)
        else:
            output.line(f"{indent}{key}: {_plain(value)}")


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return "" if value is None else str(value)


@command(
    ("system info", "info"),
    "Display information on the host and the store",
)
@_OBJECT_FORMAT
@pass_session
def info(session: Session, format: str | None) -> None:
    """Print what the host and the store are."""
    _print_object(verbs.system_info(session.engine), format)


@command(
    ("system version", "version"),
    "Show version information",
)
@_OBJECT_FORMAT
@pass_session
def version(session: Session, format: str | None) -> None:
    """Print our version and those of the programs we use."""
    _print_object(verbs.versions(session.engine), format)


@command(
    ("system doctor", "doctor"),
    "Try what this host can do, and say how to get what it cannot",
    description="Each primitive is tried for real. The exit code is 1 when containers cannot run at all.",
)
@click.option(
    "--format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print it"
)
@switch_option("-q", "--quiet", help="Only print what does not work")
@pass_session
def doctor(session: Session, format: str, quiet: bool) -> int:
    """Print each primitive that containers need, whether it works, and the remedy where it does not."""
    sections = verbs.examine_host(session.engine)
    if format == "json":
        output.line(output.json_text([section.to_json() for section in sections]))
    else:
        for section in sections:
            _print_section(section, quiet=quiet)
    return 0 if all(section.is_usable for section in sections) else 1


def _print_section(section: Section, *, quiet: bool) -> None:
    probes = [probe for probe in section.probes if not (quiet and probe.works and not probe.flaw)]
    if quiet and not probes:
        return
    output.raw(output.colored(section.title, "bold", sys.stdout) + "\n")
    for probe in probes:
        word, color = ("works", "green") if probe.works else ("does not", "red")
        if probe.flaw:
            word, color = "flawed", "yellow"
        output.raw(f"  {output.colored(f'{word:<9}', color, sys.stdout)}")
        output.line(f"{probe.name}: {probe.detail}")
        if (probe.flaw or not probe.works) and probe.remedy:
            output.line(f"           remedy: {probe.remedy}")
    output.line(f"  → {section.verdict}")


@command(
    ("system unshare", "unshare"),
    "Run a command as root of your user namespace",
    description="Files of containers and volumes that belong to other ids look as they do inside containers, and may "
    "be read, changed and removed. Without COMMAND: your shell.",
    examples="rootless unshare ls -ln ~/.local/share/rootless/volumes/data/_data\n"
    "rootless unshare rm -rf old-directory",
    rules=CommandRules(own_error=125, command_first=True),
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_session
def unshare(session: Session, command: tuple[str, ...]) -> int:
    """Run the command, and end with its exit status."""
    return verbs.run_unshared(session.engine, command)


@command("prune", "Remove unused data")
@switch_option("-a", "--all", help="Remove all images that no container uses, not only those without a name")
@switch_option("--build", help="Remove the build cache and its cache mounts too")
@filter_option_prune
@force_option
@switch_option("--volumes", help="Remove anonymous volumes too")
@pass_session
def prune(session: Session, all: bool, build: bool, filter: tuple[str, ...], force: bool, volumes: bool) -> None:
    """Remove stopped containers, unneeded images, and what killed commands left behind."""
    from rootless.cli.declaration import parse_filters
    from rootless.cli.table import print_pruned

    filters = parse_filters(filter)
    kinds = [
        "all stopped containers",
        "all networks not used by at least one container",
        "all images without at least one container associated to them" if all else "all dangling images",
        *(["all anonymous volumes not used by at least one container"] if volumes else []),
        *(["all build cache"] if build else []),
        *(["all copies of layers for other id maps without a container"] if all and not filters else []),
        "what interrupted commands left behind",
    ]
    question = "This will remove:\n" + "\n".join(f"  - {kind}" for kind in kinds) + "\n"
    if confirm(question, force=force):
        print_pruned(verbs.prune_system(session.engine, all=all, volumes=volumes, build=build, filters=filters))
