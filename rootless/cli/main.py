"""The command `rootless`: global flags, the tree of commands, and the one place where an error becomes an exit code."""

from __future__ import annotations

import errno
import os
import sys

import click

from rootless import output
from rootless.cli.command_tree import COMMANDS
from rootless.cli.declaration import Command, LazyGroup, Option, Session, pass_session, suggest_nearest
from rootless.errors import RootlessError, UsageError
from rootless.storage.drivers import list_choices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_PROGRAM = "rootless"
_NOUNS = {
    "builder": "Manage builds",
    "cdi": "Show the devices that CDI specifications describe",
    "container": "Manage containers",
    "image": "Manage images",
    "manifest": "Manage lists of images for several platforms",
    "network": "Manage networks",
    "system": "Manage the whole",
    "volume": "Manage volumes",
}
# These further names of commands, which docker has, are not shown in the lists
_ALIASES = {
    "": {"buildx": "builder", "list": "ps", "ls": "ps"},
    "cdi": {"ls": "list"},
    "container": {"list": "ls", "ps": "ls", "remove": "rm"},
    "image": {"list": "ls", "remove": "rm", "unmount": "mount", "umount": "mount"},
    "network": {"list": "ls", "remove": "rm"},
    "volume": {"list": "ls", "remove": "rm"},
}
# The list of `rootless --help` is long: what a newcomer needs comes first
_SECTIONS = {
    "Common commands": ("run", "exec", "ps", "build", "pull", "images", "logs", "stop", "rm", "doctor"),
    "Management commands": tuple(_NOUNS),
}
_NO_SWARM = "rootless runs on one host, as a node without a swarm"
_NO_PODS = "'run --network container:NAME --ipc container:NAME' shares the namespaces of another container"
# Here are commands and options that docker or podman has, and what to do here instead
_ABSENT_COMMANDS = {
    "compose": "compose needs docker's API, which rootless does not serve",
    "context": "there is one engine, your own: nothing to choose",
    "kube": _NO_PODS,
    "machine": "containers run on this host, without a virtual machine",
    "node": _NO_SWARM,
    "pod": _NO_PODS,
    "service": _NO_SWARM,
    "stack": _NO_SWARM,
    "swarm": _NO_SWARM,
}
_ABSENT_NETWORK_COMMANDS = {
    "reload": "each network is made when its first container starts",
    "update": "remove the network, and make it again with the other options",
}
_LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic")
_ABSENT_OPTIONS = {
    "--link": "containers on a network with a name find each other by name: network create NET, run --network NET",
    "--pod": _NO_PODS,
    "--rootfs": "make an image of the directory: tar -C DIR -c . | rootless import - NAME",
}
_NO_DAEMON = "there is no daemon to talk to: the command itself does the work, on this host"
_ABSENT_GLOBAL_OPTIONS = {
    "-H": _NO_DAEMON,
    "--host": _NO_DAEMON,
    "--remote": _NO_DAEMON,
    "--url": _NO_DAEMON,
    "--connection": _NO_DAEMON,
    "--tls": _NO_DAEMON,
    "--tlsverify": _NO_DAEMON,
    "--config": "the file with credentials is named by --authfile, or by REGISTRY_AUTH_FILE in the environment",
}
_HINTS = {
    errno.ENOSPC: "free some space: 'rootless system prune' removes what is not used",
    errno.EDQUOT: "your disk quota is used up: 'rootless system prune' removes what is not used",
    errno.EROFS: "set ROOTLESS_ROOT to a directory that you can write",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "the host is out of open files",
    errno.ENOMEM: "the host is out of memory",
}


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from rootless import __version__

        output.line(f"{_PROGRAM} version {__version__}")
        ctx.exit()


def _directory(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a directory. click.Path does that too, but loads translations of errors at each start."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


@click.group(
    _PROGRAM,
    cls=LazyGroup,
    entries=COMMANDS[""],
    aliases=_ALIASES[""],
    sections=_SECTIONS,
    absent=_ABSENT_COMMANDS,
    help="OCI containers for people who have no root: no daemon, nothing setuid.",
    epilog="See 'rootless COMMAND --help' for a command, and 'rootless doctor' for what this host can do.",
)
@click.option(
    "--root",
    cls=Option,
    metavar="DIR",
    shell_complete=_directory,
    help="Keep everything below DIR [env: ROOTLESS_ROOT]",
)
@click.option(
    "--storage-driver",
    cls=Option,
    metavar="NAME",
    help=f"{list_choices()} [env: ROOTLESS_STORAGE_DRIVER]",
)
@click.option(
    "-D",
    "--debug",
    cls=Option,
    is_flag=True,
    help="Show the plan of a container, and where an error came from [env: ROOTLESS_DEBUG]",
)
@click.option(
    "-v",
    "--version",
    cls=Option,
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit",
)
@click.option(
    "-l",
    "--log-level",
    cls=Option,
    metavar="LEVEL",
    help="trace and debug are --debug; info and warn change nothing (the default); error, fatal, panic: no warnings",
)
@click.option("-c", "--context", cls=Option, metavar="NAME", help="default: there is one engine, your own")
@pass_session
def cli(
    session: Session,
    root: str | None,
    storage_driver: str | None,
    debug: bool,
    log_level: str | None,
    context: str | None,
) -> None:
    """Note the global flags; a subcommand does the work."""
    session.root, session.storage_driver = root, storage_driver
    level = (log_level or "warn").lower()
    if level not in _LEVELS:
        raise UsageError(f"invalid --log-level '{log_level}'", hint=f"use one of: {', '.join(_LEVELS)}")
    session.debug = debug or bool(os.environ.get("ROOTLESS_DEBUG")) or level in ("trace", "debug")
    session.warns = level not in ("error", "fatal", "panic")
    if context not in (None, "default"):
        raise UsageError(f"there is no context '{context}'", hint=_ABSENT_COMMANDS["context"])


for _noun, _line in _NOUNS.items():
    _absent = _ABSENT_NETWORK_COMMANDS if _noun == "network" else None
    cli.add_command(
        LazyGroup(_noun, entries=COMMANDS[_noun], aliases=_ALIASES.get(_noun), absent=_absent, help=f"{_line}.")
    )


def run(arguments: list[str], monitor: int | None = None) -> int:
    """Run a command line, print its errors, and return its exit code; nothing is raised.

    arguments: the words after the program's name. monitor: the connection to a monitor that was started already.
    """
    session = Session(monitor)
    stdout = sys.stdout
    try:
        code = cli.main(arguments, prog_name=_PROGRAM, obj=session, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except RootlessError as e:
        if session.debug:
            _print_traceback()
        output.error(str(e))
        if e.excerpt:
            output.raw(output.escape_block(e.excerpt), sys.stderr)
        return _exit_code(e, session)
    except click.ClickException as e:
        output.error(_usage_text(e))
        return 125
    except (click.Abort, KeyboardInterrupt) as e:
        # click makes the same Abort of an interrupt at a prompt (128 + SIGINT) and of the end of input there
        return 1 if isinstance(e, click.Abort) and isinstance(e.__cause__ or e.__context__, EOFError) else 130
    except SystemExit as e:
        # click exits by itself after completion, with a code of its own, and when nobody reads what it prints: then it
        # has put a wrapper in the place of sys.stdout
        if sys.stdout is stdout:
            return e.code if isinstance(e.code, int) else 0
        _give_up_stdout()
        return 141
    except BrokenPipeError:
        _give_up_stdout()
        return 141  # 128 + SIGPIPE, which ends other programs here; Python ignores the signal
    except OSError as e:
        if session.debug:
            _print_traceback()
        output.error(_os_error_text(e))
        return session.error_code or 1
    except Exception as e:
        if session.debug:
            _print_traceback()
        words = " ".join(str(e).split())
        hint = "this is a bug" if session.debug else "this is a bug; the same command with --debug shows where"
        output.error(f"unexpected error: {type(e).__name__}{': ' * bool(words)}{words} ({hint})")
        return session.error_code or 1


def _exit_code(error: RootlessError, session: Session) -> int:
    """The exit code of a command that ended with `error`, as docker's.

    Where a command passes on the exit code of what it runs (`session.error_code` is set), 125 means an error of ours,
    126 and 127 that there is nothing to execute. Other commands end with 1, and with 125 for wrong usage.
    """
    if session.error_code is not None:
        return error.exit_code if error.exit_code != 1 else session.error_code
    return error.exit_code if isinstance(error, UsageError) else 1


def _usage_text(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    if isinstance(error, click.NoSuchOption):
        command = context.command if context is not None else None
        absent = {
            **(_ABSENT_GLOBAL_OPTIONS if command is cli else {}),
            **_ABSENT_OPTIONS,
            **(command.rules.absent if isinstance(command, Command) else {}),
        }
        if error.option_name in absent:
            return f"no such option '{error.option_name}' ({absent[error.option_name]})"
    if isinstance(error, click.NoSuchOption) and context is not None:
        known = [name for one in context.command.get_params(context) for name in one.opts if name.startswith("-")]
        message = f"no such option '{error.option_name}'{suggest_nearest(error.option_name, known)}"
    message = message[:1].lower() + message[1:]
    return f"{message} (see '{context.command_path} --help')" if context else message


def _os_error_text(error: OSError) -> str:
    place = f"'{os.fsdecode(error.filename)}': " if isinstance(error.filename, str | bytes) else ""
    hint = _HINTS.get(error.errno or 0)
    return f"{place}{error.strerror or error}{f' ({hint})' if hint else ''}"


def _print_traceback() -> None:
    import traceback

    traceback.print_exc()


def _give_up_stdout() -> None:
    """Let stdout lead to /dev/null, as nobody reads it any more: the last flush would complain about that."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
