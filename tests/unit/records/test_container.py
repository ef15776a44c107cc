"""record.json: what is written is read again, older files take defaults, wrong ones are refused by file and key."""

from __future__ import annotations

import json

import pytest

from rootless.errors import InvalidInput
from rootless.records.container import ContainerNeeds, ContainerRecord, RecordedMount, RecordedNetwork, StopSettings
from rootless.records.container_options import ContainerOptions
from rootless.records.id_map import IdMap
from rootless.records.launch import HealthPlan, RestartPlan
from rootless.records.port import Port

ID_MAP = {"kind": "single", "uids": [[0, 1001, 1]], "gids": [[0, 1001, 1]]}
OLDEST = {"id": "c0ffee", "name": "web", "id_map": ID_MAP}


def make_record() -> ContainerRecord:
    record = ContainerRecord("c0ffee", "web", IdMap.from_json(ID_MAP))
    record.created, record.image = 1796016319.8640332, "busybox:1"
    record.layers, record.volumes, record.manifest_digest = ["sha256:1"], ["data"], "sha256:2"
    record.options = ContainerOptions("busybox:1", ("true",))
    record.network = RecordedNetwork("pasta", None, [Port("", 8080, 80)])
    mount = RecordedMount("volume", "/v/data/_data", "/data", name="data", read_only=True)
    mount.options, mount.nocopy, mount.anonymous = ("noatime",), True, True
    record.mounts = [mount]
    record.stop, record.restart = StopSettings(2, -1), RestartPlan("on-failure", 3)
    record.health = HealthPlan(["CMD", "true"])
    record.command, record.default_home = ["true"], True
    return record


def test_what_is_written_is_read_again() -> None:
    written = json.loads(json.dumps(make_record().to_json()))
    again = ContainerRecord.from_json(written)
    assert json.loads(json.dumps(again.to_json())) == written
    assert (again.network.ports, again.mounts[0].options) == ([Port("", 8080, 80)], ("noatime",))
    assert (again.stop.signal, again.stop.timeout, again.restart.name) == (2, -1, "on-failure")


def test_a_file_of_the_first_version_is_read() -> None:
    """It has no version, keys that we do not know are ignored, and missing ones take their defaults."""
    record = ContainerRecord.from_json({**OLDEST, "older": 1, "health": None, "network": {"mode": "host"}})
    assert (record.network.mode, record.network.container, record.network.ports) == ("host", None, [])
    assert (record.stop.signal, record.stop.timeout, record.restart.name, record.health) == (15, 10, "no", None)
    assert record.id_map == IdMap.from_json(ID_MAP)


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"name": None}, "'name' in '/c/record.json' is not a string"),
        ({"id_map": None}, "'id_map' in '/c/record.json' is not a JSON object"),
        ({"labels": {"a": 1}}, "'labels.a' in '/c/record.json' is not a string"),
        ({"mounts": [{"kind": "bind"}]}, "'mounts[0].target' in '/c/record.json' is not a string"),
        ({"network": {"ports": [{}]}}, "'network.ports[0].container_port' in '/c/record.json' is not a whole number"),
        ({"stop": {"stop_timeout": "10"}}, "'stop.stop_timeout' in '/c/record.json' is not a whole number"),
        ({"options": []}, "'options' in '/c/record.json' is not a JSON object"),
        ({"version": 2}, "version 2"),
    ],
)
def test_a_wrong_value_is_named(members: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ContainerRecord.from_json({**OLDEST, **members}, "/c/record.json")
    assert complaint in str(caught.value)


def test_what_is_needed_of_the_store_is_read_by_itself() -> None:
    needs = ContainerNeeds.from_json({**make_record().to_json(), "labels": 7, "id_map": None})
    assert (needs.layers, needs.manifest_digest, needs.volumes) == (["sha256:1"], "sha256:2", ["data"])
    assert not needs.mounts_images
    mounts = [{"kind": "image", "source": "busybox", "target": "/img"}]
    assert ContainerNeeds.from_json({"id": "c0ffee", "mounts": mounts}).mounts_images
    with pytest.raises(InvalidInput, match="version 99"):
        ContainerNeeds.from_json({"version": 99})
