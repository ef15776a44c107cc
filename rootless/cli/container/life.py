"""`stop`, `restart`, `kill`, `pause`, `wait`, `rename`, `rm`, `prune`, `exists`: a container's later life."""

from __future__ import annotations

from collections.abc import Callable

import click

from rootless.cli.declaration import (
    CommandRules,
    Session,
    command,
    complete_names,
    do_for_each,
    pass_session,
    print_in_order,
    switch_option,
    value_option,
)
from rootless.cli.run_flags import confirm, force_option, names_or_all
from rootless.cli.run_flags import filter_option_prune as filter_option
from rootless.engine import verbs
from rootless.errors import UsageError

_SIGNAL = value_option("-s", "--signal", metavar="SIGNAL", help="Signal to send (default: the container's stop signal)")
_TIMEOUT = click.option(
    "-t", "--timeout", "--time", metavar="SECONDS", type=int, help="Time to stop before it is killed; -1 waits for ever"
)
_RUNNING = click.argument(
    "containers", nargs=-1, metavar="CONTAINER...", shell_complete=complete_names("running_containers")
)
_ANY = click.argument("containers", nargs=-1, metavar="CONTAINER...", shell_complete=complete_names("containers"))
_NOUN = "a container"
_DOCKER_CONDITIONS = ("not-running", "next-exit", "removed")
_PODMAN_CONDITIONS = ("created", "exited", "healthy", "paused", "running", "stopped", "unhealthy")


def _ids(session: Session, *states: str) -> Callable[[], list[str]]:
    """What lists the ids of the containers in one of `states`, or of all containers where none is named."""

    def find() -> list[str]:
        filters = {"status": states} if states else None
        return [row.id for row in verbs.list_containers(session.engine, all=True, filters=filters)]

    return find


@command("stop", "Stop running containers")
@switch_option("-a", "--all", help="Stop every running container")
@_SIGNAL
@_TIMEOUT
@_RUNNING
@pass_session
def stop(session: Session, all: bool, signal: str | None, timeout: int | None, containers: tuple[str, ...]) -> int:
    """Ask all to end, and kill those that do not; each name is printed when it and those before it have ended."""
    containers = names_or_all(containers, all, _NOUN, _ids(session, "running", "paused", "restarting"))
    return print_in_order(containers, verbs.stop_containers(session.engine, containers, timeout=timeout, signal=signal))


@command("restart", "Restart containers")
@switch_option("-a", "--all", help="Restart every container, running or not")
@_SIGNAL
@_TIMEOUT
@_ANY
@pass_session
def restart(session: Session, all: bool, signal: str | None, timeout: int | None, containers: tuple[str, ...]) -> int:
    """Stop the containers that run, then start each; names are printed in their order."""
    containers = names_or_all(containers, all, _NOUN, _ids(session))
    return print_in_order(
        containers, verbs.restart_containers(session.engine, containers, timeout=timeout, signal=signal)
    )


@command("kill", "Kill running containers")
@switch_option("-a", "--all", help="Send it to every running container")
@value_option("-s", "--signal", metavar="SIGNAL", default="KILL", help="Signal to send (default KILL)")
@_RUNNING
@pass_session
def kill(session: Session, all: bool, signal: str, containers: tuple[str, ...]) -> int:
    """Send a signal to the first process of each container."""
    containers = names_or_all(containers, all, _NOUN, _ids(session, "running", "paused"))
    return print_in_order(containers, verbs.kill_containers(session.engine, containers, signal=signal))


@command("pause", "Pause all processes within containers")
@switch_option("-a", "--all", help="Pause every running container")
@_RUNNING
@pass_session
def pause(session: Session, all: bool, containers: tuple[str, ...]) -> int:
    """Stop the processes of each container; its name is printed."""
    containers = names_or_all(containers, all, _NOUN, _ids(session, "running"))

    def pause_one(name: str) -> str:
        verbs.pause_container(session.engine, name)
        return name

    return do_for_each(containers, pause_one)


@command("unpause", "Unpause all processes within containers")
@switch_option("-a", "--all", help="Let every paused container go on")
@click.argument("containers", nargs=-1, metavar="CONTAINER...", shell_complete=complete_names("paused_containers"))
@pass_session
def unpause(session: Session, all: bool, containers: tuple[str, ...]) -> int:
    """Let the processes of each container go on; its name is printed."""
    containers = names_or_all(containers, all, _NOUN, _ids(session, "paused"))

    def unpause_one(name: str) -> str:
        verbs.unpause_container(session.engine, name)
        return name

    return do_for_each(containers, unpause_one)


@command("wait", "Block until containers stop, then print their exit codes")
@click.option(
    "--condition",
    type=click.Choice([*_DOCKER_CONDITIONS, *_PODMAN_CONDITIONS]),
    multiple=True,
    help="What to wait for (default not-running); given several times: the first state that comes",
)
@click.argument(
    "containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_names("containers")
)
@pass_session
def wait(session: Session, condition: tuple[str, ...], containers: tuple[str, ...]) -> int:
    """Wait for each container in turn, and print its exit code."""
    engine = session.engine
    if set(condition) <= set(_PODMAN_CONDITIONS) and condition:
        return do_for_each(containers, lambda name: str(verbs.wait_for_state(engine, name, condition)))
    if len(condition) > 1:
        raise UsageError(f"--condition {condition[0]} and {condition[1]} exclude each other", hint="give one of them")
    wanted = condition[0] if condition else "not-running"
    return do_for_each(containers, lambda name: str(verbs.wait_for_container(engine, name, condition=wanted)))


@command("rename", "Rename a container")
@click.argument("container", shell_complete=complete_names("containers"))
@click.argument("name")
@pass_session
def rename(session: Session, container: str, name: str) -> None:
    """Give the container another name."""
    verbs.rename_container(session.engine, container, name)


@command("rm", "Remove containers")
@switch_option("-a", "--all", help="Remove every container; running ones are an error without --force")
@switch_option("-f", "--force", help="Kill a running container first; an unknown one is no error")
@switch_option("-v", "--volumes", help="Remove its anonymous volumes too")
@_ANY
@pass_session
def rm(session: Session, all: bool, force: bool, volumes: bool, containers: tuple[str, ...]) -> int:
    """Remove each container; the names that were given are printed."""
    containers = names_or_all(containers, all, _NOUN, _ids(session))
    removed = verbs.remove_containers(session.engine, containers, force=force, volumes=volumes)
    return print_in_order(containers, removed, may_be_missing=force or all)


@command(
    ("container exists",),
    "Tell by the exit code whether a container exists: 0 for yes, 1 for no",
    rules=CommandRules(own_error=125),
)
@click.argument("name", metavar="CONTAINER", shell_complete=complete_names("containers"))
@pass_session
def exists(session: Session, name: str) -> int:
    """Look for a container, and print nothing."""
    return 0 if verbs.container_exists(session.engine, name) else 1


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
