"""`logs`: a container's log, followed while the container runs. rootless.engine.container.logs reads the files."""

from __future__ import annotations

from collections.abc import Iterator

from rootless.engine.container.reconcile import state_of
from rootless.engine.report_types import LogOptions
from rootless.errors import InvalidState, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine


def container_logs(engine: Engine, container: str, options: LogOptions) -> Iterator[tuple[str, str, bytes]]:
    """The container's log as (stream, RFC 3339 time, bytes with their line end), in order.

    Raises NotFound, UsageError for wrong times, and InvalidState for a container that keeps no log.
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
        since=None if options.since is None else parse_moment_ns(options.since, "--since"),
        until=None if options.until is None else parse_moment_ns(options.until, "--until"),
        tail=options.tail,
        follow=options.follow,
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
