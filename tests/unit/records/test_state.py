"""state.json: what is written is read again, older files are migrated, wrong ones are refused by file and key."""

from __future__ import annotations

import json

import pytest

from rootless.errors import InvalidInput
from rootless.records.port import Port
from rootless.records.state import NEVER, ContainerState, HealthResult, HealthState, NetworkFacts


def test_what_is_written_is_read_again() -> None:
    state = ContainerState()
    state.status, state.pid, state.pid_start, state.helpers = "running", 12, 345, [(13, 346)]
    state.health = HealthState("unhealthy", 2, [HealthResult("a", "b", 1, "no")])
    state.network = NetworkFacts("10.0.2.100", 24, "10.0.2.2", ports=[Port("", 8080, 80)])
    state.cgroup = {"version": 2, "path": "/x", "unit": ""}
    written = json.loads(json.dumps(state.to_json()))
    assert json.loads(json.dumps(ContainerState.from_json(written).to_json())) == written
    assert ContainerState.from_json(written).helpers == [(13, 346)]


def test_a_file_of_the_first_version_is_read() -> None:
    """It has no version, keys that we do not know are ignored, and missing ones take their defaults."""
    state = ContainerState.from_json({"status": "exited", "exit_code": 3, "health": None, "network": {}, "older": 1})
    assert (state.status, state.exit_code, state.started_at, state.cgroup) == ("exited", 3, NEVER, None)
    assert not state.is_running


@pytest.mark.parametrize(
    ("known", "complaint"),
    [
        ({"status": 3}, "'status' in '/c/state.json' is not a string"),
        ({"pid": "12"}, "'pid' in '/c/state.json' is not a whole number"),
        ({"pid": True}, "'pid' in '/c/state.json' is not a whole number"),
        ({"oom_killed": 1}, "'oom_killed' in '/c/state.json' is not true or false"),
        ({"helpers": [[1]]}, "'helpers[0]' in '/c/state.json' is not a pair of whole numbers"),
        ({"health": {"log": [{"exit_code": "1"}]}}, "'health.log[0].exit_code' in '/c/state.json' is not a whole"),
        ({"network": []}, "'network' in '/c/state.json' is not a JSON object"),
        ([], "'/c/state.json' is not a JSON object"),
    ],
)
def test_a_wrong_value_is_named(known: object, complaint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ContainerState.from_json(known, "/c/state.json")
    assert complaint in str(caught.value)


def test_a_newer_format_is_refused_with_a_remedy() -> None:
    with pytest.raises(InvalidInput, match="version 99") as caught:
        ContainerState.from_json({"version": 99, "status": "a word of 2031"}, "/c/state.json")
    assert "or a newer one" in (caught.value.hint or "")
