"""The id maps that a user can have: the default one, keep-id, nomap, and what --uidmap asks for. Pure.

The map itself, as records keep it, is records.id_map's.
"""

from __future__ import annotations

from rootless.errors import HostLimit, UsageError
from rootless.records.id_map import Extent, IdMap, container_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# 2^32-1 means "no id" to chown(2) and setresuid(2), and a larger number would wrap around to 0, which is root
# (CVE-2024-40635).
MAX_ID = 0xFFFFFFFE
MAX_EXTENTS = 340  # user_namespaces(7): the most lines that uid_map and gid_map take, since Linux 4.15


class SubordinateIds:
    """The ranges of ids that a user owns besides his own: (first host id, count) each, in the order of the files."""

    __slots__ = ("gids", "uids")

    def __init__(self, uids: Sequence[tuple[int, int]], gids: Sequence[tuple[int, int]]) -> None:
        self.uids = tuple(uids)
        self.gids = tuple(gids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SubordinateIds) and (self.uids, self.gids) == (other.uids, other.gids)

    def __hash__(self) -> int:
        return hash((self.uids, self.gids))

    def __repr__(self) -> str:
        return f"SubordinateIds({self.uids}, {self.gids})"


def single_map(container_uid: int, container_gid: int, uid: int | None = None, gid: int | None = None) -> IdMap:
    """One user and one group inside, which are the caller outside: what works for everybody.

    The container's process may be any one id (the image's USER); uid, gid: the caller's, by default the effective ones.
    """
    import os

    own_uid = os.geteuid() if uid is None else uid
    own_gid = os.getegid() if gid is None else gid
    return IdMap([Extent(container_uid, own_uid, 1)], [Extent(container_gid, own_gid, 1)], "single")


def default_map(ids: SubordinateIds | None, uid: int, gid: int) -> IdMap:
    """Root inside is the caller, 1 and up are the caller's ranges; without ranges root only.

    This is also podman's and docker's rootless map: the intermediate ids that --uidmap speaks of.
    """
    if ids is None:
        return single_map(0, 0, uid, gid)
    return IdMap(_intermediate(ids.uids, uid), _intermediate(ids.gids, gid), "range")


def keep_id_map(ids: SubordinateIds | None, uid: int, gid: int, container_uid: int, container_gid: int) -> IdMap:
    """The caller is `container_uid`:`container_gid` inside; the ids below and above come from the ranges.

    Three segments, cut to what the user owns, as podman's --userns=keep-id. Without ranges the one id is that user.
    """
    if ids is None:
        return single_map(container_uid, container_gid, uid, gid)
    return IdMap(
        _keep(_intermediate(ids.uids, uid), container_uid),
        _keep(_intermediate(ids.gids, gid), container_gid),
        "range",
    )


def _keep(intermediate: tuple[Extent, ...], number: int) -> tuple[Extent, ...]:
    owned = _count(intermediate) - 1
    below = min(number, owned)
    segments = [(0, 1, below), (number, 0, 1), (number + 1, below + 1, owned - below)]
    return compose_extents(intermediate, [s for s in segments if s[2] > 0])


def nomap_map(ids: SubordinateIds | None, uid: int, gid: int) -> IdMap:
    """The caller's own ids are not in the container: 0 and up are the ranges. Raises HostLimit without ranges."""
    if ids is None:
        raise HostLimit("user namespace mode 'nomap' needs a range of subordinate ids", hint=_NO_RANGE)
    uids, gids = _intermediate(ids.uids, uid), _intermediate(ids.gids, gid)
    return IdMap(
        compose_extents(uids, [(0, 1, _count(uids) - 1)]),
        compose_extents(gids, [(0, 1, _count(gids) - 1)]),
        "range",
    )


def identity_map(uids: Iterable[Extent], gids: Iterable[Extent]) -> IdMap:
    """All ids of the present namespace, unchanged; uids, gids: its own /proc/self/uid_map and gid_map."""
    return IdMap(
        [Extent(e.container, e.container, e.size) for e in uids],
        [Extent(e.container, e.container, e.size) for e in gids],
        "identity",
    )


def custom_map(uidmap: Sequence[str], gidmap: Sequence[str], ids: SubordinateIds | None, uid: int, gid: int) -> IdMap:
    """The map of --uidmap and --gidmap: `container:from[:size]` each.

    `from` is an id of the default map (0 is the caller, 1 the first id of his ranges, ...), or with `@` before it an id
    of the host. When only one of the two is given it serves for both. Raises UsageError for what cannot be parsed,
    overlaps or is not the caller's.
    """
    own = default_map(ids, uid, gid)
    uids = _custom("--uidmap", uidmap, own.uids) if uidmap else _custom("--gidmap", gidmap, own.uids)
    gids = _custom("--gidmap", gidmap, own.gids) if gidmap else _custom("--uidmap", uidmap, own.gids)
    kind = "single" if _count(uids) == 1 and _count(gids) == 1 and ids is None else "range"
    return IdMap(uids, gids, kind)


def _custom(flag: str, values: Sequence[str], intermediate: tuple[Extent, ...]) -> tuple[Extent, ...]:
    from itertools import pairwise

    segments = [_parse(flag, value, intermediate) for value in values]
    for position in (0, 1):
        ordered = sorted(segments, key=lambda s: s[position])
        for before, after in pairwise(ordered):
            if before[position] + before[2] > after[position]:
                what = "container" if position == 0 else "host"
                raise UsageError(f"invalid {flag}: {what} id {after[position]} is mapped twice")
    result = compose_extents(intermediate, segments)
    if len(result) > MAX_EXTENTS:
        raise UsageError(f"invalid {flag}: more than {MAX_EXTENTS} extents")
    return result


def _parse(flag: str, value: str, intermediate: tuple[Extent, ...]) -> tuple[int, int, int]:
    fields = value.split(":")
    on_host = len(fields) > 1 and fields[1].startswith("@")
    if on_host:
        fields[1] = fields[1][1:]
    if len(fields) not in (2, 3) or not all(f.isascii() and f.isdigit() and len(f) <= 10 for f in fields):
        raise UsageError(
            f"invalid {flag} '{value}'",
            hint="write CONTAINER_ID:FROM_ID:SIZE, where FROM_ID 0 is yourself and 1 the first of your subordinate ids",
        )
    container, start = int(fields[0]), int(fields[1])
    size = int(fields[2]) if len(fields) == 3 else 1
    if size == 0 or container + size - 1 > MAX_ID:
        raise UsageError(f"invalid {flag} '{value}': size out of range")
    if on_host:
        inside = container_id(intermediate, start)
        if inside is None:
            raise UsageError(f"invalid {flag} '{value}': host id {start} is not yours")
        start = inside
    owned = _count(intermediate)
    if start + size > owned:
        raise UsageError(
            f"invalid {flag} '{value}': only ids 0 to {owned - 1} are yours",
            hint="more ids need a wider range in /etc/subuid and /etc/subgid" if owned > 1 else _NO_RANGE,
        )
    return container, start, size


_NO_RANGE = "you have no range of subordinate ids; `rootless doctor` tells how to get one"


def _intermediate(ranges: Sequence[tuple[int, int]], own: int) -> tuple[Extent, ...]:
    extents = [Extent(0, own, 1)]
    inside = 1
    for start, count in ranges[: MAX_EXTENTS - 1]:
        extents.append(Extent(inside, start, count))
        inside += count
    return tuple(extents)


def _count(extents: Iterable[Extent]) -> int:
    return sum(e.size for e in extents)


def compose_extents(intermediate: Sequence[Extent], segments: Iterable[tuple[int, int, int]]) -> tuple[Extent, ...]:
    """Host extents of (container, intermediate id, size) `segments`, split where the ranges behind them change."""
    result = []
    for container, start, size in sorted(segments):
        for e in intermediate:
            low, high = max(start, e.container), min(start + size, e.container + e.size)
            if low < high:
                result.append(Extent(container + low - start, e.host + low - e.container, high - low))
    return tuple(sorted(result, key=lambda e: e.container))
