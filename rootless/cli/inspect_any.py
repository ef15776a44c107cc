"""`inspect` of anything, and how every inspect prints: a JSON list, or a template applied to each object."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from rootless import output
from rootless.cli.declaration import Session, command, complete_names, pass_session, switch_option, value_option
from rootless.engine import verbs
from rootless.errors import NotFound, RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine


@command(("inspect",), "Display detailed information on containers, images, volumes and networks")
@value_option("-f", "--format", metavar="FORMAT", help="'json' or a Go template over the object")
@switch_option("-s", "--size", help="Show the size of a container's writable layer")
@click.option(
    "-t",
    "--type",
    "kind",
    type=click.Choice(["all", "container", "image", "network", "volume"]),
    default="all",
    show_default=True,
    help="Look only for this kind of object",
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_names("containers"))
@pass_session
def inspect(session: Session, format: str | None, size: bool, kind: str, names: tuple[str, ...]) -> int:
    """Print each object as JSON, or as the template says."""
    engine = session.engine
    return print_objects(names, lambda name: _find(engine, name, kind, size=size), format)


def _find(engine: Engine, name: str, kind: str, *, size: bool) -> dict[str, object]:
    kinds: dict[str, Callable[[], dict[str, object]]] = {
        "container": lambda: verbs.inspect_container(engine, name, size=size),
        "image": lambda: verbs.inspect_image(engine, name),
        "volume": lambda: verbs.inspect_volume(engine, name),
        "network": lambda: verbs.inspect_network(engine, name),
    }
    if kind != "all":
        return kinds[kind]()
    for read in kinds.values():
        try:
            return read()
        except NotFound:
            continue
    raise NotFound(f"no such object: '{name}'")


def print_objects(names: Iterable[str], read: Callable[[str], dict[str, object]], format: str | None) -> int:
    """Print what `read` gives for each name, then the errors of the names that failed.

    format: None = a JSON list, "json" = an object per line, else a Go template. Returns the exit code, 1 for an error.
    """
    template = None
    if format and format != "json":
        from rootless.cli.template import Row, Template

        template = Template(format)
    found: list[dict[str, object]] = []
    failures: list[RootlessError] = []
    for name in names:
        try:
            found.append(read(name))
        except RootlessError as e:
            failures.append(e)
    if template is not None:
        for item in found:
            output.line(template.execute(Row(item)))
    elif format == "json":
        for item in found:
            output.line(output.json_text(item, indent=None))
    else:
        output.line(output.json_text(found))
    for failure in failures:
        output.error(str(failure))
    return 1 if failures else 0
