"""rootless-oci over delegated cgroups: linux.resources, its verbs, and nothing left of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rootless.host import cgroups
from tests.conftest import make_private_directory, oci_command_path, remove_private_directory, require
from tests.integration.runtime.bundle import Bundle
from tests.integration.runtime.cgroups.conftest import delegated, eventually


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    """A bundle whose containers have limits, where limits are to be had."""
    delegated("memory", "pids", "cpu")
    directory = make_private_directory("r")
    made = Bundle(directory)
    made.config["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 30}, "cpu": {"shares": 1024}}
    yield made
    made.close()
    remove_private_directory(directory)


def group_of(bundle: Bundle) -> Path:
    values: dict[str, Any] = json.loads((bundle.records / "c" / "state.json").read_text())
    return Path(values["cgroup"]["path"])


def test_resources_are_in_force(bundle: Bundle) -> None:
    script = "cd /sys/fs/cgroup && cat memory.max pids.max cpu.weight && cat /proc/self/cgroup"
    assert bundle.sh(script).stdout.split() == [str(64 << 20), "30", "100", "0::/"]


def test_the_verbs_of_a_cgroup(bundle: Bundle) -> None:
    bundle.up("sleep 900 & sleep 900")
    group = group_of(bundle)
    assert eventually(lambda: len(json.loads(bundle.oci("ps", "-f", "json", "c").stdout)) == 2)
    bundle.oci("pause", "c")
    assert json.loads(bundle.oci("state", "c").stdout)["status"] == "paused"
    assert "it is paused" in bundle.oci("exec", "c", "true", check=False).stderr
    assert "it is paused" in bundle.oci("pause", "c", check=False).stderr
    bundle.oci("resume", "c")
    bundle.oci("update", "--memory", str(32 << 20), "--pids-limit", "-1", "c")
    assert (group / "memory.max").read_text() == f"{32 << 20}\n" and (group / "pids.max").read_text() == "max\n"
    bundle.oci("update", "-r", "-", "c", input='{"pids": {"limit": 40}}')
    assert (group / "pids.max").read_text() == "40\n" and (group / "memory.max").read_text() == f"{32 << 20}\n"
    told = json.loads(bundle.oci("events", "--stats", "c").stdout)
    assert told["type"] == "stats" and told["data"]["pids"] == {"current": 2, "limit": 40}
    assert bundle.oci("exec", "c", "cat", "/proc/self/cgroup").stdout == "0::/\n"
    bundle.oci("kill", "--all", "c", "KILL")
    assert eventually(lambda: json.loads(bundle.oci("state", "c").stdout)["status"] == "stopped")
    bundle.oci("delete", "c")
    assert not group.exists()


def test_a_file_that_is_not_there_is_an_error_that_names_the_property(bundle: Bundle) -> None:
    bundle.config["linux"]["resources"]["unified"] = {"memory.nothing": "1"}
    refused = bundle.run("true", check=False)
    assert refused.returncode == 1 and "linux.resources.unified.memory.nothing cannot be enforced" in refused.stderr
    assert not list(bundle.records.iterdir())
    assert bundle.run("true", flags=("--limits", "warn")).returncode == 0


def test_no_process_is_enough_for_a_limit_of_none(bundle: Bundle) -> None:
    """Trap (runtime-spec): pids limit 0 is valid."""
    bundle.config["linux"]["resources"]["pids"]["limit"] = 0
    assert bundle.run("echo", "alone").stdout == "alone\n"
    assert "fork" in bundle.sh("true | true; sleep 0", check=False).stderr


def test_systemd_makes_what_a_path_of_three_parts_names(bundle: Bundle) -> None:
    require(delegated().kind == "scope", "this host has no user manager of systemd to ask")
    bundle.config["linux"]["cgroupsPath"] = "rootless-test.slice:mine:c1"
    out = bundle.sh("cat /proc/self/cgroup", flags=("--systemd-cgroup",)).stdout
    assert out == "0::/\n"
    bundle.config["linux"]["namespaces"] = [n for n in bundle.config["linux"]["namespaces"] if n["type"] != "cgroup"]
    out = bundle.sh("cat /proc/self/cgroup", flags=("--systemd-cgroup",)).stdout
    assert out.rstrip().endswith("/rootless-test.slice/mine-c1.scope/container")
    bundle.config["linux"]["cgroupsPath"] = "/a/b"
    assert "SLICE:PREFIX:NAME" in bundle.run("true", check=False, flags=("--systemd-cgroup",)).stderr


@pytest.mark.parametrize("path", ["../x", "/../x", "a/../../b"])
def test_no_path_leads_upward(bundle: Bundle, path: str) -> None:
    """Trap CVE-2023-25809, crun 1.28: sub-cgroup values reject `..`."""
    bundle.config["linux"]["cgroupsPath"] = path
    refused = bundle.run("true", check=False)
    assert refused.returncode == 1 and "invalid cgroup path" in refused.stderr


def test_a_writable_mount_lets_the_container_manage_its_own(bundle: Bundle) -> None:
    for mount in bundle.config["mounts"]:
        if mount["type"] == "cgroup":
            mount["options"] = ["nosuid", "noexec", "nodev", "rw"]
    script = (
        "cd /sys/fs/cgroup && mkdir leaf below && echo $$ >leaf/cgroup.procs && echo +memory >cgroup.subtree_control"
    )
    assert bundle.sh(f"{script} && echo 9000000 >below/memory.max && cat below/memory.max").stdout == "8998912\n"
    assert not [p for p in Path(cgroups.ROOT).glob("**/rootless-oci-c*") if p.is_dir()]


def test_exec_in_a_part_of_the_containers_cgroup(bundle: Bundle) -> None:
    bundle.up("sleep 900")
    (group_of(bundle) / "part").mkdir()
    assert bundle.oci("exec", "--cgroup", "part", "c", "cat", "/proc/self/cgroup").stdout == "0::/part\n"
    for path, reason in (("../x", "it leads out of the container's cgroup"), ("missing", "there is no cgroup")):
        refused = bundle.oci("exec", "--cgroup", path, "c", "true", check=False)
        assert refused.returncode == 1 and reason in refused.stderr


def test_exec_waits_in_a_paused_container_where_that_is_asked_for(bundle: Bundle) -> None:
    bundle.up("sleep 900")
    bundle.oci("pause", "c")
    words = [*oci_command_path(), "--root", str(bundle.records), "exec", "--ignore-paused", "c", "echo", "on"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(3)
        bundle.oci("resume", "c")
        assert waiting.communicate(timeout=60)[0] == "on\n" and waiting.returncode == 0


def test_a_frozen_cgroup_is_refused(bundle: Bundle) -> None:
    """The first process would stand still in it, and the runtime would wait for ever."""
    uid = os.geteuid()
    path = f"/user.slice/user-{uid}.slice/user@{uid}.service/rootless-test-frozen"
    group = Path(f"{cgroups.ROOT}{path}")
    require(os.access(group.parent, os.W_OK), "this host has no cgroup of a user manager to write to")
    group.mkdir()
    try:
        (group / "cgroup.freeze").write_text("1")
        bundle.config["linux"]["cgroupsPath"] = path
        refused = bundle.run("true", check=False, timeout=60)
        assert refused.returncode == 1 and "is frozen" in refused.stderr and not list(bundle.records.iterdir())
    finally:
        (group / "cgroup.freeze").write_text("0")
        group.rmdir()
