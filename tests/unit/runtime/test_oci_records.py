"""state.json of rootless-oci: what earlier versions wrote, and what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rootless.errors import InvalidInput
from rootless.runtime.oci.oci_records import OciFacts, Records

EARLIER = {
    "ociVersion": "1.0.2",
    "bundle": "/b",
    "rootfs": "/b/rootfs",
    "created": "2025-01-01T00:00:00Z",
    "boot_id": "another",
    "annotations": {"a": "b"},
    "pid": 12,
    "pid_start": 34,
}


def make(root: Path, content: object) -> Records:
    (root / "c").mkdir()
    (root / "c" / "state.json").write_text(json.dumps(content))
    return Records(str(root))


def test_the_record_of_an_earlier_version(tmp_path: Path) -> None:
    record = make(tmp_path, EARLIER).get("c")
    assert (record.pid, record.facts.pid_start, record.facts.cgroup) == (12, 34, None)
    assert record.status() == "stopped"  # it was made in another boot
    state = record.oci_state().to_json()
    assert state["pid"] == 0 and state["annotations"] == {"a": "b"} and state["rootfs"] == "/b/rootfs"
    assert record.oci_state("created").pid == 12


def test_what_is_written_is_read_again() -> None:
    facts = OciFacts.from_json(EARLIER, "state.json")
    facts.cgroup = {"version": 2, "path": "/sys/fs/cgroup/x", "unit": ""}
    assert OciFacts.from_json(facts.to_json(), "state.json").to_json() == facts.to_json()


@pytest.mark.parametrize("change", [{"pid": "12"}, {"bundle": None}, {"annotations": {"a": 1}}, {"cgroup": "x"}])
def test_a_damaged_record_is_named_and_not_listed(tmp_path: Path, change: dict[str, object]) -> None:
    records = make(tmp_path, {**EARLIER, **change})
    with pytest.raises(InvalidInput, match=f"{next(iter(change))}.*state.json"):
        records.get("c")
    assert records.all() == []


def test_a_container_killed_before_it_had_a_record(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    record = Records(str(tmp_path)).get("c")
    assert not record.is_complete and record.status() == "creating" and Records(str(tmp_path)).all() == []
