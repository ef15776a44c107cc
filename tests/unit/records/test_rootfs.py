"""A storage driver's plan: the keys on disk are those of earlier versions."""

from __future__ import annotations

import pytest

from rootless.errors import InvalidInput
from rootless.records.id_map import IdMap
from rootless.records.launch import LaunchPlan
from rootless.records.rootfs import RootfsPlan

OVERLAY = {
    "driver": "overlay",
    "lowerdirs": ["/layers/b/diff", "/layers/a/diff"],
    "upper": "/c/upper",
    "work": "/c/work",
    "volatile": True,
    "options": [],
    "directory": "/c",
}


def test_the_keys_on_disk_are_those_of_earlier_versions() -> None:
    plan = RootfsPlan("overlay", "/c", ["/layers/b/diff", "/layers/a/diff"], volatile=True)
    plan.work = "/c/work"
    assert plan.to_json() == OVERLAY


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"driver": "copy", "work": "", "copied": 1_700_000_000_000_000_000},
        {"driver": "fuse-overlayfs", "program": "/usr/bin/fuse-overlayfs", "site_packages": ["/venv/site-packages"]},
    ],
)
def test_what_an_earlier_version_wrote_is_read_and_written_again(more: dict[str, object]) -> None:
    written = OVERLAY | more
    assert RootfsPlan.from_job(written).to_json() == written


def test_a_wrong_job_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"'rootfs\.lowerdirs' in 'the worker's job' is not a list"):
        RootfsPlan.from_job({"driver": "overlay", "directory": "/c", "lowerdirs": "/l"})


def test_a_bundle_with_a_root_of_its_own_has_no_plan() -> None:
    plan = LaunchPlan("c0ffee", IdMap([], [], "single"))
    with pytest.raises(InvalidInput, match="no root file system"):
        plan.require_rootfs()
