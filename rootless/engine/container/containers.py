"""The verbs of containers, each a line that calls the module which owns it. Imports happen when a verb is used.

`container` below is what the user typed: a name, an id or an unambiguous prefix of one. Each verb raises NotFound
("no such container: 'x'") for an unknown one. Filters are {"status": ["exited", ...], "label": ["a=b"], ...}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rootless.engine.container.stats import ContainerStats
    from rootless.engine.context import Engine
    from rootless.engine.image_types import Change, PullEvent
    from rootless.engine.plan.explain import Explanation
    from rootless.engine.types import (
        AttachOptions,
        ContainerOptions,
        ContainerSummary,
        CopyResult,
        ExecOptions,
        ExecSession,
        PortBinding,
        PruneReport,
        RunOutcome,
        TopTable,
    )


class Containers:
    """`engine.container.containers`."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, options: ContainerOptions) -> str:
        """Make a container that is not started; its id (64 hex digits). Writes --cidfile. On error nothing is left."""
        from rootless.engine.container import create

        return create.create(self._engine, options)

    def explain(self, options: ContainerOptions) -> Explanation:
        """What `run` would do, in words and as the files it would write; nothing of it stays."""
        from rootless.engine.plan import explain

        return explain.explain(self._engine, options)

    def run(self, options: ContainerOptions, attach: AttachOptions) -> RunOutcome:
        """Create and start; wait with the caller's terminal attached unless `attach.detach`."""
        from rootless.engine.container import start

        return start.run(self._engine, options, attach)

    def start(self, container: str, attach: AttachOptions | None = None, *, interactive: bool = False) -> RunOutcome:
        """Start a stopped or created container; `attach` (start -a) stays with it. Running already: no effect."""
        from rootless.engine.container import start

        return start.start(self._engine, container, attach, interactive=interactive)

    def wanted_after_boot(self) -> list[str]:
        """Names of the containers whose restart policy wants them started when the host has come up, oldest first."""
        from rootless.engine.container import boot

        return boot.wanted_after_boot(self._engine)

    def attach(self, container: str, attach: AttachOptions) -> RunOutcome:
        """Follow a running container with the caller's terminal until it ends or the detach keys come."""
        from rootless.engine.container import start

        return start.attach(self._engine, container, attach)

    def stop(self, container: str, *, timeout: int | None = None, signal: str | None = None) -> None:
        """Ask it to end (its stop signal), SIGKILL after `timeout` seconds (default: its own, else 10; -1: never)."""
        from rootless.engine.container import lifecycle

        lifecycle.stop(self._engine, container, timeout=timeout, signal=signal)

    def restart(self, container: str, *, timeout: int | None = None, signal: str | None = None) -> None:
        """Stop if it runs, then start."""
        from rootless.engine.container import lifecycle

        lifecycle.restart(self._engine, container, timeout=timeout, signal=signal)

    def kill(self, container: str, *, signal: str = "KILL") -> None:
        """Send `signal` (name, SIGname or number) to its first process. Raises InvalidState when it does not run."""
        from rootless.engine.container import lifecycle

        lifecycle.kill(self._engine, container, signal=signal)

    def pause(self, container: str) -> None:
        """Freeze all its processes."""
        from rootless.engine.container import pause

        pause.pause(self._engine, container)

    def unpause(self, container: str) -> None:
        """Let them go on."""
        from rootless.engine.container import pause

        pause.unpause(self._engine, container)

    def update(self, container: str, given: Mapping[str, Any], *, restart: str | None = None) -> None:
        """Change limits (fields of ContainerOptions) and the restart policy, at once where it runs."""
        from rootless.engine.container import update

        update.update(self._engine, container, given, restart=restart)

    def stats(
        self, containers: Sequence[str] = (), *, all: bool = False, stream: bool = True, interval: float = 1.0
    ) -> Iterator[list[ContainerStats]]:
        """What containers (default: those that run, all: every one) use; sample after sample if `stream`."""
        from rootless.engine.container import stats

        return stats.stats(self._engine, containers, all=all, stream=stream, interval=interval)

    def rm(self, container: str, *, force: bool = False, volumes: bool = False) -> str:
        """Remove it (force: kill it first; volumes: its anonymous volumes too); its id."""
        from rootless.engine.container import container_removal

        return container_removal.rm(self._engine, container, force=force, volumes=volumes)

    def wait(self, container: str, *, condition: str = "not-running") -> int:
        """Block until it stops (condition: not-running, next-exit, removed); its exit code."""
        from rootless.engine.container import lifecycle

        return lifecycle.wait(self._engine, container, condition=condition)

    def rename(self, container: str, name: str) -> None:
        """Give it another name. Raises AlreadyExists."""
        from rootless.engine.container import lifecycle

        lifecycle.rename(self._engine, container, name)

    def ps(
        self,
        *,
        all: bool = False,
        filters: Mapping[str, Sequence[str]] | None = None,
        last: int = -1,
        size: bool = False,
    ) -> list[ContainerSummary]:
        """Running containers, newest first (all: stopped too; last: the newest N of any state, -1 = no limit)."""
        from rootless.engine.container import listing

        return listing.ps(self._engine, all=all, filters=filters or {}, last=last, size=size)

    def inspect(self, container: str, *, size: bool = False) -> dict[str, Any]:
        """Everything about it, in the shape of docker's `container inspect`."""
        from rootless.engine.container import inspect

        return inspect.inspect(self._engine, container, size=size)

    def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> Iterator[tuple[str, str, bytes]]:
        """Its log as (stream, RFC 3339 time, bytes with their line end) in order; `since`/`until` as docker takes
        them (RFC 3339, seconds since the epoch, or a duration such as 10m before now)."""
        from rootless.engine.container import follow as following

        return following.logs(self._engine, container, follow=follow, tail=tail, since=since, until=until)

    def exec(self, container: str, options: ExecOptions) -> ExecSession:
        """Run one more command in a running container. Raises CommandNotFound (127), CommandNotExecutable (126)."""
        from rootless.engine.container import execute

        return execute.execute(self._engine, container, options)

    def commit(
        self,
        container: str,
        name: str | None = None,
        *,
        author: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        pause: bool = True,
        squash: bool = False,
        format: str = "oci",
        progress: Callable[[PullEvent], None] | None = None,
    ) -> str:
        """Make an image of a container, running or not; its id. What is in volumes is not part of it.

        changes: Dockerfile lines. pause: freeze it meanwhile. squash: one layer instead of one more. format: oci or
        docker. Raises UsageError, InvalidInput (what no layer can hold), HostLimit (no space).
        """
        from rootless.engine.files import commit

        return commit.commit(
            self._engine,
            container,
            name,
            author=author,
            changes=changes,
            message=message,
            pause=pause,
            squash=squash,
            format=format,
            progress=progress,
        )

    def copy(
        self, source: str, target: str, *, archive: bool = False, follow: bool = False, overwrite: bool = False
    ) -> CopyResult:
        """Copy files between a container and the host, or two containers (`cp`), by docker's rules.

        source, target: CONTAINER:PATH, a path of the host, or "-" for a tar stream. archive: keep owners. follow: a
        link at the end of the source. overwrite: a directory may replace a file and the reverse. Volumes of the
        container are seen, running or not. Raises NotFound, InvalidInput, InvalidState (in the way, read-only).
        """
        from rootless.engine.files import cp

        return cp.copy(self._engine, source, target, archive=archive, follow=follow, overwrite=overwrite)

    def export(self, container: str, output: str) -> None:
        """Write its whole root file system as a tar to file `output` ("-": standard output); no volumes."""
        from rootless.engine.files import cp

        cp.export(self._engine, container, output)

    def diff(self, container: str) -> list[Change]:
        """What it has changed in its image's files, in the order of paths."""
        from rootless.engine.files import commit

        return commit.diff(self._engine, container)

    def top(self, container: str, arguments: Sequence[str] = ()) -> TopTable:
        """Its processes, read from the host's /proc (nothing of the image is run)."""
        from rootless.engine.container import top

        return top.top(self._engine, container, arguments)

    def port(self, container: str, private_port: str | None = None) -> list[PortBinding]:
        """Its published ports, or those of one ("80", "80/udp"): InvalidInput when that one is not published."""
        from rootless.engine.container import listing

        return listing.port(self._engine, container, private_port)

    def healthcheck(self, container: str) -> int:
        """Run its health check once, now: 0 healthy, 1 unhealthy. Raises InvalidState without a check."""
        from rootless.engine.container import execute

        return execute.healthcheck(self._engine, container)

    def prune(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> PruneReport:
        """Remove every stopped container (filters: until, label)."""
        from rootless.engine.container import container_removal

        return container_removal.prune(self._engine, filters=filters or {})
