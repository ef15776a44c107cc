"""Issue 8, A.7: what a bundle can make of the host's cgroup tree, and of the hooks that run inside of a container."""

from __future__ import annotations

import pytest

from tests.conftest import owns_range, require
from tests.integration.runtime.bundle import Bundle
from tests.integration.runtime.conftest import bundle as bundle

SYS = {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev"]}
CGROUP = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec"]}


@pytest.mark.parametrize("cgroup", ["ro", "rw"])
@pytest.mark.parametrize("sys", ["ro", "rro", "rw"])
def test_the_hosts_cgroup_tree_is_never_writable(bundle: Bundle, sys: str, cgroup: str) -> None:
    """CVE-2023-25809: without a cgroup namespace of its own a container sees the host's tree, read-only throughout."""
    linux = bundle.config["linux"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] not in ("cgroup", "network")]
    mounts = [each for each in bundle.config["mounts"] if not each["destination"].startswith("/sys")]
    mounts.append({**SYS, "options": [*SYS["options"], sys]})
    mounts.append({**CGROUP, "options": [*CGROUP["options"], cgroup]})
    bundle.config["mounts"] = mounts
    table = bundle.sh("cat /proc/self/mountinfo").stdout.splitlines()
    trees = [line.split() for line in table if line.split()[4].startswith("/sys/fs/cgroup")]
    assert trees
    assert [fields[4] for fields in trees if "ro" not in fields[5].split(",")] == []


def hook_status(bundle: Bundle) -> dict[str, str]:
    """/proc/self/status and the environment of a startContainer hook, which is a program of the image."""
    script = "cat /proc/self/status > /tmp/status; env > /tmp/env"
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    bundle.run("true")
    text = (bundle.root / "tmp/status").read_text() + (bundle.root / "tmp/env").read_text().replace("=", ":")
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def test_a_hook_inside_runs_under_the_filter(bundle: Bundle) -> None:
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO"}],
    }
    assert hook_status(bundle)["Seccomp"] == "2"


def test_a_hook_inside_gains_no_privileges(bundle: Bundle) -> None:
    bundle.config["process"]["noNewPrivileges"] = True
    assert hook_status(bundle)["NoNewPrivs"] == "1"


def test_a_hook_inside_has_the_containers_environment(bundle: Bundle) -> None:
    """runc gives a startContainer hook without `env` the environment of the process."""
    bundle.config["process"]["env"].append("GREETING=hello")
    assert hook_status(bundle)["GREETING"] == "hello"


def test_a_hook_inside_has_no_more_capabilities_than_the_process(bundle: Bundle) -> None:
    bundle.config["process"]["capabilities"] = {}
    found = hook_status(bundle)
    assert (found["CapEff"], found["CapBnd"]) == ("0" * 16, "0" * 16)


def test_a_read_only_sysfs_has_no_writable_cgroup_tree(bundle: Bundle) -> None:
    """`ro` of a recursive bind is about one mount; of the host's sysfs it is about all."""
    linux = bundle.config["linux"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] not in ("cgroup", "network")]
    mounts = [each for each in bundle.config["mounts"] if not each["destination"].startswith("/sys")]
    bundle.config["mounts"] = [*mounts, {**SYS, "options": [*SYS["options"], "ro"]}]
    table = [line.split() for line in bundle.sh("cat /proc/self/mountinfo").stdout.splitlines()]
    trees = [fields for fields in table if fields[4].startswith("/sys/fs/cgroup")]
    assert trees and [fields[4] for fields in trees if "ro" not in fields[5].split(",")] == []


def test_a_hook_inside_is_the_user_of_the_process(bundle: Bundle) -> None:
    require(owns_range(), "another user than root in the id map needs a range")
    bundle.config["process"]["user"] = {"uid": 7, "gid": 7}
    bundle.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 77}]
    (bundle.root / "tmp").chmod(0o777)
    assert hook_status(bundle)["Uid"].split() == ["7"] * 4


def test_a_hook_inside_that_cannot_run_fails_the_start(bundle: Bundle) -> None:
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/none"}]}
    done = bundle.run("true", check=False)
    assert done.returncode == 1 and "cannot run startContainer hook '/bin/none': No such file" in done.stderr
