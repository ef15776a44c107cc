"""OCI resources as files of both versions: every conversion, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from rootless.errors import InvalidInput
from rootless.records.resource_limits import Resources
from rootless.runtime.cgroups import version1, version2


def two(resources: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(s.controller, s.name, s.value) for s in version2.settings(Resources.from_json(resources))]


def one(resources: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(s.controller, s.name, s.value) for s in version1.settings(Resources.from_json(resources))]


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(1, 1), (2, 1), (1024, 100), (512, 59), (2048, 174), (262144, 10000), (1 << 30, 10000)],
)
def test_shares_become_a_weight_and_both_defaults_are_the_same(shares: int, weight: int) -> None:
    assert abs(version2.weight_of_shares(shares) - weight) <= 1


def test_weights_grow_with_shares() -> None:
    weights = [version2.weight_of_shares(n) for n in range(2, 262145, 997)]
    assert weights == sorted(weights) and min(weights) == 1 and max(weights) <= 10000


@pytest.mark.parametrize(("weight", "io"), [(10, 1), (500, 4950), (1000, 10000)])
def test_block_io_weights(weight: int, io: int) -> None:
    assert two({"blockIO": {"weight": weight}}) == [("io", "io.weight", f"default {io}")]


def test_swap_of_version_2_is_swap_alone() -> None:
    """Trap (runtime-spec, cgroup v2): swap = memory + swap → swap only."""
    memory = {"limit": 100, "swap": 250, "reservation": 50}
    assert two({"memory": memory}) == [
        ("memory", "memory.swap.max", "150"),
        ("memory", "memory.max", "100"),
        ("memory", "memory.low", "50"),
    ]
    assert two({"memory": {"limit": 100, "swap": 100}})[0][2] == "0"
    assert two({"memory": {"limit": 100, "swap": -1}})[0][2] == "max"
    assert two({"memory": {"limit": -1}}) == [("memory", "memory.max", "max")]
    assert one({"memory": {"limit": 100, "swap": 250}})[1] == ("memory", "memory.memsw.limit_in_bytes", "250")


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ({"swap": 100}, "memory.swap' needs 'memory.limit'"),
        ({"limit": 100, "swap": 50}, "memory.swap' is below"),
        ({"limit": 100, "reservation": 200}, "memory.reservation' is above"),
        ({"swappiness": 10}, "memory.swappiness' cannot be had"),
        ({"disableOOMKiller": True}, "memory.disableOOMKiller' cannot be had"),
        ({"limit": "100"}, "memory.limit' must be a whole number"),
        ({"limit": True}, "memory.limit' must be a whole number"),
        ([1], "memory' must be an object"),
    ],
)
def test_what_memory_cannot_be_is_named(memory: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        version2.settings(Resources.from_json({"memory": memory}))


def test_version_1_has_what_version_2_lost() -> None:
    found = one({"memory": {"limit": 5, "swappiness": 10, "disableOOMKiller": True}})
    assert ("memory", "memory.swappiness", "10") in found and ("memory", "memory.oom_control", "1") in found


@pytest.mark.parametrize(
    ("cpu", "written"),
    [
        ({"quota": 50000, "period": 100000}, [("cpu", "cpu.max", "50000 100000")]),
        ({"quota": 50000}, [("cpu", "cpu.max", "50000 100000")]),
        ({"quota": -1, "period": 20000}, [("cpu", "cpu.max", "max 20000")]),
        ({"period": 20000}, [("cpu", "cpu.max", "max 20000")]),
        ({"idle": 1}, [("cpu", "cpu.idle", "1")]),
        ({"burst": 5000}, [("cpu", "cpu.max.burst", "5000")]),
        ({"cpus": "0-1", "mems": "0"}, [("cpuset", "cpuset.cpus", "0-1"), ("cpuset", "cpuset.mems", "0")]),
        ({"quota": 0, "shares": 0}, []),
    ],
)
def test_cpu(cpu: dict[str, Any], written: list[tuple[str, str, str]]) -> None:
    assert two({"cpu": cpu}) == written


def test_real_time_is_refused_in_version_2() -> None:
    with pytest.raises(InvalidInput, match=r"cpu\.realtimeRuntime"):
        two({"cpu": {"realtimeRuntime": 1000}})
    assert one({"cpu": {"realtimeRuntime": 1000}}) == [("cpu", "cpu.rt_runtime_us", "1000")]


@pytest.mark.parametrize(("limit", "value"), [(0, "0"), (20, "20"), (-1, "max")])
def test_a_limit_of_no_processes_is_valid(limit: int, value: str) -> None:
    """Trap (runtime-spec): pids limit 0 is valid, and not "no limit"."""
    found = version2.settings(Resources.from_json({"pids": {"limit": limit}, "memory": {"limit": 1 << 30}}))
    assert found[-1].value == value and found[-1].is_late


def test_throttles_name_the_device() -> None:
    entry = {"major": 8, "minor": 16, "rate": 1048576}
    assert two({"blockIO": {"throttleReadBpsDevice": [entry], "throttleWriteIOPSDevice": [{**entry, "rate": 0}]}}) == [
        ("io", "io.max", "8:16 rbps=1048576"),
        ("io", "io.max", "8:16 wiops=max"),
    ]
    assert one({"blockIO": {"throttleReadBpsDevice": [entry]}}) == [
        ("blkio", "blkio.throttle.read_bps_device", "8:16 1048576")
    ]
    with pytest.raises(InvalidInput, match="'major' and 'minor'"):
        two({"blockIO": {"throttleReadBpsDevice": [{"rate": 5}]}})


def test_unknown_unified_keys_are_still_written() -> None:
    """Trap (runtime-spec): unknown `unified` keys still written."""
    keys = {
        "memory.high": "1000",
        "newthing.max": "5",
        "cgroup.max.descendants": "3",
        "io.max": "8:0 rbps=1\n8:1 rbps=2",
    }
    assert two({"unified": keys}) == [
        ("memory", "memory.high", "1000"),
        ("newthing", "newthing.max", "5"),
        ("", "cgroup.max.descendants", "3"),
        ("io", "io.max", "8:0 rbps=1"),
        ("io", "io.max", "8:1 rbps=2"),
    ]


@pytest.mark.parametrize(
    "key", ["../memory.max", "memory", "memory.", "a/b.c", "cgroup.procs", "cgroup.subtree_control"]
)
def test_unified_keys_lead_nowhere_else(key: str) -> None:
    """Trap CVE-2023-25809: no write outside of the container's own cgroup."""
    with pytest.raises(InvalidInput, match="unified"):
        two({"unified": {key: "1"}})


def test_unified_keys_are_refused_in_version_1() -> None:
    with pytest.raises(InvalidInput, match="unified"):
        one({"unified": {"memory.max": "1"}})


def test_what_version_1_took_and_dropped() -> None:
    rdma = {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 9}}}
    found = version1.settings(Resources.from_json(rdma))
    assert [(s.controller, s.name, s.value) for s in found] == [
        ("rdma", "rdma.max", "mlx5_1 hca_handle=3 hca_object=9")
    ]
    with pytest.raises(InvalidInput, match=r"network\.classID' cannot be had"):
        version1.settings(Resources.from_json({"network": {"classID": 7}}))


def test_huge_pages_and_rdma() -> None:
    resources = {
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 9}},
    }
    assert two(resources) == [
        ("hugetlb", "hugetlb.2MB.max", "4"),
        ("rdma", "rdma.max", "mlx5_1 hca_handle=3 hca_object=9"),
    ]
    with pytest.raises(InvalidInput, match="hugepageLimits"):
        two({"hugepageLimits": [{"pageSize": "../x", "limit": 4}]})


@pytest.mark.parametrize(
    ("resources", "asked"),
    [
        ({}, False),
        ({"devices": [{"allow": False}]}, False),
        ({"pids": {"limit": -1}}, False),
        ({"memory": {}, "cpu": {"cpus": ""}}, False),
        ({"memory": {"limit": None}}, False),
        ({"pids": {"limit": 0}}, True),
        ({"cpu": {"shares": 5}}, True),
        ({"unified": {"memory.high": "5"}}, True),
    ],
)
def test_what_counts_as_a_limit(resources: dict[str, Any], asked: bool) -> None:
    assert Resources.from_json(resources).is_asked is asked
