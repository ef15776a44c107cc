"""Limits of cgroup version 1, where directories of it are the user's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rootless.host import cgroups
from tests.conftest import Runner, require


@pytest.fixture
def directories() -> dict[str, str]:
    """Controller → directory of ours."""
    found = cgroups.find_delegation()
    require(found.kind == "v1", f"this host has no cgroup of version 1 that is the user's: {found.reason}")
    require(
        {"memory", "pids", "cpu", "freezer"} <= set(found.directories),
        f"this host gives the user only {', '.join(found.directories)} of cgroup version 1",
    )
    return found.directories


def inspected(busybox: Runner, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(busybox("inspect", name).stdout)[0]
    return found


def test_limits_update_freeze_and_use(busybox: Runner, directories: dict[str, str]) -> None:
    flags = ("--network=none", "--memory=64m", "--pids-limit=20", "--cpus=0.5", "--memory-swappiness=10")
    assert "limit" not in busybox("run", "-d", "--name=one", *flags, "busybox", "sleep", "1000").stderr
    try:
        name = f"{cgroups.PREFIX}{inspected(busybox, 'one')['Id']}"

        def read(controller: str, file: str) -> str:
            return Path(directories[controller], name, file).read_text().strip()

        assert read("memory", "memory.limit_in_bytes") == str(64 << 20) and read("memory", "memory.swappiness") == "10"
        assert read("pids", "pids.max") == "20" and read("cpu", "cpu.cfs_quota_us") == "50000"
        for size in (256, 32):  # memory and swap have to move in one order up, in the other down
            busybox("update", f"--memory={size}m", "one")
            assert read("memory", "memory.limit_in_bytes") == str(size << 20)
        busybox("pause", "one")
        assert read("freezer", "freezer.state") == "FROZEN"
        busybox("unpause", "one")
        assert read("freezer", "freezer.state") == "THAWED"
        assert busybox("stats", "--no-stream", "--format={{.Source}} {{.PIDs}}", "one").stdout == "cgroup 1\n"
    finally:
        busybox("rm", "-f", "one")
    assert not [path for path in directories.values() if Path(path, name).exists()]


def test_memory_kills_and_says_so(busybox: Runner, directories: dict[str, str]) -> None:
    flags = ("--network=none", "--memory=24m", "--memory-swap=24m", "--name=oom")
    done = busybox("run", *flags, "busybox", "sh", "-c", "exec tail /dev/zero", check=False)
    try:
        assert done.returncode == 137 and inspected(busybox, "oom")["State"]["OOMKilled"] is True
    finally:
        busybox("rm", "-f", "oom")


def test_a_value_that_the_kernel_refuses_is_told(busybox: Runner, directories: dict[str, str]) -> None:
    require("cpuset" in directories, "this host gives the user no cpuset of cgroup version 1")
    done = busybox("run", "--rm", "--network=none", "--cpuset-cpus=4095", "busybox", "echo", "hi")
    assert done.stdout == "hi\n" and "warning: linux.resources.cpu.cpus cannot be enforced" in done.stderr
    flags = ("--rm", "--network=none", "--strict-limits", "--cpuset-cpus=4095")
    assert busybox("run", *flags, "busybox", "true", check=False).returncode == 125
