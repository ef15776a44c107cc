"""Which owners a driver shows, so that layers of the default map serve a container of another one."""

from __future__ import annotations

import pytest

from rootless.host.idmap import SubordinateIds, custom_map, default_map, keep_id_map, nomap_map, single_map
from rootless.records.fields import Fields
from rootless.records.id_map import IdMap
from rootless.records.rootfs import RootfsPlan, ShownOwners
from rootless.storage.drivers.shown_owners import between, within

IDS = SubordinateIds([(100000, 65536)], [(200000, 65536)])
SPLIT = SubordinateIds([(100000, 1000), (500000, 64536)], [(200000, 65536)])
UID, GID = 1001, 1002


def translated(ranges: list[tuple[int, int, int]], number: int) -> int:
    (shown,) = [to + number - first for first, to, size in ranges if first <= number < first + size]
    return shown


@pytest.mark.parametrize("ids", [IDS, SPLIT], ids=["one-range", "two-ranges"])
@pytest.mark.parametrize("kept", [UID, 0, 5, 65000])
def test_each_id_of_the_image_is_that_id_in_the_container(ids: SubordinateIds, kept: int) -> None:
    disk, keep = default_map(ids, UID, GID), keep_id_map(ids, UID, GID, kept, kept)
    owners = between(disk, keep, keep)
    assert owners is not None
    for number in (0, 1, 33, kept, kept + 1, 999, 1000, 1001, 1002, 65534):
        for of_disk, of_container, ranges, extents in (
            (disk.to_host_uid(number), keep.to_container_uid, owners.uids, keep.uids),
            (disk.to_host_gid(number), keep.to_container_gid, owners.gids, keep.gids),
        ):
            assert of_disk is not None
            # what the daemon sees in the container's user namespace, and what it tells the kernel there
            seen = of_container(of_disk)
            assert seen is not None
            assert translated(within(ranges, extents), seen) == number


def test_without_the_callers_ids_the_mount_belongs_to_the_namespace_around() -> None:
    disk, nomap = default_map(IDS, UID, GID), nomap_map(IDS, UID, GID)
    owners = between(disk, nomap, disk)
    assert owners is not None
    for number in (0, 1, 65534):
        inside = nomap.to_host_uid(number)
        assert inside is not None
        assert translated(within(owners.uids, disk.uids), number) == disk.to_container_uid(inside)
    assert between(disk, nomap, nomap) is None


def test_maps_that_lack_ids_get_copies() -> None:
    disk = default_map(IDS, UID, GID)
    few = custom_map(["0:1:1000"], [], IDS, UID, GID)
    assert between(disk, few, few) is None
    single = single_map(0, 0, UID, GID)
    assert between(disk, single, single) is None
    assert between(single, disk, disk) is None


def test_a_plan_keeps_the_owners() -> None:
    plan = RootfsPlan("fuse-overlayfs", "/c", ["/l"])
    assert "owners" not in plan.to_json()
    plan.owners = ShownOwners([(1, 2, 3), (4, 5, 6)], [(7, 8, 9)])
    again = RootfsPlan.from_json(Fields(plan.to_json(), "launch.json", "rootfs")).owners
    assert again is not None
    assert (again.uids, again.gids) == (((1, 2, 3), (4, 5, 6)), ((7, 8, 9),))


def test_root_inside_a_namespace_with_ids_of_its_own() -> None:
    """`unshare`, or a container around: the default map hands its ids on unchanged."""
    disk = IdMap(default_map(IDS, 0, 0).uids, default_map(IDS, 0, 0).gids, "identity")
    keep = keep_id_map(IDS, 0, 0, 1000, 1000)
    assert between(disk, keep, keep) is not None
