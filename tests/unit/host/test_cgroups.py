"""What was delegated, over a directory that stands for /sys/fs/cgroup: each rung of the ladder and its reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootless.errors import UsageError
from rootless.host import cgroups
from rootless.host.cgroups import Host, find_delegation

UID = os.geteuid()
MANAGER = f"user.slice/user-{UID}.slice/user@{UID}.service"


class Tree:
    """A fake host: cgroup directories, /proc/self/cgroup and XDG_RUNTIME_DIR."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "cgroup"
        self.runtime = base / "run"
        self.runtime.mkdir()

    def group(self, path: str, controllers: str = "cpu memory pids", *, ours: bool = True) -> Path:
        directory = self.root / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in (("controllers", controllers), ("procs", ""), ("subtree_control", "")):
            file = directory / f"cgroup.{name}"
            file.write_text(text)
            if not ours:
                file.chmod(0o444)
        return directory

    def manager(self, controllers: str = "cpu memory pids") -> None:
        self.group(MANAGER, controllers)
        (self.runtime / "systemd").mkdir()
        (self.runtime / "systemd/private").touch()

    def host(self, own: str, *, unified: bool = True) -> Host:
        file = self.base / "self"
        file.write_text(f"0::{own}\n" if unified else own)
        return Host(root=str(self.root), cgroup_file=str(file), runtime=str(self.runtime), is_unified=unified)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


needs_user = pytest.mark.skipif(UID == 0, reason="this host runs the test as root, whom no mode of a file stops")


def test_a_cgroup_of_ones_own_is_used_directly(tree: Tree) -> None:
    own = tree.group("system.slice/job.service")
    found = find_delegation(host=tree.host("/system.slice/job.service"))
    assert (found.kind, found.path, found.controllers) == ("directory", str(own), ("cpu", "memory", "pids"))
    assert "cpuset" in found.reason and "Delegate=" in (found.remedy or "")
    assert found.missing({"memory", "io"}) == ["io"]


def test_where_an_earlier_command_has_moved_us_the_parent_counts(tree: Tree) -> None:
    own = tree.group("job.service")
    tree.group(f"job.service/{cgroups.LEAF}")
    assert find_delegation(host=tree.host(f"/job.service/{cgroups.LEAF}")).path == str(own)


@needs_user
def test_from_a_login_session_systemd_is_asked(tree: Tree) -> None:
    tree.group("user.slice/user-1.slice/session-3.scope", ours=False)
    tree.manager("memory pids")
    found = find_delegation(host=tree.host("/user.slice/user-1.slice/session-3.scope"))
    assert found.kind == "scope" and found.controllers == ("memory", "pids")
    assert found.reason == "your systemd was not given cpu, cpuset, io" and "host-setup" in (found.remedy or "")


def test_a_unit_of_the_user_manager_that_was_not_delegated_is_systemds(tree: Tree) -> None:
    tree.group(f"{MANAGER}/app.slice/term.scope")
    tree.manager()
    assert find_delegation(host=tree.host(f"/{MANAGER}/app.slice/term.scope")).kind == "scope"


@needs_user
def test_a_batch_job_never_leaves_its_step(tree: Tree) -> None:
    step = "system.slice/slurmstepd.scope/job_7/step_0/user/task_0"
    tree.group(step, ours=False)
    tree.manager()
    found = find_delegation(host=tree.host(f"/{step}"))
    assert found.kind == "none" and "never leaves it" in found.reason and "delegate" in (found.remedy or "")


def test_a_delegated_step_is_used(tree: Tree) -> None:
    step = tree.group("system.slice/slurmstepd.scope/job_7/step_0/user/task_0")
    tree.manager()
    found = find_delegation(host=tree.host("/system.slice/slurmstepd.scope/job_7/step_0/user/task_0"))
    assert (found.kind, found.path) == ("directory", str(step))


@needs_user
def test_split_uses_the_current_cgroup_or_nothing(tree: Tree) -> None:
    tree.group("session-3.scope", ours=False)
    tree.manager()
    found = find_delegation(current=True, host=tree.host("/session-3.scope"))
    assert found.kind == "none" and "--cgroups=split" in found.reason


def test_a_named_directory(tree: Tree) -> None:
    named = tree.group("mine/here")
    tree.group("own")
    host = tree.host("/own")
    for text in ("/mine/here", str(named)):
        assert find_delegation(parent=text, host=host).path == str(named)
    tree.group("own/below")
    assert find_delegation(parent="below", host=host).path == str(tree.root / "own/below")
    assert find_delegation(parent="/nowhere", host=host).kind == "none"


@pytest.mark.parametrize("parent", ["/a/../../b", "..", "a/./b", "/x\n"])
def test_no_cgroup_parent_leads_upward(tree: Tree, parent: str) -> None:
    """Trap CVE-2023-25809: cgroup-parent and sub-cgroup values reject `..` and absolute escapes."""
    tree.group("own")
    with pytest.raises(UsageError, match="invalid cgroup path"):
        find_delegation(parent=parent, host=tree.host("/own"))


def test_outside_of_the_cgroup_namespace(tree: Tree) -> None:
    assert find_delegation(host=tree.host("/../../session-1.scope")).kind == "none"


def test_version_1_has_what_may_be_written(tree: Tree) -> None:
    own = "12:blkio:/job\n5:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/job\n0::/job\n"
    for name in ("memory", "cpu", "cpuacct"):
        tree.group(f"{name}/job")
    found = find_delegation(host=tree.host(own, unified=False))
    assert found.kind == "v1" and found.controllers == ("cpu", "memory")
    assert set(found.directories) == {"memory", "cpu", "cpuacct"} and "version 1" in found.reason


def test_version_1_without_anything(tree: Tree) -> None:
    found = find_delegation(host=tree.host("5:memory:/\n0::/\n", unified=False))
    assert found.kind == "none" and "unified_cgroup_hierarchy=1" in (found.remedy or "")


def test_sockets_of_another_users_systemd_are_not_ours(tree: Tree) -> None:
    tree.manager()
    host = tree.host("/x")
    assert cgroups.manager_sockets(host) == [(f"{tree.runtime}/systemd/private", False)]
    host.runtime = "/nonexistent"
    assert cgroups.manager_sockets(host) == []


def test_evacuation_empties_a_cgroup_into_its_leaf(tree: Tree) -> None:
    own = tree.group("own")
    (own / "cgroup.procs").write_text("4\n5\n")
    leaf = tree.group(f"own/{cgroups.LEAF}")
    cgroups.evacuate_cgroup(str(own))
    assert (leaf / "cgroup.procs").read_text() == "5", "each pid is one write, from the file's beginning"


def test_children_get_every_controller(tree: Tree) -> None:
    own = tree.group("own", "memory")
    cgroups.open_to_children(str(own))
    assert (own / "cgroup.subtree_control").read_text() == "+memory"


def test_no_controller_is_on_before_the_processes_are_out(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """cpu and pids can be switched on beside processes, and leave a threaded cgroup whose children take none."""
    own = tree.group("own", "cpu")
    (own / "cgroup.procs").write_text("4\n")
    (own / "cgroup.type").write_text("domain\n")
    steps: list[str] = []

    def evacuate(path: str, leaf: str) -> None:
        steps.append("evacuate")
        (own / "cgroup.procs").write_text("")

    monkeypatch.setattr(cgroups, "evacuate_cgroup", evacuate)
    monkeypatch.setattr(cgroups, "write_value", lambda path, value: steps.append(value))
    cgroups.open_to_children(str(own))
    assert steps == ["evacuate", "+cpu"]


def test_the_root_of_the_tree_is_not_emptied(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tree.group("own", "cpu")
    (own / "cgroup.procs").write_text("1\n")
    monkeypatch.setattr(cgroups, "evacuate_cgroup", lambda path, leaf: pytest.fail("the root has no such rule"))
    cgroups.open_to_children(str(own))
    assert (own / "cgroup.subtree_control").read_text() == "+cpu"


def test_a_named_parent_leads_no_batch_job_out_of_its_step(tree: Tree) -> None:
    step = "system.slice/slurmstepd.scope/job_7/step_0/user/task_0"
    tree.group(step)
    inner = tree.group(f"{step}/mine")
    outside = tree.group("elsewhere")
    tree.group(f"{step}2")
    for own in (f"/{step}", f"/{step}/{cgroups.LEAF}"):
        host = tree.host(own)
        for parent in ("/elsewhere", str(outside), f"/{step}2"):
            found = find_delegation(parent=parent, host=host)
            assert found.kind == "none" and "never leaves" in found.reason and found.remedy
        for parent in ("mine", str(inner), f"/{step}/mine"):
            assert find_delegation(parent=parent, host=host).path == str(inner)


def test_nor_where_the_tree_is_of_version_1(tree: Tree) -> None:
    tree.group("memory/slurm/uid_1/job_2")
    tree.group("memory/elsewhere")
    host = tree.host("5:memory:/slurm/uid_1/job_2\n", unified=False)
    assert find_delegation(host=host).kind == "v1"
    found = find_delegation(parent="/elsewhere", host=host)
    assert found.kind == "none" and "never leaves" in found.reason
