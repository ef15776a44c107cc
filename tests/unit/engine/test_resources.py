"""Limits from flags to OCI resources, and what becomes of those that a host cannot enforce."""

from __future__ import annotations

from typing import Any

import pytest

from rootless.engine import events
from rootless.engine.plan.launchfile import cgroup_settings
from rootless.engine.plan.resources import judge, resources
from rootless.engine.plan.security import ProcessLimit
from rootless.engine.settings import Settings
from rootless.errors import HostLimit, UsageError
from rootless.host.cgroups import Delegation
from rootless.records.container_options import ContainerOptions
from rootless.records.launch import CgroupPlan
from rootless.storage.store.eventlog import EventEntry

MIB = 1 << 20
NOTHING = Delegation("none", reason="this host has none", remedy="ask for some")


def options(**flags: Any) -> ContainerOptions:
    return ContainerOptions("image", **flags)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ({}, {}),
        ({"memory": "64m"}, {"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}),
        ({"memory": "64m", "memory_swap": "-1"}, {"memory": {"limit": 64 * MIB, "swap": -1}}),
        ({"memory": "64m", "memory_swap": "64m"}, {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}),
        ({"memory": "0"}, {}),
        ({"memory_reservation": "32m"}, {"memory": {"reservation": 32 * MIB}}),
        ({"memory_swappiness": -1}, {}),
        ({"cpus": "0.5"}, {"cpu": {"period": 100000, "quota": 50000}}),
        ({"cpus": "0"}, {}),
        ({"cpu_quota": 20000, "cpu_period": 50000}, {"cpu": {"quota": 20000, "period": 50000}}),
        (
            {"cpu_shares": 512, "cpuset_cpus": "0", "cpuset_mems": "0"},
            {"cpu": {"shares": 512, "cpus": "0", "mems": "0"}},
        ),
        ({"pids_limit": 100}, {"pids": {"limit": 100}}),
        ({"pids_limit": 0}, {"pids": {"limit": -1}}),
        ({"blkio_weight": 100}, {"blockIO": {"weight": 100}}),
        ({"cgroup_conf": ("memory.high=1g", "cpu.idle=1")}, {"unified": {"memory.high": "1g", "cpu.idle": "1"}}),
    ],
)
def test_flags_become_resources(flags: dict[str, Any], found: dict[str, Any]) -> None:
    limits = resources(options(**flags))
    assert ({} if limits is None else limits.to_json()) == found


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"memory": "5m"}, "--memory 5m is too little"),
        ({"memory": "x"}, "not a size"),
        ({"memory_swap": "64m"}, "--memory-swap needs --memory"),
        ({"memory": "64m", "memory_swap": "32m"}, "--memory-swap 32m is less"),
        ({"memory": "64m", "memory_reservation": "65m"}, "--memory-reservation 65m is more"),
        ({"cpus": "9999"}, "more than this host has"),
        ({"cpus": "nan"}, "not a number of CPUs"),
        ({"cpus": "0.001"}, "too little"),
        ({"cpus": "1", "cpu_quota": 5000}, "conflicting options"),
        ({"cpu_period": 10}, "out of range"),
        ({"cpu_quota": 10}, "too little"),
        ({"cpu_shares": 1}, "out of range"),
        ({"cpuset_cpus": "0-"}, "no list of numbers"),
        ({"cpuset_cpus": "3-1"}, "no list of numbers"),
        ({"cpuset_mems": "a"}, "no list of numbers"),
        ({"pids_limit": -2}, "negative"),
        ({"blkio_weight": 5}, "out of range"),
        ({"device_read_bps": ("/dev/null:1mb",)}, "no block device"),
        ({"device_read_iops": ("/dev/sda",)}, "write it like"),
        ({"cgroup_conf": ("../x=1",)}, "--cgroup-conf"),
        ({"cgroup_conf": ("memory.high",)}, "--cgroup-conf"),
    ],
)
def test_what_cannot_be_right_names_the_flag(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as e:
        resources(options(**flags))
    assert said in str(e.value)


def test_limits_want_a_cgroup() -> None:
    with pytest.raises(UsageError, match="conflicting options"):
        cgroup_settings(options(memory="64m", cgroups="disabled"), Settings())
    assert cgroup_settings(options(cgroups="disabled"), Settings()).mode == "disabled"


def test_flags_win_over_settings() -> None:
    settings = Settings(cgroups="split", cgroup_parent="/a", strict_limits=True)
    assert cgroup_settings(options(), settings).to_json() == {
        "mode": "split",
        "parent": "/a",
        "resources": {},
        "strict": True,
    }
    told = cgroup_settings(options(cgroups="enabled", cgroup_parent="", strict_limits=False), settings)
    assert (told.mode, told.parent, told.strict) == ("enabled", "", False)


def wanted(*, strict: bool = False, **flags: Any) -> CgroupPlan:
    return cgroup_settings(options(strict_limits=strict, **flags), Settings())


def test_a_limit_without_effect_is_one_line_with_controller_cause_and_remedy() -> None:
    verdict = judge(wanted(memory="64m", pids_limit=10, cpus="1"), NOTHING)
    assert "\n" not in verdict.warning
    for words in (
        "--memory",
        "--pids-limit",
        "--cpus",
        "'memory'",
        "this host has none",
        "ask for some",
        "RLIMIT_DATA",
    ):
        assert words in verdict.warning
    assert "--memory-swap" not in verdict.warning, "nobody has asked for that"
    assert ProcessLimit("RLIMIT_DATA", 64 * MIB, 64 * MIB) in verdict.rlimits


def test_strict_limits_are_an_error() -> None:
    with pytest.raises(HostLimit, match="limits cannot be enforced: --cpu-shares: controller 'cpu'") as e:
        judge(wanted(strict=True, cpu_shares=5), NOTHING)
    assert e.value.hint == "ask for some"


def test_what_is_delegated_is_no_news() -> None:
    verdict = judge(wanted(memory="64m"), Delegation("scope", controllers=("memory",)))
    assert verdict == ("", ())


def test_the_users_own_ulimit_is_kept() -> None:
    assert judge(wanted(memory="64m"), NOTHING, given_rlimits={"RLIMIT_DATA"}).rlimits == ()


@pytest.mark.parametrize("flags", [{"memory_swappiness": 10}, {"oom_kill_disable": True}])
def test_version_2_refuses_what_it_does_not_have(flags: dict[str, Any]) -> None:
    flag = "--" + next(iter(flags)).replace("_", "-")
    with pytest.raises(UsageError, match=f"{flag} cannot be had"):
        judge(wanted(**flags), Delegation("scope", controllers=("memory",)))
    assert judge(wanted(**flags), Delegation("v1", controllers=("memory",))).warning == ""


EVENT = EventEntry(
    "container",
    "health_status: healthy",
    "abcdef123456",
    {"name": "web", "image": "docker.io/library/nginx:1", "tier": "a"},
)


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({}, True),
        ({"type": ["image", "container"]}, True),
        ({"type": ["image"]}, False),
        ({"event": ["health_status"]}, True),
        ({"event": ["die"]}, False),
        ({"container": ["web"]}, True),
        ({"container": ["abcdef"]}, True),
        ({"container": ["we"]}, False),
        ({"image": ["nginx"]}, True),
        ({"image": ["nginx:1"]}, True),
        ({"image": ["nginx:2"]}, False),
        ({"label": ["tier=a"]}, True),
        ({"label": ["tier=b"]}, False),
        ({"volume": ["web"]}, False),
        ({"type": ["container"], "event": ["die"]}, False),
    ],
)
def test_filters_of_events(filters: dict[str, list[str]], passes: bool) -> None:
    assert events.passes(EVENT, filters) is passes
