"""launch.json: what is written is read again, older files take defaults, wrong ones are refused by file and key."""

from __future__ import annotations

import json

import pytest

from rootless.errors import InvalidInput
from rootless.records.launch import EventsPlan, HealthPlan, LaunchPlan, LogPlan, RemovePlan

ID_MAP = {"kind": "range", "uids": [[0, 1001, 1]], "gids": [[0, 1001, 1]]}


def test_what_is_written_is_read_again() -> None:
    plan = LaunchPlan("c0ffee", ID_MAP)
    plan.log = LogPlan("json-file", "/c/log", -1, 2)
    plan.events = EventsPlan("/events.log", {"name": "a"})
    plan.remove = RemovePlan("/names/a", "/c", ["/volumes/v"])
    plan.health = HealthPlan(["CMD", "true"])
    plan.stop_timeout = -1
    written = json.loads(json.dumps(plan.to_json()))
    assert LaunchPlan.from_json(written).to_json() == written


def test_a_file_of_the_first_version_takes_defaults() -> None:
    plan = LaunchPlan.from_json({"id": "c0ffee", "id_map": ID_MAP, "restart": {}, "stop_timeout": None, "older": 1})
    assert (plan.restart.name, plan.network.mode, plan.log.driver, plan.stop_signal) == ("no", "none", "none", 15)
    assert plan.stop_timeout < 0, "null has always meant: never kill"
    assert LaunchPlan.from_json({"id": "c0ffee", "id_map": ID_MAP}).stop_timeout == 10


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
        ({"version": 9}, "version 9"),
    ],
)
def test_a_wrong_value_is_named(members: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        LaunchPlan.from_json({"id": "c0ffee", "id_map": ID_MAP, **members}, "/c/launch.json")
    assert complaint in str(caught.value)
