"""launch.json: what is written is read again, older files take defaults, wrong ones are refused by file and key."""

from __future__ import annotations

import json

import pytest

from rootless.errors import InvalidInput
from rootless.records.id_map import IdMap
from rootless.records.launch import (
    CgroupPlan,
    EventsPlan,
    HealthPlan,
    LaunchPlan,
    LogPlan,
    NetworkPlan,
    RemovePlan,
    RootEmulation,
    SeccompListener,
    VolumeSeed,
)
from rootless.records.port import Port
from rootless.records.resource_limits import Resources
from rootless.records.rootfs import RootfsPlan

ID_MAP_JSON = {"kind": "range", "uids": [[0, 1001, 1]], "gids": [[0, 1001, 1]]}
LIMITS = {
    "memory": {"limit": 8, "swap": -1, "reservation": 4, "swappiness": 0, "disableOOMKiller": True},
    "cpu": {"period": 9, "quota": 8, "burst": 7, "shares": 6, "idle": 1, "cpus": "0-3", "mems": "0"}
    | {"realtimeRuntime": 5, "realtimePeriod": 6},
    "pids": {"limit": 0},
    "blockIO": {"weight": 10, "leafWeight": 11, "weightDevice": [{"major": 8, "minor": 0, "weight": 12}]}
    | {
        f"throttle{name}Device": [{"major": 8, "minor": 1, "rate": number}]
        for number, name in enumerate(("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS"))
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
    "rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 9}},
    "unified": {"memory.high": "1g"},
}
ID_MAP = IdMap.from_json(ID_MAP_JSON)


def test_what_is_written_is_read_again() -> None:
    plan = LaunchPlan("c0ffee", ID_MAP)
    plan.log = LogPlan("json-file", "/c/log", -1, 2)
    plan.events = EventsPlan("/events.log", {"name": "a"})
    plan.remove = RemovePlan("/names/a", "/c", ["/volumes/v"])
    plan.health = HealthPlan(["CMD", "true"])
    plan.network = NetworkPlan("pasta", [Port("127.0.0.1", 8080, 80), Port("", 90, 90, "udp", 99)], ["1.1.1.1"])
    plan.outer_map = ID_MAP
    plan.stop_timeout = -1
    plan.seed_volumes = [VolumeSeed("/volumes/v", "/data")]
    plan.seccomp_listener = SeccompListener("/run/agent", "m")
    plan.root_emulation = RootEmulation("", "/cache/plain", {"c000003e:92": "chown"})
    plan.cgroup = CgroupPlan("split", "/a", Resources.from_json(LIMITS), strict=True)
    plan.rootfs = RootfsPlan("overlay", "/c", ["/l2", "/l1"], volatile=True)
    written = json.loads(json.dumps(plan.to_json()))
    again = LaunchPlan.from_json(written)
    assert again.to_json() == written and written["cgroup"]["resources"] == LIMITS
    assert (again.id_map, again.outer_map, again.network.ports) == (ID_MAP, ID_MAP, plan.network.ports)


def test_a_file_of_the_first_version_takes_defaults() -> None:
    plan = LaunchPlan.from_json(
        {"id": "c0ffee", "id_map": ID_MAP_JSON, "restart": {}, "stop_timeout": None, "older": 1}
    )
    assert (plan.restart.name, plan.network.mode, plan.log.driver, plan.stop_signal) == ("no", "none", "none", 15)
    assert plan.stop_timeout < 0, "null has always meant: never kill"
    assert LaunchPlan.from_json({"id": "c0ffee", "id_map": ID_MAP_JSON}).stop_timeout == 10


def test_an_agent_without_a_socket_and_an_emulation_without_filters_are_none() -> None:
    members = {"seccomp_listener": {"listenerPath": "", "listenerMetadata": "m"}, "root_emulation": {}}
    plan = LaunchPlan.from_json({"id": "c0ffee", "id_map": ID_MAP_JSON, **members})
    assert (plan.seccomp_listener, plan.root_emulation) == (None, None)


def test_a_new_name_is_everywhere() -> None:
    plan = LaunchPlan("c0ffee", ID_MAP)
    plan.events = EventsPlan("/events.log", {"name": "a"})
    plan.remove = RemovePlan("/names/a", "/c", [])
    plan.rename("b", "/names")
    assert (plan.name, plan.events.attributes["name"], plan.remove.name_file) == ("b", "b", "/names/b")


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"id": None}, "'id' in '/c/launch.json' is not a string"),
        ({"cgroup": {"strict": "yes"}}, "'cgroup.strict' in '/c/launch.json' is not true or false"),
        ({"health": {"test": [1]}}, "'health.test[0]' in '/c/launch.json' is not a string"),
        ({"id_map": None}, "'id_map' in '/c/launch.json' is not a JSON object"),
        ({"id_map": {"kind": "range", "uids": [[0, 1]]}}, "'id_map.uids[0]' in '/c/launch.json' is not three whole"),
        ({"outer_map": {"uids": []}}, "'outer_map.kind' in '/c/launch.json' is not a string"),
        ({"network": {"ports": [{"container_port": "80"}]}}, "'network.ports[0].container_port' in '/c/launch.json'"),
        ({"version": 9}, "version 9"),
        ({"seed_volumes": [{"source": "/v"}]}, "'seed_volumes[0].target' in '/c/launch.json' is not a string"),
        ({"root_emulation": {"plain": 1}}, "'root_emulation.plain' in '/c/launch.json' is not a string"),
        ({"rootfs": {"driver": "copy", "directory": 1}}, "'rootfs.directory' in '/c/launch.json' is not a string"),
    ],
)
def test_a_wrong_value_is_named(members: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        LaunchPlan.from_json({"id": "c0ffee", "id_map": ID_MAP_JSON, **members}, "/c/launch.json")
    assert complaint in str(caught.value)
