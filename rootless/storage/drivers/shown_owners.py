"""Computes which owners a driver has to show so that layers of one id map serve a container of another. Pure."""

from __future__ import annotations

from rootless.host.idmap import compose_extents
from rootless.records.id_map import Extent
from rootless.records.rootfs import ShownOwners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rootless.records.id_map import IdMap

    Ranges = Sequence[tuple[int, int, int]]

_NOBODY = 65534  # the kernel's overflow id, by which fuse-overlayfs shows an owner that no range has


def between(on_disk: IdMap, container: IdMap, mounted_in: IdMap) -> ShownOwners | None:
    """What to show for files with owners by `on_disk`, to a container of the map `container`.

    mounted_in: the map of the user namespace in which the driver mounts: the container's, or one around it.
    None where that is impossible and the layers have to be copied: with one id; with a map that lacks some of the
    host's ids on disk, since nobody in its user namespace can read a file of mode 0600 that such an id owns; and with
    one that lacks NOBODY, since the kernel refuses files whose owner it cannot express in the mount's user namespace.
    """
    if "single" in (on_disk.kind, container.kind) or not mounted_in.has_uid(_NOBODY) or not mounted_in.has_gid(_NOBODY):
        return None
    if _hosts(on_disk.uids) != _hosts(mounted_in.uids) or _hosts(on_disk.gids) != _hosts(mounted_in.gids):
        return None
    return ShownOwners(_through(on_disk.uids, container.uids), _through(on_disk.gids, container.gids))


def within(shown: Ranges, extents: Sequence[Extent]) -> list[tuple[int, int, int]]:
    """The ranges of `shown`, which are in the host's ids, in those of the user namespace that has the map `extents`."""
    inward = _reverse(extents)
    # Each call translates the second id of a range, and cuts the range at the borders of the map
    half = compose_extents(inward, shown)
    both = compose_extents(inward, [(e.host, e.container, e.size) for e in half])
    return sorted((e.host, e.container, e.size) for e in both)


def _through(on_disk: Iterable[Extent], container: Sequence[Extent]) -> list[tuple[int, int, int]]:
    """(the host's id on disk, the host's id to show, count) of each range of ids that files of an image have."""
    found = compose_extents(container, [(e.host, e.container, e.size) for e in on_disk])
    return [(e.container, e.host, e.size) for e in found]


def _reverse(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    return tuple(Extent(e.host, e.container, e.size) for e in extents)


def _hosts(extents: Iterable[Extent]) -> list[tuple[int, int]]:
    """The ids of the host in a map, as (first, end) of ranges that do not touch."""
    joined: list[tuple[int, int]] = []
    for first, end in sorted((e.host, e.host + e.size) for e in extents):
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    return joined
