"""How every command is declared: the click classes, and the session that they share. No command lives here.

Two habits of docker's flags that click lacks are added: `--flag=false` for switches, and `-p=80:80`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rootless import output
from rootless.errors import RootlessError, UsageError

if TYPE_CHECKING:
    from rootless.cli.progress import PullProgress
    from rootless.engine.context import Engine
    from rootless.engine.image_types import PullEvent

Declared = TypeVar("Declared", bound=Callable[..., Any])
_TRUE = {"1", "t", "true"}
_FALSE = {"0", "f", "false"}


class Session:
    """What the global flags said, and the engine made from it when a command asks."""

    def __init__(self, monitor: int | None = None) -> None:
        self.root: str | None = None
        self.debug = False
        self.storage_driver: str | None = None
        self.error_code: int | None = None  # set by commands whose own errors all have one exit code
        self.quiet = False  # show no progress
        self._monitor = monitor  # connection to a monitor that the console script has started
        self._engine: Engine | None = None
        self._progress: PullProgress | None = None

    @property
    def engine(self) -> Engine:
        """The engine over the caller's directories."""
        if self._engine is None:
            from rootless.engine.context import Engine
            from rootless.paths import directories

            overrides = {"storage_driver": self.storage_driver} if self.storage_driver else {}
            self._engine = Engine(
                directories(self.root),
                overrides=overrides,
                warn=output.warn,
                progress=self._show_progress,
                monitor=self._monitor,
                debug=output.debug if self.debug else None,
            )
        return self._engine

    def _show_progress(self, event: PullEvent) -> None:
        """A step of the pull that `run` or `create` does first; its output stays free for the container's."""
        if self.quiet:
            return
        if self._progress is None:
            from rootless.cli.progress import PullProgress

            self._progress = PullProgress(sys.stderr)
        self._progress.event(event)

    def end_progress(self) -> None:
        """Leave the terminal to others."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None


pass_session = click.make_pass_decorator(Session, ensure=True)


class Option(click.Option):
    """An option whose help is one line, so that click need not load `inspect` for each start to trim it."""

    def __init__(self, *arguments: Any, help: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.help = help


class _Helped(click.Command):
    """A command whose --help is one of our options too."""

    _own_help: click.Option | None = None

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """--help, the same object each time: click compares options by identity."""
        names = self.get_help_option_names(ctx)
        if not names or not self.add_help_option:
            return None
        if self._own_help is None:
            self._own_help = Option(
                [*names, "_show_help"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_help,
                help="Show this message and exit",
            )
        return self._own_help


def _show_help(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


class Command(_Helped):
    """A command with docker's habits of flags.

    own_error: docker's 125 for every failure that is ours and not the container's command's. places: the words that
    call it, one text per way ("image ls", "images"); `scripts/man` writes the tree of commands from them.
    """

    def __init__(
        self, *arguments: Any, own_error: int | None = None, places: tuple[str, ...] = (), **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.own_error = own_error
        self.places = places

    def make_parser(self, ctx: click.Context) -> Any:
        """click's parser, which also takes `--switch=false` and `-p=80:80`.

        click has no public way to say either, so two methods of its parser that it calls private are replaced in this
        one parser. The bound of click in pyproject.toml is there for this; a test names what must exist.
        """
        parser: Any = super().make_parser(ctx)
        match_long, match_short = parser._match_long_opt, parser._match_short_opt

        def long(opt: str, explicit_value: str | None, state: Any) -> None:
            option = parser._long_opt.get(opt)
            if option is None or explicit_value is None or option.takes_value:
                match_long(opt, explicit_value, state)
                return
            if explicit_value.lower() not in _TRUE | _FALSE:
                raise click.BadOptionUsage(
                    opt, f"invalid value '{explicit_value}' for switch '{opt}': true or false", ctx
                )
            state.opts[option.dest] = explicit_value.lower() in _TRUE
            state.order.append(option.obj)

        def short(arg: str, state: Any) -> None:
            option = parser._short_opt.get(arg[:2])
            if option is not None and option.takes_value and arg[2:3] == "=":
                arg = arg[:2] + arg[3:]
            match_short(arg, state)

        parser._match_long_opt, parser._match_short_opt = long, short
        return parser

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its exit code for errors of its own is noted first."""
        session = ctx.find_object(Session)
        if session is not None:
            session.error_code = self.own_error
        try:
            return super().invoke(ctx)
        finally:
            if session is not None:
                session.end_progress()


class LazyGroup(_Helped, click.Group):
    """A group whose commands are imported when they are used; their lines in its help come from the tree.

    entries: {name: (place, line of help)}, one group of command_tree.COMMANDS. A group
    within it is added as click does.
    """

    def __init__(
        self,
        *arguments: Any,
        entries: Mapping[str, tuple[str, str]],
        aliases: Mapping[str, str] | None = None,
        sections: Mapping[str, Iterable[str]] | None = None,
        **settings: Any,
    ) -> None:
        settings.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        settings.setdefault("no_args_is_help", False)
        super().__init__(*arguments, **settings)
        self.entries = entries
        self.aliases = dict(aliases or {})
        self.sections = sections or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the alphabet, without aliases."""
        return sorted([*self.entries, *self.commands])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        name = self.aliases.get(cmd_name, cmd_name)
        entry = self.entries.get(name)
        if entry is None:
            return self.commands.get(name)
        from importlib import import_module

        module, _, attribute = entry[0].partition(":")
        command: click.Command = getattr(import_module(f"rootless.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` names; an unknown one is answered with the nearest."""
        name = args[0]
        known = [*self.entries, *self.commands, *self.aliases]
        if not ctx.resilient_parsing and name not in known:
            raise click.UsageError(f"no such command '{name}'{nearest(name, known)}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without a command: the help, as docker."""
        if not args and not ctx.resilient_parsing:
            output.raw(ctx.get_help() + "\n")
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, in sections; nothing is imported for it."""
        shown: set[str] = set()
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, self._line_of_help(name)) for name in names])
            shown.update(names)
        with formatter.section("Commands"):
            rest = [name for name in self.list_commands(ctx) if name not in shown]
            formatter.write_dl([(name, self._line_of_help(name)) for name in rest])

    def _line_of_help(self, name: str) -> str:
        """The line of the command or group `name` in the list of commands."""
        return self.entries[name][1] if name in self.entries else (self.commands[name].help or "").rstrip(".")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Names of commands with their lines (nothing is imported), and our own options."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=self._line_of_help(name))
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def nearest(name: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" for the known name that is most like `name`; empty when none is."""
    import difflib

    close = difflib.get_close_matches(name, list(known), 2)
    return f", did you mean {' or '.join(repr(one) for one in close)}?" if close else ""


def command(
    name: str,
    short_help: str,
    *,
    description: str = "",
    examples: str = "",
    own_error: int | None = None,
    command_first: bool = False,
    short_help_flag: bool = True,
    places: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command.

    examples: lines of shell, shown below the options. command_first: everything after the first argument belongs to
    the container (`run IMAGE -x`). short_help_flag: -h is help; run and create have it for the host name. places: the
    words that call it, one text per way ("image ls", "images"); none: see `usual_places`. `scripts/man` writes the
    tree of commands and the man pages; nothing else has to know the command.
    """
    settings: dict[str, Any] = {"help_option_names": ["-h", "--help"] if short_help_flag else ["--help"]}
    if command_first:
        settings["allow_interspersed_args"] = False

    def declare(function: Callable[..., Any]) -> Command:
        declared: Command = click.command(
            name,
            cls=Command,
            help=f"{short_help}.\n\n{description}".rstrip(),
            short_help=short_help,
            epilog=f"\b\nExamples:\n{_indented(examples)}" if examples else None,
            context_settings=settings,
            own_error=own_error,
            places=places or usual_places(name, function.__module__),
        )(function)
        return declared

    return declare


def usual_places(name: str, module: str) -> tuple[str, ...]:
    """Where a command of `module` is called that does not say it: below the noun that its folder or file begins with.

    Those of containers are verbs of the top level too, as docker has them.
    """
    noun = module.removeprefix("rootless.cli.").partition(".")[0].partition("_")[0]
    return (f"{noun} {name}", name) if noun == "container" else (f"{noun} {name}",)


def _indented(lines: str) -> str:
    return "\n".join(f"  {line}" for line in lines.strip().splitlines())


def switch(*names: str, help: str, default: bool = False) -> Callable[[Declared], Declared]:
    """An option that is on or off: `--rm`, `--rm=false`."""
    return click.option(*names, cls=Option, is_flag=True, flag_value=True, default=default, help=help)


def text(*names: str, help: str, metavar: str | None = "TEXT", **settings: Any) -> Callable[[Declared], Declared]:
    """Declare an option that takes a value: `--name web`, `--name=web`."""
    return click.option(*names, cls=Option, metavar=metavar, help=help, **settings)


def many(*names: str, help: str, metavar: str | None = "TEXT", **settings: Any) -> Callable[[Declared], Declared]:
    """An option that may be given several times."""
    return click.option(*names, cls=Option, metavar=metavar, multiple=True, help=help, **settings)


def parse_filters(texts: Iterable[str]) -> dict[str, list[str]]:
    """{"status": ["exited"], "label": ["a=b", "c"]}; a key given twice matches either value (docker: labels both).

    `key!=value` becomes the key "key!", as docker's prune takes it. Raises UsageError for text without a key.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().lower()
        if not equals or not key or key == "!":
            raise UsageError(f"invalid filter '{text}'", hint="a filter is KEY=VALUE, such as status=exited")
        found.setdefault(key, []).append(value.strip())
    return found


def each(names: Iterable[str], action: Callable[[str], str | None]) -> int:
    """Do `action` to each name and print what it returns; one that fails does not stop the others: docker's way.

    Returns the exit code: 1 when one failed.
    """
    code = 0
    for name in names:
        try:
            printed = action(name)
        except RootlessError as e:
            output.error(str(e))
            code = 1
        else:
            if printed is not None:
                output.line(printed)
    return code
