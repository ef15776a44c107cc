"""The command line of rootless-oci: declarations, logging, exit codes. The verbs live beside it.

Flags are runc's, so that podman, containerd and Slurm can call it.
"""

from __future__ import annotations

import os
import sys
import time

import click

from rootless.errors import CommandNotExecutable, CommandNotFound, RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rootless.runtime.oci.lifecycle import CreateOptions
    from rootless.runtime.state import Records


class Session:
    """The global flags: where records live, where messages go."""

    def __init__(self) -> None:
        self.root = default_root()
        self.log: str | None = None
        self.log_format = "text"
        self.debug = False

    @property
    def records(self) -> Records:
        """The containers below `--root`."""
        from rootless.runtime.state import Records

        return Records(self.root)

    def warn(self, text: str) -> None:
        """One line of warning."""
        self.write("warning", text)

    def write(self, level: str, text: str) -> None:
        """A message to the log of `--log`, and to stderr unless it goes to a log and is no error."""
        from rootless.output import escape

        if self.log:
            if self.log_format == "json":
                import json

                stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                line = json.dumps({"level": level, "msg": text, "time": stamp})
            else:
                line = f"{level}: {escape(text)}"
            try:
                with open(self.log, "a", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(line + "\n")
            except OSError:
                pass  # the message still goes to stderr
        if level == "error" or not self.log:
            click.echo(f"rootless-oci: {escape(text)}" if level == "error" else f"{level}: {escape(text)}", err=True)


def default_root() -> str:
    """Where records live without `--root`: gone at reboot, like the containers."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return f"{runtime}/rootless-oci" if runtime else f"/tmp/rootless-oci-{os.geteuid()}"  # noqa: S108 - checked on use


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from rootless import __version__
        from rootless.runtime.spec import VERSION

        click.echo(f"rootless-oci version {__version__}\nspec: {VERSION}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--root", metavar="DIR", help="Directory of the containers' records (default: below XDG_RUNTIME_DIR).")
@click.option("--log", metavar="FILE", help="Append messages to FILE.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Format of the log file.")
@click.option("--log-level", metavar="LEVEL", help="As --debug when LEVEL is debug.")
@click.option("--debug", is_flag=True, help="Show the plan of operations.")
@click.option(
    "--systemd-cgroup",
    is_flag=True,
    help="Read linux.cgroupsPath as SLICE:PREFIX:NAME. No cgroup is made; a warning names limits without effect.",
)
@click.option("--cgroup-manager", metavar="NAME", help="As --systemd-cgroup when NAME is systemd (crun's flag).")
@click.option("--rootless", metavar="BOOL", help="Accepted as runc does: this runtime always is.")
@click.option("-v", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version)
@click.pass_context
def cli(
    context: click.Context,
    root: str | None,
    log: str | None,
    log_format: str,
    log_level: str | None,
    debug: bool,
    systemd_cgroup: bool,
    cgroup_manager: str | None,
    rootless: str | None,
) -> None:
    """An OCI runtime for ordinary users."""
    if systemd_cgroup and cgroup_manager not in (None, "systemd"):
        raise click.UsageError("--systemd-cgroup and --cgroup-manager contradict each other")
    if rootless not in (None, "true", "auto"):
        raise click.UsageError("--rootless can only be true or auto")
    session: Session = context.obj
    session.root = os.path.abspath(root or session.root)
    session.log = log
    session.log_format = log_format
    session.debug = debug or log_level == "debug"


def _create_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in reversed(
        (
            click.option("-b", "--bundle", default=".", metavar="DIR", help="Directory with config.json (default: .)."),
            click.option("--pid-file", metavar="FILE", help="Write the first process's pid to FILE."),
            click.option("--console-socket", metavar="PATH", help="Send the pty's master to this unix socket."),
            click.option("--preserve-fds", type=click.IntRange(0, 1024), default=0, help="Pass on N fds from 3 on."),
            click.option("--no-pivot", is_flag=True, help="Move the root in place of pivot_root (in an initramfs)."),
            click.option("--no-new-keyring", is_flag=True, help="Keep the caller's session keyring."),
        )
    ):
        function = decorate(function)
    return function


def _options(session: Session, flags: dict[str, Any]) -> CreateOptions:
    from rootless.runtime.oci.lifecycle import CreateOptions

    options = CreateOptions(
        flags["bundle"],
        pid_file=flags["pid_file"],
        console_socket=flags["console_socket"],
        preserve_fds=flags["preserve_fds"] + _listen_fds(),
        keyring=not flags["no_new_keyring"],
        pivot=not flags["no_pivot"],
    )
    if session.debug:
        _show_plan(session, options.bundle)
    return options


def _listen_fds() -> int:
    """Sockets that systemd passed us (sd_listen_fds(3)) are the container's."""
    count = os.environ.get("LISTEN_FDS", "0")
    return int(count) if os.environ.get("LISTEN_PID") == str(os.getpid()) and count.isdigit() else 0


def _show_plan(session: Session, bundle: str) -> None:
    from rootless.runtime import plan, spec

    facts = plan.Facts(bundle, lambda gid: True)
    for line in plan.describe(plan.operations(spec.load_config(bundle), facts)):
        session.write("debug", line)


@cli.command()
@_create_options
@click.argument("container_id", metavar="ID")
@click.pass_obj
def create(session: Session, /, container_id: str, **flags: Any) -> None:
    """Make a container; its command waits for `start`."""
    from rootless.runtime.oci import lifecycle

    lifecycle.create(session.records, container_id, _options(session, flags), session.warn)


@cli.command()
@click.argument("container_id", metavar="ID")
@click.pass_obj
def start(session: Session, container_id: str) -> None:
    """Start the command of a created container."""
    from rootless.runtime.oci import lifecycle

    lifecycle.start(session.records, container_id, session.warn)


@cli.command()
@_create_options
@click.option("-d", "--detach", is_flag=True, help="Return when the command runs.")
@click.option("--keep", is_flag=True, help="Do not delete the container when it has ended.")
@click.option("--no-subreaper", is_flag=True, help="Accepted as runc does; orphans go to the container's own pid 1.")
@click.argument("container_id", metavar="ID")
@click.pass_obj
def run(session: Session, /, container_id: str, detach: bool, keep: bool, no_subreaper: bool, **flags: Any) -> int:
    """Make and start a container, and wait for its end."""
    from rootless.runtime.oci import lifecycle

    return lifecycle.run(
        session.records, container_id, _options(session, flags), session.warn, detach=detach, keep=keep
    )


@cli.command()
@click.argument("container_id", metavar="ID")
@click.pass_obj
def state(session: Session, container_id: str) -> None:
    """Print the state of a container as JSON."""
    _print_json(session.records.get(container_id).oci_state())


@cli.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Signal all processes of the container.")
@click.argument("container_id", metavar="ID")
@click.argument("signal", default="TERM")
@click.pass_obj
def kill(session: Session, container_id: str, signal: str, everything: bool) -> None:
    """Send a signal (default TERM) to the container's first process."""
    from rootless.runtime.oci import lifecycle

    lifecycle.kill(session.records, container_id, signal, everything=everything)


@cli.command()
@click.option("-f", "--force", is_flag=True, help="Kill it first if it runs; no error if there is none.")
@click.argument("container_id", metavar="ID")
@click.pass_obj
def delete(session: Session, container_id: str, force: bool) -> None:
    """Remove a stopped container."""
    from rootless.errors import NotFound
    from rootless.runtime.oci import lifecycle

    try:
        lifecycle.delete(session.records, container_id, session.warn, force=force)
    except NotFound:
        if not force:
            raise


@cli.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set an environment variable.")
@click.option("-t", "--tty", is_flag=True, help="Give the process a pty.")
@click.option("-d", "--detach", is_flag=True, help="Return when the command runs.")
@click.option("--cwd", metavar="DIR", help="Working directory.")
@click.option("-u", "--user", metavar="UID[:GID]", help="User and group, as numbers.")
@click.option("-g", "--additional-gids", type=click.IntRange(0, 0xFFFFFFFE), multiple=True, help="A further group.")
@click.option("-c", "--cap", multiple=True, metavar="NAME", help="Add a capability.")
@click.option("--no-new-privs", is_flag=True, help="Set no_new_privs.")
@click.option("--apparmor", metavar="PROFILE", help="AppArmor profile.")
@click.option("--process-label", metavar="LABEL", help="SELinux label.")
@click.option("-p", "--process", metavar="FILE", help="File with an OCI process object, in place of a command.")
@click.option("--pid-file", metavar="FILE", help="Write the pid to FILE.")
@click.option("--console-socket", metavar="PATH", help="Send the pty's master to this unix socket.")
@click.option("--preserve-fds", type=click.IntRange(0, 1024), default=0, help="Pass on N fds from 3 on.")
@click.argument("container_id", metavar="ID")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def execute(session: Session, /, container_id: str, command: tuple[str, ...], **flags: Any) -> int:
    """Run a further process in a running container."""
    from rootless.runtime.oci.execute import ExecOptions
    from rootless.runtime.oci.execute import execute as run_process

    options = ExecOptions()
    options.additional_gids = flags["additional_gids"]
    options.apparmor = flags["apparmor"]
    options.capabilities = flags["cap"]
    options.console_socket = flags["console_socket"]
    options.cwd = flags["cwd"]
    options.detach = flags["detach"]
    options.environment = flags["env"]
    options.no_new_privileges = flags["no_new_privs"]
    options.pid_file = flags["pid_file"]
    options.preserve_fds = flags["preserve_fds"]
    options.process_file = flags["process"]
    options.process_label = flags["process_label"]
    options.tty = flags["tty"]
    options.user = flags["user"]
    return run_process(session.records, container_id, list(command), options, session.warn)


@cli.command("list")
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.pass_obj
def list_containers(session: Session, form: str, quiet: bool) -> None:
    """List the containers below --root."""
    from rootless.runtime.oci import report

    found = report.rows(session.records)
    if quiet:
        for row in found:
            click.echo(row["id"])
    elif form == "json":
        _print_json(found)
    else:
        click.echo(report.table(found))


@cli.command()
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
@click.argument("container_id", metavar="ID")
@click.pass_obj
def ps(session: Session, container_id: str, form: str) -> None:
    """List the processes of a container."""
    from rootless.runtime.oci import report

    pids = report.process_ids(session.records.get(container_id))
    if form == "json":
        _print_json(pids)
    else:
        click.echo(report.process_table(pids))


@cli.command()
def features() -> None:
    """Print what this runtime can do, as JSON."""
    from rootless.runtime.oci import report

    _print_json(report.features())


@cli.command("spec")
@click.option("-b", "--bundle", default=".", metavar="DIR", help="Where to write config.json.")
@click.option("--rootless", is_flag=True, help="Accepted as runc does: the configuration always is.")
def write_spec(bundle: str, rootless: bool) -> None:
    """Write a configuration to start from."""
    import json

    from rootless.errors import AlreadyExists, UsageError
    from rootless.runtime.oci.template import default_config

    path = os.path.join(bundle, "config.json")
    content = json.dumps(default_config(os.geteuid(), os.getegid()), indent=4) + "\n"
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        raise AlreadyExists(f"'{path}' exists", hint="remove it first") from None
    except OSError as e:
        raise UsageError(f"cannot write '{path}': {e.strerror}") from e


def _print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=2))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status: the container's, 126 or 127 for its command, else 1."""
    session = Session()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with cli.make_context("rootless-oci", words, obj=session) as context:
            result = cli.invoke(context)
            return result if isinstance(result, int) else 0
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        e.show()
        return 1
    except RootlessError as e:
        session.write("error", str(e))
        return e.exit_code if isinstance(e, CommandNotFound | CommandNotExecutable) else 1
    except KeyboardInterrupt:
        return 130
    except Exception as e:
        if session.debug:
            import traceback

            traceback.print_exc()
        session.write("error", f"{type(e).__name__}: {e}")
        return 1
