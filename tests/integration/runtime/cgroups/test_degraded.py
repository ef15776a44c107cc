"""What limits, pause, stats and update say and do where no cgroup is to be had."""

from __future__ import annotations

import json
import os
import signal

import pytest

from rootless.host import cgroups
from tests.conftest import Runner, require

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def nothing_is_delegated() -> None:
    """These are about hosts without."""
    require(cgroups.find_delegation().kind == "none", "this host has delegated cgroups")


def warnings(text: str) -> list[str]:
    """What a command said, but for what a user without a range of ids is always told."""
    return [line for line in text.splitlines() if "you have one id only" not in line]


def test_a_limit_without_effect_is_one_warning(busybox: Runner) -> None:
    flags = ("--memory=64m", "--pids-limit=77", "--cpus=1", "--network=none")
    done = busybox("run", "--rm", *flags, "busybox", "sh", "-c", "ulimit -d; ulimit -u")
    told = warnings(done.stderr)
    assert len(told) == 1 and told[0].startswith("warning: limits have no effect: --memory, --cpus")
    assert "RLIMIT_DATA" in told[0] and "ask the administrator" in told[0]
    assert done.stdout == "65536\n77\n", "limits of processes stand in"


def test_strict_limits_fail_and_leave_nothing(busybox: Runner) -> None:
    done = busybox("run", "--rm", "--strict-limits", "--memory=64m", "--name=strict", "busybox", "true", check=False)
    assert done.returncode == 125 and "limits cannot be enforced: --memory" in done.stderr
    assert "strict" not in busybox("ps", "-a").stdout
    env = {"ROOTLESS_STRICT_LIMITS": "true"}
    assert busybox("run", "--rm", "--memory=64m", "busybox", "true", check=False, env=env).returncode == 125
    assert not warnings(busybox("run", "--rm", "--strict-limits", "--network=none", "busybox", "true").stderr)


def test_stats_come_from_proc(busybox: Runner) -> None:
    busybox("run", "-d", "--name=st", "--network=none", "busybox", "sh", "-c", "sleep 1000 & sleep 1000")
    try:
        row = json.loads(busybox("stats", "--no-stream", "--format=json", "st").stdout)
        assert row["Source"] == "proc" and row["Name"] == "st" and int(row["PIDs"]) >= 1
        assert row["MemUsage"].split()[0] != "0B" and row["CPUPerc"].endswith("%")
        assert "st" in busybox("stats", "--no-stream").stdout
    finally:
        busybox("rm", "-f", "st")


def test_stats_of_a_stopped_container(busybox: Runner) -> None:
    busybox("create", "--name=still", "--network=none", "busybox", "true")
    try:
        assert "still" not in busybox("stats", "--no-stream").stdout
        row = json.loads(busybox("stats", "--no-stream", "--all", "--format=json").stdout.splitlines()[-1])
        assert row["CPUPerc"] == "--" and row["MemUsage"] == "-- / --" and row["Source"] == "created"
    finally:
        busybox("rm", "still")


def test_update_says_what_cannot_be(busybox: Runner) -> None:
    busybox("run", "-d", "--name=up", "--network=none", "busybox", "sleep", "1000")
    try:
        refused = busybox("update", "--memory=64m", "up", check=False)
        assert refused.returncode == 1 and "no cgroup of its own" in refused.stderr
        assert json.loads(busybox("inspect", "up").stdout)[0]["HostConfig"]["Memory"] == 0, "nothing is changed"
        busybox("update", "--restart=always", "up")
        assert json.loads(busybox("inspect", "up").stdout)[0]["HostConfig"]["RestartPolicy"]["Name"] == "always"
        assert "needs something to change" in busybox("update", "up", check=False).stderr
    finally:
        busybox("rm", "-f", "up")


def test_a_new_restart_policy_counts_for_a_running_container(busybox: Runner) -> None:
    busybox("run", "-d", "--name=re", "--network=none", "--restart=always", "busybox", "sleep", "1000")
    try:
        busybox("update", "--restart=no", "re")
        pid = json.loads(busybox("inspect", "re").stdout)[0]["State"]["Pid"]
        os.kill(pid, signal.SIGKILL)
        assert busybox("wait", "re").stdout == "137\n"
        assert json.loads(busybox("inspect", "re").stdout)[0]["State"]["Status"] == "exited"
    finally:
        busybox("rm", "-f", "re")


def test_info_says_why(busybox: Runner) -> None:
    shown = json.loads(busybox("info", "--format=json").stdout)
    assert shown["CgroupDriver"] == "none" and shown["CgroupLimitation"] and shown["MemoryLimit"] is False


@pytest.mark.parametrize("flag", ["--cgroups=split", "--cgroup-parent=/nowhere"])
def test_a_cgroup_that_was_asked_for_is_an_error(busybox: Runner, flag: str) -> None:
    done = busybox("run", "--rm", flag, "busybox", "true", check=False)
    assert done.returncode == 125 and "the cgroup that was asked for cannot be used" in done.stderr
