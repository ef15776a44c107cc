"""The verbs of volumes: policy over storage.volumes (names, use by containers, filters). No file is touched here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootless.engine.context import Engine
    from rootless.engine.options import PruneReport, VolumeSummary


class Volumes:
    """`engine.volumes`."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self, name: str | None = None, *, driver: str = "local", labels: Sequence[str] = (), options: Sequence[str] = ()
    ) -> str:
        """Make a volume (a name is made up when none is given); its name. Exists already: no effect, as docker."""
        raise NotImplementedError

    def ls(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> list[VolumeSummary]:
        """All volumes by name (filters: name, label, dangling, driver)."""
        raise NotImplementedError

    def inspect(self, name: str) -> dict[str, Any]:
        """One volume in docker's shape. Raises NotFound."""
        raise NotImplementedError

    def rm(self, name: str, *, force: bool = False) -> None:
        """Remove one (force: absent is no error). Raises InvalidState when a container uses it."""
        raise NotImplementedError

    def prune(self, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None) -> PruneReport:
        """Remove anonymous volumes that no container uses (all: named ones too; filters: label, until)."""
        raise NotImplementedError
