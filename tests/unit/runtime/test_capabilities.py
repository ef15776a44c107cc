"""Names, docker's arithmetic of --cap-add and --cap-drop, and the five sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import UsageError
from rootless.records.properties import Properties
from rootless.runtime import capabilities
from rootless.runtime.capabilities import DEFAULT, NAMES, capability_mask, effective_names, effective_sets
from rootless.runtime.spec.process_config import CapabilityNames


def test_the_table() -> None:
    assert len(NAMES) == len(set(NAMES)) == 41
    assert NAMES[0] == "CAP_CHOWN"
    assert NAMES.index("CAP_SYS_ADMIN") == 21
    assert NAMES.index("CAP_CHECKPOINT_RESTORE") == 40
    assert len(DEFAULT) == 14
    assert capability_mask(DEFAULT) == 0xA80425FB  # what `docker run` shows in CapEff


@pytest.mark.parametrize("name", ["net_raw", "NET_RAW", "cap_net_raw", "CAP_NET_RAW", " Net_Raw "])
def test_spellings(name: str) -> None:
    assert capabilities.normalise_capability(name) == "CAP_NET_RAW"


@pytest.mark.parametrize("name", ["", "CAP_", "CAP_NONSENSE", "-1", "NET RAW"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="unknown capability"):
        effective_names([name])


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], set(DEFAULT)),
        (["sys_admin"], [], {*DEFAULT, "CAP_SYS_ADMIN"}),
        ([], ["chown"], set(DEFAULT) - {"CAP_CHOWN"}),
        ([], ["ALL"], set()),
        (["chown"], ["all"], {"CAP_CHOWN"}),
        (["ALL"], [], set(NAMES)),
        (["ALL"], ["sys_admin"], set(NAMES) - {"CAP_SYS_ADMIN"}),
        (["ALL"], ["ALL"], set(NAMES)),
        (["chown"], ["chown"], set(DEFAULT)),
    ],
)
def test_add_and_drop(add: list[str], drop: list[str], expected: set[str]) -> None:
    assert effective_names(add, drop) == sorted(expected)


def test_privileged_has_everything() -> None:
    assert effective_names(drop=["ALL"], privileged=True) == sorted(NAMES)


def test_inheritable_and_ambient_are_empty_for_root() -> None:
    """CVE-2022-27649, CVE-2022-29162, CVE-2022-27650, GO-2022-0390."""
    sets = effective_sets(["sys_admin"])
    assert sets.inheritable == sets.ambient == 0
    assert sets.effective == sets.permitted == sets.bounding == capability_mask([*DEFAULT, "CAP_SYS_ADMIN"])


def test_another_user_keeps_only_what_was_added_by_name() -> None:
    plain = effective_sets(uid=1000)
    assert plain.effective == plain.permitted == plain.inheritable == plain.ambient == 0
    assert plain.bounding == capability_mask(DEFAULT)
    added = effective_sets(["net_admin"], uid=1000)
    assert added.ambient == added.effective == capability_mask(["CAP_NET_ADMIN"])
    assert added.bounding == capability_mask([*DEFAULT, "CAP_NET_ADMIN"])
    assert effective_sets(["ALL"], uid=1000).ambient == 0
    assert effective_sets(privileged=True, uid=1000).effective == 0


def from_oci(given: dict[str, list[str]]) -> capabilities.CapabilitySets:
    return capabilities.from_oci(CapabilityNames.from_json(Properties(given)))


def test_unknown_capabilities_of_a_bundle_are_reported_not_fatal() -> None:
    """runtime-spec: what cannot be granted SHOULD NOT fail the start."""
    sets = from_oci({"bounding": ["CAP_KILL", "CAP_FUTURE"], "permitted": ["cap_kill"]})
    assert sets.warnings == ["capabilities not known to this kernel: CAP_FUTURE"]
    assert sets.bounding == sets.permitted == capability_mask(["CAP_KILL"])


def test_sets_the_kernel_would_refuse_are_cut() -> None:
    sets = from_oci({"effective": ["CAP_KILL"], "ambient": ["CAP_KILL"], "inheritable": ["CAP_KILL"]})
    assert sets.effective == sets.ambient == 0
    assert sets.warnings == [
        "can't make capability CAP_KILL effective: it is not in the permitted set",
        "can't raise ambient capability CAP_KILL: it is not in the permitted set",
    ]
    sets = from_oci({"permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]})
    assert sets.warnings == ["can't raise ambient capability CAP_KILL: it is not in the inheritable set"]
    assert capabilities.from_oci(None).bounding == 0


@given(st.sets(st.sampled_from(NAMES)))
def test_names_and_masks_are_inverse(wanted: set[str]) -> None:
    assert set(capabilities.capability_names(capability_mask(wanted))) == wanted


@given(st.lists(st.sampled_from(NAMES)), st.lists(st.sampled_from(NAMES)))
def test_round_trip_through_oci(add: list[str], drop: list[str]) -> None:
    sets = effective_sets(add, drop)
    again = from_oci(sets.to_oci())
    assert (again.bounding, again.effective, again.ambient) == (sets.bounding, sets.effective, sets.ambient)


def test_the_kernel_itself_says_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc may be a container's: the answer must not come from there."""
    known = int(Path("/proc/sys/kernel/cap_last_cap").read_text())

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(os, "open", refuse)
    assert capabilities.last_capability() == known
