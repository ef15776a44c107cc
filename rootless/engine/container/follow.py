"""logs: the container's log through rootless.engine.container.logs, followed while it runs. It opens no file itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rootless.engine.container.reconcile import state_of
from rootless.errors import InvalidState, NotFound

if TYPE_CHECKING:
    from rootless.engine.context import Engine


def container_logs(
    engine: Engine,
    container: str,
    *,
    follow: bool = False,
    tail: int | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Iterator[tuple[str, str, bytes]]:
    """Its log as (stream, RFC 3339 time, bytes with their line end), in order.

    since, until: as docker takes them (RFC 3339, seconds since the epoch, or a duration such as 10m before now).
    Raises InvalidState for a container that keeps no log.
    """
    from rootless.engine.container import logs as reading
    from rootless.units import parse_moment_ns

    containers = engine.store.containers
    container_id = containers.find(container)
    launch = containers.read_launch(container_id)
    if launch.log.driver == "none":
        raise InvalidState(
            "configured logging driver does not support reading", hint="the container was made with --log-driver none"
        )
    window = reading.Window(
        since=None if since is None else parse_moment_ns(since, "--since"),
        until=None if until is None else parse_moment_ns(until, "--until"),
        tail=tail,
        follow=follow,
    )

    def is_running() -> bool:
        try:
            return state_of(engine, container_id).status in ("running", "paused", "restarting")
        except NotFound:
            return False

    def records() -> Iterator[tuple[str, str, bytes]]:
        for record in reading.read(launch.log.path, window, is_running=is_running):
            yield record.stream, record.time, record.text.encode("utf-8", "surrogateescape")

    return records()
