"""Which subordinate ids a user owns (/etc/subuid, /etc/subgid, or nsswitch's subid database), and the id map of all."""

from __future__ import annotations

import os

from rootless.host.facts import find_helper, is_privileged, user_name
from rootless.host.idmap import MAX_ID, SubordinateIds, default_map, identity_map, single_map
from rootless.records.id_map import Extent
from rootless.units import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rootless.records.id_map import IdMap

MAP_PROGRAMS = ("newuidmap", "newgidmap")
"""The setuid programs of shadow that write id maps with ranges of subordinate ids."""
_INITIAL_COUNT = 0xFFFFFFFF  # ids in the one line that the map of the host's own user namespace has


def subordinate_ids(user: int | str | None = None, *, etc: str = "/etc") -> SubordinateIds | None:
    """The ranges of `user` (uid or login name, default: the caller); None unless there are uids and gids.

    When nsswitch.conf names a source other than files for `subid` (FreeIPA's sss), `getsubids` of shadow is asked, as
    newuidmap itself would. Lines that make no sense are passed over, as newuidmap does.
    """
    uid, name = _identity(user)
    if _uses_nss(f"{etc}/nsswitch.conf"):
        uids, gids = _getsubids(name, group=False), _getsubids(name, group=True)
    else:
        uids, gids = _read(f"{etc}/subuid", name, uid), _read(f"{etc}/subgid", name, uid, os.getegid())
    return SubordinateIds(uids, gids) if uids and gids else None


def _identity(user: int | str | None) -> tuple[int, str]:
    """The uid and the login name of `user`, one looked up by the other; an unknown name goes with the caller's uid."""
    if isinstance(user, str):
        import pwd

        try:
            return pwd.getpwnam(user).pw_uid, user
        except KeyError:
            number = whole_number(user, MAX_ID)
            return os.geteuid() if number is None else number, user
    uid = os.geteuid() if user is None else user
    return uid, user_name(uid)


def _uses_nss(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            for line in f:
                database, _, sources = line.partition("#")[0].partition(":")
                if database.strip() == "subid":
                    return sources.split()[:1] not in ([], ["files"])
    except OSError:
        pass
    return False


def _read(path: str, name: str, uid: int, own: int | None = None) -> list[tuple[int, int]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return parse_ranges(f, name, uid, own)
    except OSError:
        return []


def parse_ranges(lines: Iterable[str], name: str, uid: int, own: int | None = None) -> list[tuple[int, int]]:
    """The ranges, (start, count) each, of the lines `owner:start:count` (subuid(5)) of that login name or uid.

    own: the id that the caller maps besides the ranges (default: the uid). It is cut out of them, and ranges that
    overlap are cut to what is new: the kernel refuses a map with an id in two lines.
    """
    found = [
        (start, count)
        for owner, start, count in _ranges(lines)
        if owner in (name, str(uid)) and count > 0 and start + count - 1 <= MAX_ID
    ]
    return without_overlaps(found, uid if own is None else own)


def without_overlaps(ranges: Iterable[tuple[int, int]], own: int) -> list[tuple[int, int]]:
    """The ranges in their order, each cut so that no id comes twice and the user's `own` id not at all."""
    taken = [(own, own + 1)]
    result = []
    for start, count in ranges:
        pieces = [(start, start + count)]
        for low, high in taken:
            pieces = [
                piece for a, b in pieces for piece in ((a, min(b, low)), (max(a, high), b)) if piece[0] < piece[1]
            ]
        taken += pieces
        result += [(a, b - a) for a, b in pieces]
    return result


def read_ranges(path: str) -> list[tuple[str, int, int]]:
    """The owner, start and count of each line of /etc/subuid or /etc/subgid; none where the file cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return list(_ranges(f))
    except OSError:
        return []


def _ranges(lines: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3:
            start, count = whole_number(fields[1]), whole_number(fields[2])
            if start is not None and count is not None:
                yield fields[0], start, count


def first_free(etc: str = "/etc") -> int:
    """The first id from 100000 (useradd's SUB_UID_MIN) above every range in use."""
    free = 100000
    for name in ("subuid", "subgid"):
        for _, start, count in read_ranges(f"{etc}/{name}"):
            free = max(free, start + count)
    return free


def _getsubids(name: str, *, group: bool) -> list[tuple[int, int]]:
    """The ranges that shadow's getsubids prints in lines `0: alice 100000 65536`; none where it is not installed."""
    program = find_helper("getsubids")
    if program is None:
        return []
    read_end, write_end = os.pipe()
    try:
        argv = [program, *(["-g"] if group else []), name]
        actions = [
            (os.POSIX_SPAWN_DUP2, write_end, 1),
            (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
        ]
        child = os.posix_spawn(program, argv, {"PATH": "/usr/bin:/bin"}, file_actions=actions)
    finally:
        os.close(write_end)
    with open(read_end, encoding="utf-8", errors="replace") as f:
        lines = f.read(1 << 16).splitlines()
    os.waitpid(child, 0)
    return parse_getsubids(lines)


def parse_getsubids(lines: Iterable[str]) -> list[tuple[int, int]]:
    """The ranges, (start, count) each, of the lines that getsubids prints."""
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) < 4:
            continue
        start, count = whole_number(fields[-2]), whole_number(fields[-1])
        if start is not None and count:
            found.append((start, count))
    return without_overlaps(found, -1)


def read_map(name: str) -> list[Extent]:
    """The extents of this process's own namespace; name: `uid_map` or `gid_map`."""
    with open(f"/proc/self/{name}") as f:
        return [Extent(*map(int, line.split())) for line in f]


def default_id_map() -> IdMap:
    """The best map this caller can have: his ranges, else (root inside a container) all ids of it, else one id.

    The ranges count only where newuidmap and newgidmap are there to write them, or we may write any map ourselves.
    """
    uid, gid = os.geteuid(), os.getegid()
    privileged = is_privileged()
    ids = subordinate_ids()
    if privileged:
        uids, gids = read_map("uid_map"), read_map("gid_map")
        initial = len(uids) == 1 and uids[0].size == _INITIAL_COUNT
        if ids is not None and (initial or (_are_inside(ids.uids, uids) and _are_inside(ids.gids, gids))):
            return default_map(ids, uid, gid)
        if not initial and sum(e.size for e in uids) > 1 and sum(e.size for e in gids) > 1:
            return identity_map(uids, gids)
    elif ids is not None and all(map(find_helper, MAP_PROGRAMS)):
        return default_map(ids, uid, gid)
    return single_map(0, 0, uid, gid)


def _are_inside(ranges: Sequence[tuple[int, int]], extents: Sequence[Extent]) -> bool:
    return all(
        any(e.container <= start and start + count <= e.container + e.size for e in extents) for start, count in ranges
    )
