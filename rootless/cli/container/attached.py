"""`start`, `attach`, `exec` and `healthcheck`: a process in a container, and the caller's terminal on it."""

from __future__ import annotations

import click

from rootless import output
from rootless.cli.declaration import (
    CommandRules,
    Session,
    command,
    complete_names,
    do_for_each,
    pass_session,
    repeated_option,
    switch_option,
    value_option,
)
from rootless.cli.run_flags import end_of_following, names_or_all, terminal_options
from rootless.engine import verbs
from rootless.engine.types import AttachOptions, ExecOptions
from rootless.errors import UsageError
from rootless.host.interpreter import restart_by_loader

_EXEC_EXAMPLES = """
rootless exec -it web sh
rootless exec -u postgres -e PGDATABASE=shop db psql -c 'select 1'
"""


@command(
    "start",
    "Start stopped containers",
    rules=CommandRules(own_error=125),
)
@switch_option("-a", "--attach", help="Attach standard output and error, and pass signals on")
@switch_option("-i", "--interactive", help="Attach standard input")
@switch_option("--all", help="Start every container that does not run")
@switch_option("--after-boot", help="Start what --restart=always, unless-stopped or on-failure wants after a reboot")
@terminal_options
@click.argument("containers", nargs=-1, metavar="CONTAINER...", shell_complete=complete_names("stopped_containers"))
@pass_session
def start(
    session: Session,
    attach: bool,
    interactive: bool,
    all: bool,
    after_boot: bool,
    detach_keys: str | None,
    sig_proxy: bool,
    containers: tuple[str, ...],
) -> int:
    """Start each container, or start one and stay attached to it."""
    engine = session.engine

    def start_one(name: str) -> str:
        verbs.start_container(engine, name)
        return name

    if after_boot:
        if containers or attach or interactive or all:
            raise UsageError("conflicting options: --after-boot chooses the containers and attaches to none")
        containers = tuple(verbs.wanted_after_boot(engine))
        return do_for_each(containers, start_one)
    if all:
        if attach or interactive:
            raise UsageError("conflicting options: --all attaches to no container", hint="leave -a and -i out")
        containers = names_or_all(containers, all, "a container", lambda: _not_running(session))
        return do_for_each(containers, start_one)
    if not containers:
        raise UsageError("no container to start", hint="name one, or give --all or --after-boot")
    if attach or interactive:
        if len(containers) > 1:
            raise UsageError("cannot attach to several containers at once", hint="give one, or leave -a and -i out")
        how = AttachOptions(detach_keys=detach_keys, sig_proxy=sig_proxy, no_stdin=not interactive)
        return end_of_following(verbs.start_container(engine, containers[0], how, interactive=interactive).exit_code)
    if len(containers) == 1:
        output.line(start_one(containers[0]))  # an error of one container ends with its own exit code, such as 127
        return 0
    return do_for_each(containers, start_one)


def _not_running(session: Session) -> list[str]:
    """The ids of the containers that a start can start."""
    stopped = {"status": ["created", "exited"]}
    return [row.id for row in verbs.list_containers(session.engine, all=True, filters=stopped)]


@command("attach", "Attach the terminal's streams to a running container")
@switch_option("--no-stdin", help="Do not attach standard input")
@terminal_options
@click.argument("container", shell_complete=complete_names("running_containers"))
@pass_session
def attach(session: Session, no_stdin: bool, detach_keys: str | None, sig_proxy: bool, container: str) -> int:
    """Follow a running container until it ends or the detach keys come."""
    how = AttachOptions(detach_keys=detach_keys, sig_proxy=sig_proxy, no_stdin=no_stdin)
    return end_of_following(verbs.attach_container(session.engine, container, how).exit_code)


@command(
    "exec",
    "Execute a command in a running container",
    description="Everything after CONTAINER is the command. The exit code is the command's, or 125 to 127 as with run.",
    examples=_EXEC_EXAMPLES,
    rules=CommandRules(own_error=125, command_first=True),
)
@switch_option("-d", "--detach", help="Run the command in the background")
@value_option("--detach-keys", metavar="KEYS", help="Keys that detach (default ctrl-p,ctrl-q)")
@repeated_option("-e", "--env", metavar="NAME[=VALUE]", help="Set an environment variable; without a value: yours")
@repeated_option("--env-file", metavar="FILE", help="Read environment variables from FILE")
@switch_option("-i", "--interactive", help="Keep standard input open even if not attached")
@switch_option("--privileged", help="Give the command everything that your user namespace can give")
@switch_option("-t", "--tty", help="Give the command a terminal")
@value_option("-u", "--user", metavar="USER[:GROUP]", help="User name or id, and group")
@value_option("-w", "--workdir", metavar="DIR", help="Working directory inside the container")
@click.argument("container", shell_complete=complete_names("running_containers"))
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_session
def exec_(
    session: Session,
    container: str,
    command: tuple[str, ...],
    interactive: bool,
    tty: bool,
    detach: bool,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    workdir: str | None,
    user: str | None,
    privileged: bool,
    detach_keys: str | None,
) -> int:
    """Run one more command in a running container."""
    # This process forks the one that enters the container, which could reach the interpreter's file from there
    restart_by_loader()
    options = ExecOptions(command, interactive, tty, detach, env, env_file, workdir, user, privileged, detach_keys)
    exit_code = verbs.exec_in_container(session.engine, container, options).exit_code
    return 0 if detach else end_of_following(exit_code)


@command(
    ("container healthcheck",),
    "Run a container's health check once, now",
    description="The exit code is 0 for healthy and 1 for unhealthy.",
)
@click.argument("container", shell_complete=complete_names("running_containers"))
@pass_session
def healthcheck(session: Session, container: str) -> int:
    """Run the check now, and end with 0 for healthy or 1 for unhealthy."""
    restart_by_loader()  # as in `exec_`: the check enters the container
    return verbs.check_health(session.engine, container)
