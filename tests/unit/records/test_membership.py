"""What a container has on networks with names, as files keep it."""

from __future__ import annotations

import pytest

from rootless.errors import InvalidInput
from rootless.records.fields import Fields
from rootless.records.launch import NetworkPlan
from rootless.records.membership import Attachment, MemberFile, Membership
from rootless.records.network_record import NetworkRecord
from rootless.records.port import Port
from rootless.records.state import NetworkFacts


def attachment() -> Attachment:
    made = Attachment("net", "ab" * 32, "10.90.0.0/24", "10.90.0.1")
    made.ip_range, made.mtu, made.internal, made.names = "10.90.0.128/25", 1400, True, False
    made.aliases, made.ip, made.mac = ["a"], "10.90.0.5", "02:42:0a:5a:00:05"
    return made


def test_all_of_it_is_read_back() -> None:
    membership = Membership("cd" * 32, "web", [attachment()])
    membership.ports, membership.dns = [Port("", 8080, 80)], ["192.0.2.1"]
    file = MemberFile(membership, (42, 1000), 7)
    file.shared_fds = {"ab" * 32: 9}
    again = MemberFile.from_json(file.to_json(), "x.json")
    assert again.to_json() == file.to_json()
    assert again.membership.attachments[0].prefix == 24
    plan = NetworkPlan("bridge")
    plan.attachments, plan.host_names = [attachment()], "web"
    assert NetworkPlan.from_json(Fields(plan.to_json(), "launch.json")).to_json() == plan.to_json()
    facts = NetworkFacts("10.90.0.5", 24)
    facts.attachments = [attachment()]
    assert NetworkFacts.from_json(Fields(facts.to_json(), "state.json")).to_json() == facts.to_json()
    record = NetworkRecord("net", "ab" * 32, subnet="10.90.0.0/24", gateway="10.90.0.1")
    record.labels, record.internal = {"a": "b"}, True
    assert NetworkRecord.from_json(record.to_json(), "net.json").to_json() == record.to_json()


@pytest.mark.parametrize(("key", "value"), [("version", 2), ("pid", "1"), ("membership", None), ("shared_fds", [1])])
def test_what_is_wrong_is_named(key: str, value: object) -> None:
    known = MemberFile(Membership("cd" * 32, "web", []), (42, 1000), 7).to_json()
    with pytest.raises(InvalidInput):
        MemberFile.from_json({**known, key: value}, "x.json")
