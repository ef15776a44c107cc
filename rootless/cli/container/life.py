"""`stop`, `restart`, `kill`, `pause`, `unpause`, `wait`, `rename`, `rm`, `prune`: a container's later life."""

from __future__ import annotations

import click

from rootless.cli.declaration import (
    Session,
    command,
    complete_names,
    do_for_each,
    pass_session,
    print_in_order,
    switch_option,
    value_option,
)
from rootless.cli.run_flags import confirm, force_option
from rootless.cli.run_flags import filter_option_prune as filter_option
from rootless.engine import verbs

_SIGNAL = value_option("-s", "--signal", metavar="SIGNAL", help="Signal to send (default: the container's stop signal)")
_TIMEOUT = click.option(
    "-t", "--timeout", "--time", metavar="SECONDS", type=int, help="Time to stop before it is killed; -1 waits for ever"
)
_RUNNING = click.argument(
    "containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_names("running_containers")
)
_ANY = click.argument(
    "containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_names("containers")
)


@command("stop", "Stop running containers")
@_SIGNAL
@_TIMEOUT
@_RUNNING
@pass_session
def stop(session: Session, signal: str | None, timeout: int | None, containers: tuple[str, ...]) -> int:
    """Ask all to end, and kill those that do not; each name is printed when it and those before it have ended."""
    return print_in_order(containers, verbs.stop_containers(session.engine, containers, timeout=timeout, signal=signal))


@command("restart", "Restart containers")
@_SIGNAL
@_TIMEOUT
@_ANY
@pass_session
def restart(session: Session, signal: str | None, timeout: int | None, containers: tuple[str, ...]) -> int:
    """Stop the containers that run, then start each; names are printed in their order."""
    return print_in_order(
        containers, verbs.restart_containers(session.engine, containers, timeout=timeout, signal=signal)
    )


@command("kill", "Kill running containers")
@value_option("-s", "--signal", metavar="SIGNAL", default="KILL", help="Signal to send (default KILL)")
@_RUNNING
@pass_session
def kill(session: Session, signal: str, containers: tuple[str, ...]) -> int:
    """Send a signal to the first process of each container."""
    return print_in_order(containers, verbs.kill_containers(session.engine, containers, signal=signal))


@command("pause", "Pause all processes within containers")
@_RUNNING
@pass_session
def pause(session: Session, containers: tuple[str, ...]) -> int:
    """Stop the processes of each container; its name is printed."""

    def pause_one(name: str) -> str:
        verbs.pause_container(session.engine, name)
        return name

    return do_for_each(containers, pause_one)


@command("unpause", "Unpause all processes within containers")
@click.argument(
    "containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_names("paused_containers")
)
@pass_session
def unpause(session: Session, containers: tuple[str, ...]) -> int:
    """Let the processes of each container go on; its name is printed."""

    def unpause_one(name: str) -> str:
        verbs.unpause_container(session.engine, name)
        return name

    return do_for_each(containers, unpause_one)


@command("wait", "Block until containers stop, then print their exit codes")
@click.option(
    "--condition",
    type=click.Choice(["not-running", "next-exit", "removed"]),
    default="not-running",
    show_default=True,
    help="What to wait for",
)
@_ANY
@pass_session
def wait(session: Session, condition: str, containers: tuple[str, ...]) -> int:
    """Wait for each container in turn, and print its exit code."""
    return do_for_each(
        containers, lambda name: str(verbs.wait_for_container(session.engine, name, condition=condition))
    )


@command("rename", "Rename a container")
@click.argument("container", shell_complete=complete_names("containers"))
@click.argument("name")
@pass_session
def rename(session: Session, container: str, name: str) -> None:
    """Give the container another name."""
    verbs.rename_container(session.engine, container, name)


@command("rm", "Remove containers")
@switch_option("-f", "--force", help="Kill a running container first; an unknown one is no error")
@switch_option("-v", "--volumes", help="Remove its anonymous volumes too")
@_ANY
@pass_session
def rm(session: Session, force: bool, volumes: bool, containers: tuple[str, ...]) -> int:
    """Remove each container; the names that were given are printed."""
    removed = verbs.remove_containers(session.engine, containers, force=force, volumes=volumes)
    return print_in_order(containers, removed, may_be_missing=force)


@command("prune", "Remove all stopped containers")
@force_option
@filter_option
@pass_session
def prune(session: Session, force: bool, filter: tuple[str, ...]) -> None:
    """Ask, then remove every stopped container, and print what was removed."""
    from rootless.cli.declaration import parse_filters
    from rootless.cli.table import print_pruned

    filters = parse_filters(filter)
    if confirm("This will remove all stopped containers.", force=force):
        print_pruned(verbs.prune_containers(session.engine, filters=filters))
