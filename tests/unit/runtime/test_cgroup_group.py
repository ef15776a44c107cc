"""Groups over a directory that stands for the cgroup tree: writes, missing controllers, use, effective limits."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from rootless.errors import HostLimit, InvalidState, UsageError
from rootless.host import cgroups
from rootless.records.resource_limits import Resources
from rootless.runtime.cgroups import place, usage
from rootless.runtime.cgroups.group import Group, Group1, restore
from rootless.runtime.cgroups.limit_values import Setting
from rootless.runtime.oci.bundle_cgroup import sub_group


def fill(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


@pytest.fixture
def group(tmp_path: Path) -> Group:
    path = fill(
        tmp_path / "c", cgroup__controllers="memory pids\n", cgroup__procs="", memory__max="max", pids__max="max"
    )
    return Group(str(path), "x.scope")


def test_limits_are_written(group: Group) -> None:
    place.limits(
        group, Resources.from_json({"memory": {"limit": 5000}, "pids": {"limit": 7}}), place.strictly, late=False
    )
    assert Path(group.path, "memory.max").read_text() == "5000" and Path(group.path, "pids.max").read_text() == "max"
    place.limits(
        group, Resources.from_json({"memory": {"limit": 5000}, "pids": {"limit": 7}}), place.strictly, late=True
    )
    assert Path(group.path, "pids.max").read_text().startswith("7")


def test_a_missing_controller_is_an_error_that_names_it(group: Group) -> None:
    """Trap (runtime-spec): missing controller = error."""
    with pytest.raises(HostLimit, match=r"linux\.resources\.cpu\.shares cannot be enforced: controller 'cpu'") as e:
        place.limits(group, Resources.from_json({"cpu": {"shares": 5}}), place.strictly)
    assert "Delegate=" in (e.value.hint or "")


def test_without_strictness_the_other_limits_hold(group: Group) -> None:
    unmet: list[HostLimit] = []
    place.limits(group, Resources.from_json({"cpu": {"shares": 5}, "memory": {"limit": 9000}}), unmet.append)
    assert len(unmet) == 1 and Path(group.path, "memory.max").read_text().startswith("9000")


def test_an_unknown_file_is_an_error_that_names_it(group: Group) -> None:
    with pytest.raises(HostLimit, match=r"unified\.memory\.nothing"):
        place.limits(group, Resources.from_json({"unified": {"memory.nothing": "1"}}), place.strictly)


def test_a_kernel_without_swap_accounting_limits_no_swap(group: Group) -> None:
    group.apply([Setting("memory", "memory.swap.max", "5", "memory.swap")], place.strictly)
    assert not Path(group.path, "memory.swap.max").exists()


def test_a_cgroup_with_processes_is_nobody_elses(group: Group) -> None:
    Path(group.path, "cgroup.procs").write_text("17\n")
    with pytest.raises(InvalidState, match="has processes already"):
        group.make()


def test_processes_of_sub_cgroups_count_and_links_are_not_followed(group: Group, tmp_path: Path) -> None:
    fill(Path(group.path, "inner"), cgroup__procs="5\n6\n")
    elsewhere = fill(tmp_path / "elsewhere", cgroup__procs="1\n")
    Path(group.path, "link").symlink_to(elsewhere)
    assert group.pids() == [5, 6]


def test_state_survives_json(group: Group) -> None:
    assert isinstance(again := restore(group.to_json()), Group) and (again.path, again.unit) == (group.path, "x.scope")
    assert isinstance(old := restore(Group1({"cpu": "/a/b"}).to_json()), Group1) and old.paths == {"cpu": "/a/b"}
    assert restore(None) is None


def test_lacks_of_memory(group: Group, tmp_path: Path) -> None:
    fill(Path(group.path), memory__events="low 0\nhigh 3\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n")
    assert group.oom_kills() == 2
    old = Group1(
        {"memory": str(fill(tmp_path / "m", memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"))}
    )
    assert old.oom_kills() == 4


def test_the_freezer_of_version_1_is_needed_for_a_freeze() -> None:
    with pytest.raises(HostLimit, match="freezer"):
        Group1({"cpu": "/nonexistent"}).freeze()


def test_use_of_version_2(tmp_path: Path) -> None:
    path = fill(
        tmp_path / "c",
        cpu__stat="usage_usec 2500000\nuser_usec 1\n",
        memory__current="1000\n",
        memory__peak="1500\n",
        memory__stat="anon 5\ninactive_file 300\n",
        pids__current="4\n",
        io__stat="8:0 rbytes=100 wbytes=50 rios=1\n8:16 rbytes=11 wbytes=9\n",
        cpu__pressure="some avg10=1.50 avg60=0.00 total=9\nfull avg10=0.00 avg60=0.00 total=0\n",
    )
    found = usage.read_usage(Group(str(path)))
    assert (found.cpu, found.memory, found.cache, found.peak, found.pids) == (2.5, 1000, 300, 1500, 4)
    assert (found.block_read, found.block_written) == (111, 59) and found.pressure == {"cpu": 1.5}


def test_use_of_version_1(tmp_path: Path) -> None:
    memory = fill(
        tmp_path / "m",
        memory__usage_in_bytes="1000",
        memory__stat="total_inactive_file 400\nhierarchical_memory_limit 9223372036854771712\n",
    )
    cpu = fill(tmp_path / "a", cpuacct__usage="1500000000\n")
    block = fill(
        tmp_path / "b", blkio__throttle__io_service_bytes="8:0 Read 70\n8:0 Write 30\n8:0 Total 100\nTotal 100\n"
    )
    found = usage.read_usage(Group1({"memory": str(memory), "cpuacct": str(cpu), "blkio": str(block)}))
    assert (found.cpu, found.memory, found.cache, found.memory_limit) == (1.5, 1000, 400, None)
    assert (found.block_read, found.block_written) == (70, 30)


def test_effective_limits_are_the_least_of_all_above(tmp_path: Path) -> None:
    fill(tmp_path / "a", memory__max="500", pids__max="max", cpu__max="200000 100000", memory__swap__max="max")
    fill(tmp_path / "a/b", memory__max="900", pids__max="40", cpu__max="max 100000", memory__swap__max="0")
    inner = fill(tmp_path / "a/b/c", memory__max="max", pids__max="80", cpuset__cpus__effective="0-1\n")
    found = usage.tightest_limits(str(inner), str(tmp_path))
    assert (found.memory, found.pids, found.cpus, found.swap, found.cpuset) == (500, 40, 2.0, 0, "0-1")


class Busy(Group):
    """A container's cgroup whose init, such as systemd, has moved itself into a sub-cgroup."""

    def join(self, pid: int) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")


def test_exec_follows_an_init_that_moved_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap (crun cgroup-setup.c): exec on EBUSY goes to init's cgroup with retries."""
    fill(tmp_path / "c/init.scope", cgroup__procs="")
    looks = iter(["/c/gone", "/c/init.scope"])
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    monkeypatch.setattr(cgroups, "unified_path", lambda pid: next(looks))
    place.join(Busy(str(tmp_path / "c")), 77, init=5)
    assert (tmp_path / "c/init.scope/cgroup.procs").read_text() == "77"
    with pytest.raises(HostLimit, match="cannot move process 77"):
        place.join(Busy(str(tmp_path / "c")), 77)


def test_cgroups_above_hand_the_controllers_down(tmp_path: Path) -> None:
    """A path of several parts (cgroupsPath a/b/c): without that its limits would find no controller."""
    fill(tmp_path / "own", cgroup__controllers="memory\n", cgroup__subtree_control="")
    for name in ("own/a", "own/a/b"):
        fill(tmp_path / name, cgroup__controllers="memory\n", cgroup__subtree_control="")
    group = place.in_directory(str(tmp_path / "own"), "a//b/c/")
    assert group.path == f"{tmp_path}/own/a/b/c"
    for name in ("own", "own/a", "own/a/b"):
        assert (tmp_path / name / "cgroup.subtree_control").read_text() == "+memory"


def test_what_version_1_has_frozen_can_be_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen process does not die of SIGKILL there: its signal comes first, then it is let go."""
    path = fill(tmp_path / "f", freezer__state="FROZEN\n", cgroup__procs="77\n")
    seen: list[str] = []

    def kill(pid: int, number: int) -> None:
        seen.append((path / "freezer.state").read_text().split("\n")[0][:6])
        if seen[-1] == "THAWED":
            (path / "cgroup.procs").write_text("")

    monkeypatch.setattr("os.kill", kill)
    Group1({"freezer": str(path)}).kill()
    assert seen == ["FROZEN", "THAWED"]


def test_a_frozen_group_is_refused(tmp_path: Path) -> None:
    """A process that joins it stands still, and its launcher would wait for ever."""
    (tmp_path / "cgroup.procs").write_text("")
    (tmp_path / "cgroup.events").write_text("populated 0\nfrozen 1\n")
    with pytest.raises(InvalidState, match="is frozen"):
        Group(str(tmp_path)).make()
    (tmp_path / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    Group(str(tmp_path)).make()
    (tmp_path / "freezer.state").write_text("FROZEN\n")
    with pytest.raises(InvalidState, match="is frozen"):
        Group1({"freezer": str(tmp_path)}).make()


def test_sub_cgroups_of_exec(tmp_path: Path) -> None:
    for name in ("cpu/top/a/b", "memory/top/a"):
        (tmp_path / name).mkdir(parents=True)
    group = Group(f"{tmp_path}/cpu/top", "x.scope")
    for word, path in (("a/b", "cpu/top/a/b"), ("/a", "cpu/top/a"), ("/", "cpu/top")):
        found = sub_group(group, [word])
        assert (found.path, found.unit) == (f"{tmp_path}/{path}", "x.scope")
    old = Group1({"cpu": f"{tmp_path}/cpu/top", "memory": f"{tmp_path}/memory/top"})
    both = sub_group(old, ["a"])
    assert isinstance(both, Group1) and both.paths == {n: f"{tmp_path}/{n}/top/a" for n in ("cpu", "memory")}
    one = sub_group(old, ["cpu:a/b"])
    assert isinstance(one, Group1)
    assert one.paths == {"cpu": f"{tmp_path}/cpu/top/a/b", "memory": f"{tmp_path}/memory/top"}
    assert isinstance(sub_group(old, ["cpu,memory:a"]), Group1)
    for refused, words in (
        (group, ["../x"]), (group, ["a/../.."]), (group, ["missing"]), (group, ["cpu:a"]), (group, ["a", "a"]),
        (group, [":a"]), (old, ["cpu:a", "cpu:a"]), (old, ["cpu:a", "a"]), (old, ["pids:a"]), (old, ["cpu,:a"]),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="invalid --cgroup"):
            sub_group(refused, words)
