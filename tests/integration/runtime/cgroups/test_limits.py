"""Limits that really bite, where cgroup v2 is delegated: memory, processes, CPU; and that nothing of them is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rootless.host import cgroups
from tests.conftest import Runner
from tests.integration.runtime.cgroups.conftest import SECONDS, delegated, eventually


def inspected(busybox: Runner, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(busybox("inspect", name).stdout)[0]
    return found


def group_of(busybox: Runner, name: str) -> Path:
    return Path(inspected(busybox, name)["State"]["CgroupPath"])


def test_limits_are_in_the_files(busybox: Runner) -> None:
    delegated("cpu", "memory", "pids")
    files = "memory.max memory.swap.max memory.low pids.max cpu.max cpu.weight"
    script = f"cd /sys/fs/cgroup; cat {files} /proc/self/cgroup"
    flags = ("--memory=64m", "--memory-reservation=32m", "--pids-limit=50", "--cpus=0.5", "--cpu-shares=1024")
    out = busybox("run", "--rm", "--network=none", *flags, "busybox", "sh", "-c", script).stdout.split("\n")
    assert out[:6] == ["67108864", "67108864", "33554432", "50", "50000 100000", "100"]
    assert out[6] == "0::/", "the container's cgroup is the root of its cgroup namespace"


def test_memory_kills_and_says_so(busybox: Runner) -> None:
    delegated("memory")
    flags = ("--memory=24m", "--memory-swap=24m", "--network=none", "--name=oom")
    done = busybox("run", *flags, "busybox", "sh", "-c", "exec tail /dev/zero", check=False, timeout=SECONDS)
    try:
        assert done.returncode == 137, done.stderr
        state = inspected(busybox, "oom")["State"]
        assert state["OOMKilled"] is True and state["ExitCode"] == 137
        told = busybox("events", "--since=10m", "--stream=false", "--filter=container=oom", "--format={{.Action}}")
        assert "oom" in told.stdout.split() and told.stdout.split()[-1] == "die"
    finally:
        busybox("rm", "-f", "oom")


def test_a_fork_bomb_is_held(busybox: Runner) -> None:
    delegated("pids")
    script = "i=0; while [ $i -lt 200 ]; do sleep 100 & i=$((i+1)); done; wait"
    busybox("run", "-d", "--name=bomb", "--network=none", "--pids-limit=20", "busybox", "sh", "-c", script)
    try:
        group = group_of(busybox, "bomb")
        events = group / "pids.events"
        # the shell gives up when it cannot fork: the count of refusals is seen before the cgroup goes
        assert eventually(lambda: not events.exists() or "max 0" not in events.read_text())
        if (group / "pids.current").exists():
            assert int((group / "pids.current").read_text()) <= 20
    finally:
        busybox("rm", "-f", "bomb")


def test_one_process_is_enough_for_a_limit_of_one(busybox: Runner) -> None:
    """The launcher's own processes do not count against the container."""
    delegated("pids")
    assert busybox("run", "--rm", "--network=none", "--pids-limit=1", "busybox", "echo", "alone").stdout == "alone\n"


def test_cpu_is_held_to_its_share(busybox: Runner) -> None:
    delegated("cpu")
    busybox("run", "-d", "--name=spin", "--network=none", "--cpus=0.2", "busybox", "sh", "-c", "while :; do :; done")
    try:
        stat = group_of(busybox, "spin") / "cpu.stat"
        assert eventually(lambda: "nr_throttled 0" not in stat.read_text()), "a busy loop is throttled"
    finally:
        busybox("rm", "-f", "spin")


def test_update_changes_a_running_container(busybox: Runner) -> None:
    delegated("memory", "pids", "cpu")
    busybox("run", "-d", "--name=up", "--network=none", "--memory=64m", "--cpus=1", "busybox", "sleep", "1000")
    try:
        group = group_of(busybox, "up")
        busybox("update", "--memory=128m", "--pids-limit=30", "up")
        assert (group / "memory.max").read_text().strip() == str(128 << 20)
        assert (group / "pids.max").read_text().strip() == "30"
        assert (group / "cpu.max").read_text().split()[0] == "100000", "what is not named stays"
        assert inspected(busybox, "up")["HostConfig"]["Memory"] == 128 << 20
        assert inspected(busybox, "up")["EffectiveLimits"]["Memory"] <= 128 << 20
        busybox("restart", "-t0", "up")
        assert (group_of(busybox, "up") / "memory.max").read_text().strip() == str(128 << 20)
    finally:
        busybox("rm", "-f", "up")


def test_exec_is_under_the_limits_too(busybox: Runner) -> None:
    delegated("pids")
    busybox("run", "-d", "--name=box", "--network=none", "--pids-limit=50", "busybox", "sleep", "1000")
    try:
        assert busybox("exec", "box", "cat", "/proc/self/cgroup").stdout == "0::/\n"
        busybox("exec", "-d", "box", "sleep", "900")
        group = group_of(busybox, "box")
        assert eventually(lambda: len((group / "cgroup.procs").read_text().split()) == 2)
    finally:
        busybox("rm", "-f", "box")


def test_pause_freezes_and_unpause_thaws(busybox: Runner) -> None:
    delegated()
    busybox("run", "-d", "--name=ice", "--network=none", "busybox", "sleep", "1000")
    try:
        group = group_of(busybox, "ice")
        assert busybox("pause", "ice").stderr == ""
        assert "frozen 1" in (group / "cgroup.events").read_text()
        assert inspected(busybox, "ice")["State"]["Status"] == "paused"
        busybox("unpause", "ice")
        assert "frozen 0" in (group / "cgroup.events").read_text()
        busybox("pause", "ice")
        busybox("rm", "-f", "ice")
        assert not group.exists(), "a frozen container is killed and removed"
    finally:
        busybox("rm", "-f", "ice", check=False)


def test_no_process_survives_a_kill(busybox: Runner) -> None:
    """Also where the container has no pid namespace that would take them along."""
    delegated()
    script = "(trap '' TERM HUP; sleep 1000) & (trap '' TERM; sleep 1000) & sleep 1000"
    busybox("run", "-d", "--name=host", "--network=none", "--pid=host", "busybox", "sh", "-c", script)
    try:
        group = group_of(busybox, "host")
        assert eventually(lambda: len((group / "cgroup.procs").read_text().split()) >= 3)
        pids = (group / "cgroup.procs").read_text().split()
        busybox("kill", "host")
        assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        assert eventually(lambda: not group.exists())
    finally:
        busybox("rm", "-f", "host", check=False)


def test_stats_of_a_cgroup(busybox: Runner) -> None:
    delegated("memory", "pids")
    busybox("run", "-d", "--name=st", "--network=none", "--memory=64m", "busybox", "sleep", "1000")
    try:
        form = "{{.Source}} {{.PIDs}} {{.MemUsage}}"
        out = busybox("stats", "--no-stream", "--format", form, "st").stdout
        assert out.startswith("cgroup 1 ") and out.endswith("/ 64MiB\n"), out
    finally:
        busybox("rm", "-f", "st")


def test_strict_limits_pass_where_they_can_be_enforced(busybox: Runner) -> None:
    delegated("memory")
    assert (
        busybox("run", "--rm", "--network=none", "--strict-limits", "--memory=64m", "busybox", "true").returncode == 0
    )


def test_cgroup_files_by_name(busybox: Runner) -> None:
    delegated("memory")
    conf = ("--cgroup-conf=memory.oom.group=1", "--cgroup-conf=memory.high=48m")
    script = "cat /sys/fs/cgroup/memory.oom.group /sys/fs/cgroup/memory.high"
    assert busybox("run", "--rm", "--network=none", *conf, "busybox", "sh", "-c", script).stdout == "1\n50331648\n"


def test_a_disabled_cgroup_is_the_callers(busybox: Runner) -> None:
    delegated()
    busybox("run", "-d", "--name=none", "--network=none", "--cgroups=disabled", "busybox", "sleep", "1000")
    try:
        found = inspected(busybox, "none")
        pid = found["State"]["Pid"]
        assert found["State"]["CgroupPath"] == ""
        assert cgroups.unified_path(pid) == cgroups.unified_path()
    finally:
        busybox("rm", "-f", "none")


def test_many_leave_no_cgroup(busybox: Runner) -> None:
    found = delegated("memory", "pids")
    flags = ("--rm", "--network=none", "--memory=64m", "--pids-limit=50")
    for _ in range(5):
        busybox("run", *flags, "busybox", "true")
    parent = Path(found.path) / "rootless.slice" if found.kind == "scope" else Path(found.path)

    def left() -> list[Path]:
        return [p for p in parent.glob("rootless-*") if p.is_dir() and p.name != cgroups.LEAF]

    assert eventually(lambda: not left()), left()
