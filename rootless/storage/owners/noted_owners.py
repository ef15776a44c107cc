"""Reads the noted owners of links, pipes and sockets of a whole tree: a container's table and that of each layer."""

from __future__ import annotations

import os

from rootless.storage.owners import overrides

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.rootfs import RootfsPlan
    from rootless.storage.owners.overrides import Override, Table


class NotedOwners:
    """The tables of owners (`overrides.Table`) of a container's writable directory and of all layers below it.

    plan: the plan of the container's driver; name, path: an archive calls `name` what lies at `path` in the tree.
    """

    __slots__ = ("_name", "_own", "_path", "_places")

    def __init__(self, plan: RootfsPlan, *, name: str = "", path: str = "") -> None:
        self._name = name.strip("/")
        self._path = path.strip("/")
        directories = [plan.upper, *plan.lowerdirs]
        self._places: list[tuple[str, Table]] = []
        for directory in directories:
            table = overrides.open_table(os.path.dirname(directory))
            self._places.append((directory, table))
        self._own = self._places[0][1]
        if not any(len(table) for _, table in self._places):
            self._places.clear()

    def find(self, path: bytes, status: os.stat_result, target: bytes = b"") -> Override | None:
        """What is noted of a link, pipe or socket that an archive calls `path`; None for nothing.

        status: of the file as the mounted tree shows it; target: what a symbolic link says.
        """
        if not self._places:
            return None
        found = self._own.find(path, status, target)
        if found is not None:
            return found
        inner = os.fsdecode(path)
        if self._name and self._name != ".":
            inner = inner[len(self._name) :]
        inner = f"{self._path}/{inner.strip('/')}".strip("/")
        for directory, table in self._places:
            try:
                here = os.lstat(f"{directory}/{inner}")
            except OSError:
                continue
            return table.find(os.fsencode(inner), here, target) if here.st_mode == status.st_mode else None
        return None
