"""The verbs of the whole: info, version, doctor, unshare, disk use, prune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootless.engine.context import Engine
    from rootless.engine.options import PruneReport


class System:
    """`engine.system`."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def info(self) -> dict[str, Any]:
        """What the host and the store are, docker's keys where docker has them."""
        raise NotImplementedError

    def version(self) -> dict[str, Any]:
        """Versions: {"Client": {"Version", "Os", "Arch", ...}, "Components": [...]}."""
        raise NotImplementedError

    def doctor(self) -> list[Any]:
        """host.doctor's rungs, each tried for real."""
        raise NotImplementedError

    def unshare(self, command: Sequence[str]) -> int:
        """Run `command` (default: the user's shell) as root of the user's id map; its exit status."""
        raise NotImplementedError

    def df(self) -> dict[str, Any]:
        """Bytes by kind: {"images": {"count", "active", "size", "reclaimable"}, "containers": ..., "volumes": ...}."""
        raise NotImplementedError

    def prune(
        self, *, all: bool = False, volumes: bool = False, filters: Mapping[str, Sequence[str]] | None = None
    ) -> PruneReport:
        """Stopped containers, dangling images (all: unused ones), with `volumes` anonymous volumes, and garbage."""
        raise NotImplementedError
