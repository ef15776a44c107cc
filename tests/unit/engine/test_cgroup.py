"""Stale cgroups, and new limits for a running container, over directories that stand for the tree."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from rootless.engine.container import container_cgroup, update
from rootless.engine.context import Engine
from rootless.errors import HostLimit
from rootless.host import cgroups
from rootless.host.cgroups import Delegation
from rootless.records.container_options import ContainerOptions
from rootless.records.launch import CgroupPlan
from rootless.records.resource_limits import Resources
from rootless.records.state import ContainerState

STALE, OTHER = "0" * 64, "1" * 64


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """As much of an engine as pruning looks at."""
    containers = SimpleNamespace(path=lambda container_id: str(tmp_path / "containers" / container_id))
    settings = SimpleNamespace(cgroup_parent="")
    return cast(Engine, SimpleNamespace(store=SimpleNamespace(containers=containers), settings=settings))


def test_only_our_own_empty_cgroups_go(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    for name in (f"rootless-{STALE}/inner", f"rootless-{OTHER}", cgroups.LEAF, "rootless-mine", "another"):
        (tree / name).mkdir(parents=True)
    (tree / f"rootless-{OTHER}/cgroup.procs").write_text("17\n")
    monkeypatch.setattr(cgroups, "find_delegation", lambda **_: Delegation("directory", path=str(tree)))
    assert container_cgroup.prune_stale(engine) == 0, "a young one may belong to a container that just starts"
    monkeypatch.setattr(container_cgroup, "_YOUNG", -1.0)
    assert container_cgroup.prune_stale(engine) == 1
    assert sorted(path.name for path in tree.iterdir()) == sorted(
        [f"rootless-{OTHER}", cgroups.LEAF, "rootless-mine", "another"]
    )


def running(tmp_path: Path, **files: str) -> tuple[Path, ContainerState]:
    path = tmp_path / "group"
    path.mkdir()
    (path / "cgroup.controllers").write_text("memory pids cpu\n")
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    known = {"status": "running", "cgroup": {"version": 2, "path": str(path), "unit": ""}}
    return path, ContainerState.from_json(known)


def limited(resources: dict[str, object]) -> CgroupPlan:
    return CgroupPlan(resources=Resources.from_json(resources))


def test_a_limit_that_is_taken_back_is_lifted(tmp_path: Path) -> None:
    path, state = running(tmp_path, pids__max="50", memory__max="9000000")
    before = limited({"pids": {"limit": 50}, "memory": {"limit": 9000000}})
    wanted = limited({"memory": {"limit": 8000000}})
    update._apply(cast(Engine, None), "c", state, before, wanted)
    assert (path / "pids.max").read_text() == "max" and (path / "memory.max").read_text() == "8000000"


def test_what_the_kernel_refuses_changes_nothing(tmp_path: Path) -> None:
    path, state = running(tmp_path, memory__max="9000000")
    before = limited({"memory": {"limit": 9000000}})
    wanted = limited({"memory": {"limit": 8000000}, "pids": {"limit": 5}})
    with pytest.raises(HostLimit, match=r"pids\.limit cannot be enforced"):
        update._apply(cast(Engine, None), "c", state, before, wanted)
    assert (path / "memory.max").read_text() == "9000000"


def test_one_way_to_say_cpus_replaces_the_other() -> None:
    quota = ContainerOptions("image", cpu_quota=20000, cpu_period=50000)
    assert update._changed(quota, {"cpus": "1"})[:] == ContainerOptions("image", cpus="1")[:]
    assert update._changed(ContainerOptions("image", cpus="1"), {"cpu_quota": 5000}).cpus is None
