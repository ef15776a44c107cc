"""host.idmap: the arithmetic of id maps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import HostLimit, UsageError
from rootless.host.idmap import (
    SubordinateIds,
    custom_map,
    default_map,
    identity_map,
    keep_id_map,
    nomap_map,
    single_map,
)
from rootless.records.id_map import Extent, IdMap

IDS = SubordinateIds([(100000, 65536)], [(200000, 65536)])
UID, GID = 1001, 1002


def triples(extents: tuple[Extent, ...]) -> list[tuple[int, int, int]]:
    return [(e.container, e.host, e.size) for e in extents]


def test_default_map_is_caller_then_ranges() -> None:
    id_map = default_map(IDS, UID, GID)
    assert triples(id_map.uids) == [(0, 1001, 1), (1, 100000, 65536)]
    assert triples(id_map.gids) == [(0, 1002, 1), (1, 200000, 65536)]
    assert id_map.kind == "range"


def test_default_map_without_ranges_is_one_id() -> None:
    id_map = default_map(None, UID, GID)
    assert (triples(id_map.uids), triples(id_map.gids), id_map.kind) == ([(0, 1001, 1)], [(0, 1002, 1)], "single")


def test_several_ranges_follow_one_another() -> None:
    id_map = default_map(SubordinateIds([(100000, 10), (300000, 5)], [(100000, 10)]), UID, GID)
    assert triples(id_map.uids) == [(0, 1001, 1), (1, 100000, 10), (11, 300000, 5)]


def test_keep_id_has_three_segments_as_podman() -> None:
    """TRAPS 3.2: 0..uid-1 from the first subids, uid is yourself, the rest above."""
    id_map = keep_id_map(IDS, UID, GID, UID, GID)
    assert triples(id_map.uids) == [(0, 100000, 1001), (1001, 1001, 1), (1002, 101001, 64535)]
    assert triples(id_map.gids) == [(0, 200000, 1002), (1002, 1002, 1), (1003, 201002, 64534)]


def test_keep_id_as_root_is_the_default_map() -> None:
    assert keep_id_map(IDS, UID, GID, 0, 0) == default_map(IDS, UID, GID)


def test_keep_id_above_the_range_cuts_it() -> None:
    id_map = keep_id_map(SubordinateIds([(100000, 10)], [(100000, 10)]), UID, GID, 5000, 5000)
    assert triples(id_map.uids) == [(0, 100000, 10), (5000, 1001, 1)]


def test_keep_id_without_ranges_is_that_one_id() -> None:
    id_map = keep_id_map(None, UID, GID, 33, 34)
    assert (triples(id_map.uids), triples(id_map.gids)) == ([(33, 1001, 1)], [(34, 1002, 1)])


def test_nomap_leaves_the_caller_out() -> None:
    id_map = nomap_map(IDS, UID, GID)
    assert triples(id_map.uids) == [(0, 100000, 65536)]
    assert id_map.to_container_uid(UID) is None
    with pytest.raises(HostLimit, match="needs a range"):
        nomap_map(None, UID, GID)


def test_identity_map_keeps_what_the_namespace_has() -> None:
    own = [Extent(0, 1001, 1), Extent(1, 100000, 10)]
    assert triples(identity_map(own, own).uids) == [(0, 0, 1), (1, 1, 10)]


def test_single_map_takes_any_container_id() -> None:
    id_map = single_map(999, 998, UID, GID)
    assert (id_map.to_host_uid(999), id_map.to_host_gid(998), id_map.to_host_uid(0)) == (1001, 1002, None)
    assert (id_map.first_uid(), id_map.first_gid()) == (999, 998)


def test_translation_both_ways() -> None:
    id_map = default_map(IDS, UID, GID)
    assert [id_map.to_host_uid(n) for n in (0, 1, 65536, 65537)] == [1001, 100000, 165535, None]
    assert [id_map.to_container_uid(n) for n in (1001, 100000, 165535, 0)] == [0, 1, 65536, None]
    assert id_map.has_gid(65536)
    assert not id_map.has_gid(65537)


def test_key_tells_layers_of_other_owners_apart() -> None:
    default, keep = default_map(IDS, UID, GID), keep_id_map(IDS, UID, GID, UID, GID)
    assert default.key() != keep.key()
    assert default.key() == default_map(IDS, UID, GID).key()
    assert single_map(0, 0, UID, GID).key() == single_map(5, 6, UID, GID).key() == "single"
    assert all(c.isalnum() for c in default.key())


def test_json_round_trip() -> None:
    id_map = keep_id_map(IDS, UID, GID, 7, 8)
    assert IdMap.from_json(id_map.to_json()) == id_map


class TestCustomMap:
    """--uidmap and --gidmap."""

    def test_from_is_an_id_of_the_default_map(self) -> None:
        id_map = custom_map(["0:0:1", "1000:1:10"], ["0:1:5"], IDS, UID, GID)
        assert triples(id_map.uids) == [(0, 1001, 1), (1000, 100000, 10)]
        assert triples(id_map.gids) == [(0, 200000, 5)]

    def test_one_of_the_two_serves_for_both(self) -> None:
        assert triples(custom_map(["0:1:5"], [], IDS, UID, GID).gids) == [(0, 200000, 5)]
        assert triples(custom_map([], ["0:1:5"], IDS, UID, GID).uids) == [(0, 100000, 5)]

    def test_at_sign_names_a_host_id(self) -> None:
        id_map = custom_map(["0:@100005:2"], ["0:0"], IDS, UID, GID)
        assert triples(id_map.uids) == [(0, 100005, 2)]
        assert triples(id_map.gids) == [(0, 1002, 1)]

    def test_splits_at_the_border_of_caller_and_range(self) -> None:
        assert triples(custom_map(["5:0:3"], ["0:0"], IDS, UID, GID).uids) == [(5, 1001, 1), (6, 100000, 2)]

    def test_without_a_range_the_caller_alone_can_be_mapped(self) -> None:
        id_map = custom_map(["33:0:1"], [], None, UID, GID)
        assert (id_map.kind, triples(id_map.uids)) == ("single", [(33, 1001, 1)])
        with pytest.raises(UsageError, match="only ids 0 to 0 are yours"):
            custom_map(["0:0:2"], [], None, UID, GID)

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            (["0:0:5", "3:10:5"], "container id 3 is mapped twice"),
            (["0:0:5", "10:4:5"], "host id 4 is mapped twice"),
            (["0:1:65537"], "only ids 0 to 65536 are yours"),
            (["0:0:0"], "size out of range"),
            (["4294967295:0:1"], "size out of range"),
            (["4294967290:0:100"], "size out of range"),
            (["0:@0:1"], "host id 0 is not yours"),
            (["-1:0:1"], "invalid --uidmap '-1:0:1'"),
            (["0:0:1:2"], "invalid --uidmap"),
            (["0"], "invalid --uidmap"),
            (["0:0:99999999999"], "invalid --uidmap"),
            (["\u0661:0:1"], "invalid --uidmap"),
            (["+0:0:1"], "invalid --uidmap"),
        ],
    )
    def test_refusals(self, values: list[str], reason: str) -> None:
        """CVE-2026-30892, CVE-2024-40635: no sign, no overflow, no trailing junk."""
        with pytest.raises(UsageError) as caught:
            custom_map(values, [], IDS, UID, GID)
        assert reason in caught.value.message


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 40)), min_size=1, max_size=5),
    st.integers(0, 300),
)
def test_every_map_is_one_to_one(gaps: list[tuple[int, int]], inside: int) -> None:
    start, ranges = 10000, []
    for gap, count in gaps:
        ranges.append((start + gap, count))
        start += gap + count
    ids = SubordinateIds(ranges, ranges)
    owned = sum(count for _, count in ranges)
    for id_map in (default_map(ids, 1000, 1000), keep_id_map(ids, 1000, 1000, inside, inside)):
        hosts = [id_map.to_host_uid(n) for n in range(owned + 400)]
        mapped = [h for h in hosts if h is not None]
        assert len(mapped) == len(set(mapped)) == owned + 1
        assert all(id_map.to_host_uid(id_map.to_container_uid(h) or 0) == h for h in mapped)
    assert keep_id_map(ids, 1000, 1000, inside, inside).to_host_uid(inside) == 1000
