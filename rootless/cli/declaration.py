"""How every command is declared: the click classes, and the session that they share. No command lives here.

Two habits of docker's flags that click lacks are added: `--flag=false` and `-f=false` for switches, and `-p=80:80`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import click

from rootless import output
from rootless.errors import NotFound, RootlessError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    from click.parser import _OptionParser, _ParsingState
    from click.shell_completion import CompletionItem

    from rootless.cli.completion import Names
    from rootless.cli.progress import PullProgress
    from rootless.engine.container.endings import Ended
    from rootless.engine.context import Engine
    from rootless.engine.image_types import PullEvent

    class OptionSettings(TypedDict, total=False):
        """What our options pass on to click's, under click's names."""

        type: click.ParamType[object] | type[int]
        default: str | int | bool | None
        show_default: bool
        multiple: bool
        is_flag: bool
        flag_value: bool
        is_eager: bool
        expose_value: bool
        callback: Callable[[click.Context, click.Parameter, bool], None]
        shell_complete: Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

    class GroupSettings(TypedDict, total=False):
        """What our groups pass on to click's, under click's names."""

        callback: Callable[..., object]
        params: list[click.Parameter]
        help: str
        epilog: str


Declared = TypeVar("Declared", bound=Callable[..., object])
Completer = Callable[[click.Context, click.Parameter, str], list[str]]
_TRUE = {"1", "t", "true"}
_FALSE = {"0", "f", "false"}


class Session:
    """What the global flags say, and the engine, which is made when a command first asks for it."""

    def __init__(self, monitor: int | None = None) -> None:
        self.root: str | None = None
        self.debug = False
        self.storage_driver: str | None = None
        self.error_code: int | None = None  # the exit code of all errors of the command (see CommandRules)
        self.quiet = False  # True shows no progress
        self.warns = True
        self._monitor = monitor  # the connection to a monitor that the console script has started
        self._engine: Engine | None = None
        self._progress: PullProgress | None = None

    @property
    def engine(self) -> Engine:
        """The engine over the caller's directories, made at the first use: `--help` needs none."""
        if self._engine is None:
            from rootless.engine.context import Engine, Listeners
            from rootless.paths import user_directories

            overrides = {"storage_driver": self.storage_driver} if self.storage_driver else {}
            self._engine = Engine(
                user_directories(self.root),
                overrides=overrides,
                listeners=Listeners(
                    output.warn if self.warns else _say_nothing,
                    self._show_progress,
                    output.debug if self.debug else None,
                ),
                monitor=self._monitor,
            )
        return self._engine

    def _show_progress(self, event: PullEvent) -> None:
        """Show a step of the pull that `run` or `create` does first, on stderr: stdout is for the container."""
        if self.quiet:
            return
        if self._progress is None:
            from rootless.cli.progress import PullProgress

            self._progress = PullProgress(sys.stderr)
        self._progress.event(event)

    def end_progress(self) -> None:
        """End the display of a pull's progress, so that the command can write to the terminal."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None


def _say_nothing(text: str) -> None:
    """What warnings go to with --log-level error."""


pass_session = click.make_pass_decorator(Session, ensure=True)


class Option(click.Option):
    """An option whose help is one line, so that click need not load `inspect` for each start to trim it."""

    def __init__(
        self, names: Sequence[str], *, help: str, metavar: str | None = None, **settings: Unpack[OptionSettings]
    ) -> None:
        super().__init__(names, metavar=metavar, **settings)
        self.help = help


class _Helped(click.Command):
    """A command whose --help is an `Option` too, which does without `inspect`."""

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


class CommandRules(NamedTuple):
    """How a command differs from the others in its errors and its words.

    own_error: the exit code of every failure that is ours and not the container's command's (docker's 125).
    command_first: everything after the first argument belongs to the container (`run IMAGE -x`). short_help_flag: -h
    is help; `run` and `create` have it for the host name. absent: options that the same command of docker or podman
    has, and what to do instead. grouped: the help lists the flags in groups (cli.option_groups).
    """

    own_error: int | None = None
    command_first: bool = False
    short_help_flag: bool = True
    absent: Mapping[str, str] = {}
    grouped: bool = False


class Command(_Helped):
    """A command with docker's habits of flags.

    rules: those that were given to `command`. places: the words that call the command, one text per way ("image ls",
    "images"), of which `scripts/man` writes the tree of commands.
    """

    rules = CommandRules()
    places: tuple[str, ...] = ()

    def make_parser(self, ctx: click.Context) -> _OptionParser:
        """click's parser, which also takes `--switch=false`, `-t=false` and `-p=80:80`.

        click has no public way to say either, so two methods of its parser that it calls private are replaced in this
        one parser. The bound of click in pyproject.toml is there for this; a test names what must exist.
        """
        parser = super().make_parser(ctx)
        match_long, match_short = parser._match_long_opt, parser._match_short_opt

        def long(opt: str, explicit_value: str | None, state: _ParsingState) -> None:
            option = parser._long_opt.get(opt) or parser._short_opt.get(opt)
            if option is None or option.dest is None or explicit_value is None or option.takes_value:
                match_long(opt, explicit_value, state)
                return
            if explicit_value.lower() not in _TRUE | _FALSE:
                raise click.BadOptionUsage(
                    opt, f"invalid value '{explicit_value}' for switch '{opt}': true or false", ctx
                )
            state.opts[option.dest] = explicit_value.lower() in _TRUE
            state.order.append(option.obj)

        def short(arg: str, state: _ParsingState) -> None:
            option = parser._short_opt.get(arg[:2])
            if option is not None and arg[2:3] == "=":
                if not option.takes_value:
                    long(arg[:2], arg[3:], state)
                    return
                arg = arg[:2] + arg[3:]
            match_short(arg, state)

        parser._match_long_opt = long  # type: ignore[method-assign]
        parser._match_short_opt = short  # type: ignore[method-assign]
        return parser

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of flags, in groups where the command's rules ask for them."""
        for title, options in self.groups_of_options(ctx):
            with formatter.section(title):
                formatter.write_dl([line for line in (each.get_help_record(ctx) for each in options) if line])

    def groups_of_options(self, ctx: click.Context) -> list[tuple[str, list[click.Option]]]:
        """(title, flags) of each group in which the flags that are not hidden are shown."""
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option) and not each.hidden]
        if not self.rules.grouped:
            return [("Options", options)]
        from rootless.cli.option_groups import grouped

        return [(title, [options[i] for i in here]) for title, here in grouped([str(each.name) for each in options])]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, below the flags."""
        self.load_examples()
        super().format_epilog(ctx, formatter)

    def load_examples(self) -> None:
        """Fill `epilog` with the command's examples, where it has not declared any itself."""
        if self.epilog is None and self.places:
            from rootless.cli.examples import EXAMPLES

            self.epilog = _examples_text(EXAMPLES.get(self.places[0], "")) or None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words after the command's name. Errors get the command's context, so that they can name its help.

        click leaves the context out where an option lacks its value.
        """
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as e:
            e.ctx = e.ctx or ctx
            raise

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. Its exit code for errors of its own is noted first, for `main` must know it in any case."""
        session = ctx.find_object(Session)
        if session is not None:
            session.error_code = self.rules.own_error
        try:
            return super().invoke(ctx)
        finally:
            if session is not None:
                session.end_progress()


class LazyGroup(_Helped, click.Group):
    """A group whose commands are imported when they are used; their lines in its help come from the tree.

    entries: {name: (place, line of help)}, one group of command_tree.COMMANDS. aliases: {further name: name}. sections:
    {title: names} of the list of commands. absent: {name: what to do instead} of commands that docker or podman has. A
    group within the group is added by click's add_command.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        entries: Mapping[str, tuple[str, str]],
        aliases: Mapping[str, str] | None = None,
        sections: Mapping[str, Iterable[str]] | None = None,
        absent: Mapping[str, str] | None = None,
        **settings: Unpack[GroupSettings],
    ) -> None:
        super().__init__(
            name, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False, **settings
        )
        self.entries = entries
        self.aliases = dict(aliases or {})
        self.sections = sections or {}
        self.absent = absent or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands in alphabetical order, without aliases."""
        return sorted([*self.entries, *self.commands])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of the command `cmd_name` and return the command; None for an unknown name."""
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
        """The command that `args` names. Raises an error for an unknown one, which names the nearest known names."""
        name = args[0]
        known = [*self.entries, *self.commands, *self.aliases]
        if not ctx.resilient_parsing and name not in known:
            if name in self.absent:
                raise UsageError(f"no such command '{name}'", hint=self.absent[name])
            raise click.UsageError(f"no such command '{name}'{suggest_nearest(name, known)}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Print the help when no command is named, as docker does."""
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

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands with their lines (nothing is imported), and our own options."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=self._line_of_help(name))
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def complete_names(kind: Names) -> Completer:
    """What finds names of this kind for the shell. Its module is loaded when a shell asks, not with every command."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        from rootless.cli import completion

        session = Session()
        given = ctx.find_root().params
        session.root, session.storage_driver = given.get("root"), given.get("storage_driver")
        taken = ctx.params.get(parameter.name or "") or ()
        found = completion.find_names(lambda: session.engine, kind)
        return [name for name in found if name.startswith(incomplete) and name not in taken]

    return complete


def suggest_nearest(name: str, known: Iterable[str]) -> str:
    """The text ", did you mean 'x'?" for the known name that is most like `name`; empty when none is."""
    import difflib

    close = difflib.get_close_matches(name, list(known), 2)
    return f", did you mean {' or '.join(repr(one) for one in close)}?" if close else ""


def command(
    calls: str | tuple[str, ...],
    short_help: str,
    *,
    description: str = "",
    examples: str = "",
    rules: CommandRules | None = None,
) -> Callable[[Callable[..., object]], Command]:
    """Declare a command.

    calls: the command's name, which is then called as `usual_places` says; or the words that call it, one text per way
    ("image ls", "images"), the first of which ends with its name. examples: lines of shell, shown below the options;
    those of commands that declare none are in cli.examples.
    `scripts/man` writes the tree of commands and the man pages from the declaration: nothing else has to know it.
    """
    declared_rules = rules or CommandRules()
    name = calls if isinstance(calls, str) else calls[0].rpartition(" ")[2]

    def declare(function: Callable[..., object]) -> Command:
        declared = click.command(
            name,
            cls=Command,
            help=f"{short_help}.\n\n{description}".rstrip(),
            short_help=short_help,
            epilog=_examples_text(examples) or None,
            context_settings={
                "help_option_names": ["-h", "--help"] if declared_rules.short_help_flag else ["--help"],
                "allow_interspersed_args": not declared_rules.command_first,
            },
        )(function)
        declared.rules = declared_rules
        declared.places = usual_places(name, function.__module__) if isinstance(calls, str) else calls
        return declared

    return declare


def usual_places(name: str, module: str) -> tuple[str, ...]:
    """The words that call a command of `module` whose declaration gives its name alone.

    It is called below the noun that its folder or file begins with: "volume ls" of volume.py. Those of containers are
    verbs of the top level too, as docker has them.
    """
    noun = module.removeprefix("rootless.cli.").partition(".")[0].partition("_")[0]
    return (f"{noun} {name}", name) if noun == "container" else (f"{noun} {name}",)


def _examples_text(lines: str) -> str:
    """The section of examples, with the mark that keeps click from filling its lines; "" for no lines."""
    shown = "\n".join(f"  {line}" for line in lines.strip().splitlines())
    return f"\b\nExamples:\n{shown}" if shown else ""


def switch_option(*names: str, help: str, default: bool = False) -> Callable[[Declared], Declared]:
    """Declare an option that is on or off: `--rm`, `--rm=false`."""
    return click.option(*names, cls=Option, is_flag=True, flag_value=True, default=default, help=help)


def value_option(
    *names: str, help: str, metavar: str | None = "TEXT", **settings: Unpack[OptionSettings]
) -> Callable[[Declared], Declared]:
    """Declare an option that takes a value: `--name web`, `--name=web`."""
    return click.option(*names, cls=Option, metavar=metavar, help=help, **settings)


def repeated_option(
    *names: str, help: str, metavar: str | None = "TEXT", **settings: Unpack[OptionSettings]
) -> Callable[[Declared], Declared]:
    """Declare an option that may be given several times."""
    return click.option(*names, cls=Option, metavar=metavar, multiple=True, help=help, **settings)


def parse_filters(texts: Iterable[str]) -> dict[str, list[str]]:
    """The values of each key of --filter: {"status": ["exited"], "label": ["a=b", "c"]}.

    What a list of values means is the engine's: either may match, but docker wants all labels. `key!=value` becomes the
    key "key!", as docker's prune takes it. Raises UsageError for text without a key.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().lower()
        if not equals or not key or key == "!":
            raise UsageError(f"invalid filter '{text}'", hint="a filter is KEY=VALUE, such as status=exited")
        found.setdefault(key, []).append(value.strip())
    return found


def do_for_each(names: Iterable[str], action: Callable[[str], str | None]) -> int:
    """Do `action` to each name and print what it returns; one that fails does not stop the others, as with docker.

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


def print_in_order(names: Sequence[str], ended: Iterable[Ended], *, may_be_missing: bool = False) -> int:
    """Print the name of each that has ended, or its error, in the order of `names`, whatever the order of the ends.

    may_be_missing: the error of an unknown container is printed and is no failure. Returns the exit code: 1 when one
    failed.
    """
    code = 0
    known: dict[int, RootlessError | None] = {}
    printed = 0
    for position, error in ended:
        known[position] = error
        while printed in known:
            failure = known.pop(printed)
            if failure is None:
                output.line(names[printed])
            else:
                output.error(str(failure))
                code = code if may_be_missing and isinstance(failure, NotFound) else 1
            printed += 1
    return code
