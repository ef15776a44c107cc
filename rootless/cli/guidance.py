"""What the tool says of itself: `help`, `completion` and `config`."""

from __future__ import annotations

import click

from rootless import output
from rootless.cli.declaration import Session, command, pass_session, value_option
from rootless.engine import verbs
from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.engine.settings import SettingInForce

_SHELLS = ("bash", "fish", "zsh")
_COMPLETE_VARIABLE = "_ROOTLESS_COMPLETE"


@command(("help",), "Show how a command is called", examples="rootless help run\nrootless help volume create")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_(ctx: click.Context, words: Sequence[str]) -> None:
    """Print what `COMMAND --help` prints."""
    context = ctx.find_root()
    for position, word in enumerate(words):
        group = context.command
        if not isinstance(group, click.Group):
            called = " ".join(words[:position])
            raise UsageError(f"'{called}' has no subcommands", hint=f"see 'rootless help {called}'")
        name, found, _ = group.resolve_command(context, [word])
        assert found is not None  # resolve_command raises for an unknown one
        context = click.Context(found, info_name=name, parent=context, **found.context_settings)
    output.raw(context.get_help() + "\n")


@command(
    ("completion",),
    "Print the script that completes words in your shell",
    examples="source <(rootless completion bash)\n"
    "rootless completion zsh > ~/.zfunc/_rootless\n"
    "rootless completion fish > ~/.config/fish/completions/rootless.fish",
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print click's script for that shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    maker = kind(ctx.find_root().command, {}, "rootless", _COMPLETE_VARIABLE)
    # click's own `source()` runs this machine's bash first, to warn of an old one: the script may be for another one
    output.raw(maker.source_template % maker.source_vars() + "\n")


@command(
    ("config",),
    "Show the settings in force and where each one comes from",
    description="A setting is given by `name = value` in config.toml, else by the variable ROOTLESS_NAME, else by a "
    "global flag; the last of them wins. Its meaning is told in rootless(1).",
)
@value_option("-f", "--format", metavar="FORMAT", help="'json', 'table ...' or a Go template")
@pass_session
def config(session: Session, format: str | None) -> None:
    """Print one line per setting."""
    from rootless.cli.table import Column, Layout

    columns: list[Column[SettingInForce]] = [
        Column("Name", "SETTING", lambda row: row.name),
        Column("Value", "VALUE", lambda row: str(row.value).lower() if isinstance(row.value, bool) else str(row.value)),
        Column("Source", "FROM", lambda row: row.source or "default"),
        Column("About", "MEANING", lambda row: row.about),
    ]
    rows = verbs.settings_in_force(session.engine)
    Layout(columns, ["Name", "Value", "Source"], quiet="Name").print(rows, format=format, quiet=False)
