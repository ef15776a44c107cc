"""Id maps as values: which ids a container has and which of the user's ids stand behind them. It makes none.

host.idmap computes the maps that options ask for; records keep them, and userns and mapping write them to the kernel.
"""

from __future__ import annotations

from rootless.errors import RuntimeFailure
from rootless.records.fields import Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Extent:
    """`size` consecutive ids: `container`, `container`+1, ... inside are `host`, `host`+1, ... outside."""

    __slots__ = ("container", "host", "size")

    def __init__(self, container: int, host: int, size: int) -> None:
        self.container = container
        self.host = host
        self.size = size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extent) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"Extent({self.container}, {self.host}, {self.size})"

    def _fields(self) -> tuple[int, int, int]:
        return self.container, self.host, self.size


class IdMap:
    """The user ids and group ids of a user namespace.

    kind: `range` (written by newuidmap and newgidmap), `single` (one id, which the kernel lets anybody write) or
    `identity` (root of a namespace that has several ids hands them on unchanged).
    """

    __slots__ = ("gids", "kind", "uids")

    def __init__(self, uids: Iterable[Extent], gids: Iterable[Extent], kind: str) -> None:
        self.uids = tuple(uids)
        self.gids = tuple(gids)
        self.kind = kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.uids, self.gids, self.kind))

    def __repr__(self) -> str:
        return f"IdMap({self.uids}, {self.gids}, {self.kind!r})"

    def key(self) -> str:
        """A short text, the same for maps that give a file of an image the same owner on disk.

        All single maps have one key: whatever the id inside is, every file belongs to the user.
        """
        if self.kind == "single":
            return "single"
        # FNV-1a, so that `run` loads no hashlib. Nobody gains by two maps with one key: both are the caller's own.
        value = 0xCBF29CE484222325
        for byte in repr((self.uids, self.gids)).encode():
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
        return f"{value:016x}"

    def to_host_uid(self, uid: int) -> int | None:
        """The id outside of container user `uid`; None when it has none."""
        return host_id(self.uids, uid)

    def to_host_gid(self, gid: int) -> int | None:
        """The id outside of container group `gid`; None when it has none."""
        return host_id(self.gids, gid)

    def to_container_uid(self, uid: int) -> int | None:
        """The id inside of host user `uid`; None when it has none."""
        return container_id(self.uids, uid)

    def to_container_gid(self, gid: int) -> int | None:
        """The id inside of host group `gid`; None when it has none."""
        return container_id(self.gids, gid)

    def has_uid(self, uid: int) -> bool:
        """Is container user `uid` mapped?"""
        return self.to_host_uid(uid) is not None

    def has_gid(self, gid: int) -> bool:
        """Is container group `gid` mapped?"""
        return self.to_host_gid(gid) is not None

    def first_uid(self) -> int:
        """The user to be for set-up: 0 where it is mapped, else the lowest one."""
        return min(e.container for e in self.uids)

    def first_gid(self) -> int:
        """The group to be for set-up: 0 where it is mapped, else the lowest one."""
        return min(e.container for e in self.gids)

    def to_json(self) -> dict[str, object]:
        """The map as JSON values, for records."""
        return {
            "kind": self.kind,
            "uids": [[e.container, e.host, e.size] for e in self.uids],
            "gids": [[e.container, e.host, e.size] for e in self.gids],
        }

    @classmethod
    def from_json(cls, known: object, file: str = "id map") -> IdMap:
        """The map that `to_json` wrote. Raises InvalidInput naming `file` for anything else."""
        return cls.from_fields(Fields(known, file))

    @classmethod
    def from_fields(cls, fields: Fields) -> IdMap:
        """The same where the map is a member of a record."""
        uids, gids = (tuple(Extent(*numbers) for numbers in fields.integer_triples(key)) for key in ("uids", "gids"))
        return cls(uids, gids, fields.text("kind"))


def host_id(extents: Iterable[Extent], number: int) -> int | None:
    """The id outside of the id `number` inside; None when it has none."""
    for e in extents:
        if e.container <= number < e.container + e.size:
            return e.host + number - e.container
    return None


def container_id(extents: Iterable[Extent], number: int) -> int | None:
    """The id inside of the id `number` outside; None when it has none."""
    return host_id((Extent(e.host, e.container, e.size) for e in extents), number)


def extents_between(inner: Iterable[Extent], outer: Iterable[Extent]) -> list[Extent]:
    """The extents of `inner` with the ids of `outer` behind them: the map of a user namespace inside of another one.

    Both maps name ids of the same namespace outside. Extents are split where the outer map changes. Raises
    RuntimeFailure for an id that the outer map lacks.
    """
    result = []
    for e in inner:
        left, container, host = e.size, e.container, e.host
        while left:
            found = next((o for o in outer if o.host <= host < o.host + o.size), None)
            if found is None:
                raise RuntimeFailure(f"the container's id map uses id {host}, which is not yours")
            size = min(left, found.host + found.size - host)
            result.append(Extent(container, found.container + host - found.host, size))
            left, container, host = left - size, container + size, host + size
    return result
