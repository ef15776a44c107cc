"""Records of networks with addresses that no network has."""

from __future__ import annotations

import pytest

from rootless.errors import InvalidInput
from rootless.records.network_record import NetworkRecord

GOOD = {"name": "n", "id": "1" * 64, "subnet": "10.89.0.0/24", "gateway": "10.89.0.1", "ip_range": "10.89.0.128/25"}


def test_a_good_record_is_read() -> None:
    assert NetworkRecord.from_json(GOOD, "file").ip_range == "10.89.0.128/25"
    assert NetworkRecord.from_json({**GOOD, "ip_range": ""}, "file").gateway == "10.89.0.1"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("subnet", "x"),
        ("subnet", "10.89.0.0/-5"),
        ("subnet", "fd00::/64"),
        ("subnet", "10.90.0.0/24"),
        ("gateway", "10.90.0.1"),
        ("gateway", "x"),
        ("ip_range", "10.0.0.0/8"),
        ("ip_range", "x"),
    ],
)
def test_a_damaged_one_is_named(key: str, value: str) -> None:
    with pytest.raises(InvalidInput, match="'file' has no subnet"):
        NetworkRecord.from_json({**GOOD, key: value}, "file")
