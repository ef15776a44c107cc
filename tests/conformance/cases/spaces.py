"""config-linux.md, namespaces and their contents: new ones, given ones, inherited ones, id maps, clocks."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.conformance.harness import NAMESPACES, Box, NotApplicable, case, own_range

SPACES = "config-linux.md#namespaces"
FILES = {"user": "user", "mount": "mnt", "network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid", "cgroup": "cgroup",
         "time": "time"}  # fmt: skip


def _own(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{FILES[kind]}")


@case(SPACES)
def new_namespaces(box: Box) -> None:
    """a type without a path is a new namespace"""
    seen = box.probe()["namespaces"]
    for kind in NAMESPACES:
        assert seen[FILES[kind]] != _own(kind), kind


@case(SPACES)
def absent_types_are_inherited(box: Box) -> None:
    """a type that is not listed is the runtime's own"""
    box.linux["namespaces"] = [n for n in box.linux["namespaces"] if n["type"] not in ("ipc", "uts", "network")]
    del box.config["hostname"]
    # a new sysfs wants an own network namespace
    box.config["mounts"] = [m for m in box.config["mounts"] if m["destination"] != "/sys"]
    seen = box.probe()["namespaces"]
    for kind in ("ipc", "uts", "network"):
        assert seen[FILES[kind]] == _own(kind), kind


@case(SPACES)
def cgroup_namespace(box: Box) -> None:
    """a cgroup namespace of its own"""
    box.linux["namespaces"].append({"type": "cgroup"})
    assert box.probe()["namespaces"]["cgroup"] != _own("cgroup")


@contextmanager
def _holder(*flags: str) -> Iterator[int]:
    """A process with namespaces of its own, made by unshare(1); its pid."""
    with subprocess.Popen(
        ["unshare", "--map-root-user", *flags, "/bin/sh", "-c", "echo up; exec cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout and process.stdin
        if process.stdout.readline() != b"up\n":
            raise NotApplicable("this host has no unshare(1) with these namespaces")
        yield process.pid
        process.stdin.close()


@case(SPACES)
def namespaces_by_path(box: Box) -> None:
    """a namespace with a path is joined"""
    with _holder("--ipc", "--uts", "--net") as pid:
        joined = ("user", "ipc", "uts", "network")
        rest = [n for n in box.linux["namespaces"] if n["type"] not in joined]
        box.linux["namespaces"] = [*({"type": k, "path": f"/proc/{pid}/ns/{FILES[k]}"} for k in joined), *rest]
        del box.linux["uidMappings"], box.linux["gidMappings"], box.config["hostname"]
        expected = {k: os.readlink(f"/proc/{pid}/ns/{FILES[k]}") for k in joined}
        seen = box.probe()["namespaces"]
    for kind in joined:
        assert seen[FILES[kind]] == expected[kind], kind


@case(SPACES)
def path_of_another_type_is_an_error(box: Box) -> None:
    """a path to a namespace of another type is an error"""
    for entry in box.linux["namespaces"]:
        if entry["type"] == "ipc":
            entry["path"] = "/proc/self/ns/uts"
    box.must_fail()


@case(SPACES)
def missing_path_is_an_error(box: Box) -> None:
    """a path that does not exist is an error"""
    box.linux["namespaces"][1]["path"] = "/nonexistent/ns"
    box.must_fail()


@case(SPACES)
def duplicate_type_is_an_error(box: Box) -> None:
    """a type that is listed twice is an error"""
    box.linux["namespaces"].append({"type": "ipc"})
    box.must_fail()


@case(SPACES)
def unknown_type_is_an_error(box: Box) -> None:
    """a type that does not exist is an error"""
    box.linux["namespaces"].append({"type": "moon"})
    box.must_fail()


@case("config-linux.md#user-namespace-mappings")
def id_maps(box: Box) -> None:
    """uid_map and gid_map are the mappings of the configuration"""
    seen = box.probe()
    for name, key in (("uid_map", "uidMappings"), ("gid_map", "gidMappings")):
        lines = [tuple(map(int, line.split())) for line in seen[name].splitlines()]
        assert sum(size for _, _, size in lines) == sum(e["size"] for e in box.linux[key]), name
        assert lines[0][0] == box.linux[key][0]["containerID"], name


@case("config-linux.md#user-namespace-mappings")
def foreign_ids_are_refused(box: Box) -> None:
    """a mapping of ids that are not this user's is an error"""
    if os.geteuid() == 0:
        raise NotApplicable("root may map any id")
    box.linux["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}]
    box.must_fail()


@case("config.md#hostname")
def host_name(box: Box) -> None:
    """hostname is the name inside, and not outside"""
    before = os.uname().nodename
    assert box.probe()["hostname"] == "conformance" and os.uname().nodename == before


@case("config.md#domainname")
def domain_name(box: Box) -> None:
    """domainname is the NIS domain inside"""
    box.config["domainname"] = "example.org"
    assert box.probe()["domainname"] == "example.org"


@case("config.md#hostname")
def host_name_without_namespace_is_an_error(box: Box) -> None:
    """hostname without an own uts namespace is an error"""
    box.linux["namespaces"] = [n for n in box.linux["namespaces"] if n["type"] != "uts"]
    box.must_fail()


@case("config-linux.md#offset-for-time-namespace")
def time_offsets(box: Box) -> None:
    """timeOffsets move the clocks of an own time namespace"""
    if not os.path.exists("/proc/self/ns/time"):
        raise NotApplicable("this kernel has no time namespaces")
    box.linux["namespaces"].append({"type": "time"})
    box.linux["timeOffsets"] = {
        "boottime": {"secs": 1_000_000, "nanosecs": 0},
        "monotonic": {"secs": 2_000_000, "nanosecs": 5},
    }
    seen = box.probe()
    assert seen["boottime"] - time.clock_gettime(time.CLOCK_BOOTTIME) > 999_000
    assert seen["monotonic"] - time.clock_gettime(time.CLOCK_MONOTONIC) > 1_999_000


@case("config-linux.md#offset-for-time-namespace")
def time_offsets_need_a_namespace(box: Box) -> None:
    """timeOffsets without an own time namespace are an error"""
    box.linux["timeOffsets"] = {"boottime": {"secs": 1_000, "nanosecs": 0}}
    box.must_fail()


@case(SPACES)
def loopback_is_up(box: Box) -> None:
    """the loopback interface of a new network namespace is there"""
    seen = box.sh("cat /sys/class/net/lo/flags").out
    assert seen.startswith("0x")


@case(SPACES, "EXTRA")
def pid_namespace_starts_empty(box: Box) -> None:
    """the program sees its own processes only"""
    pids = [w for w in box.must_run("/bin/ls", "/proc").out.split() if w.isdigit()]
    assert pids == ["1"]


@case("config-linux.md#user-namespace-mappings", "EXTRA")
def files_of_other_ids(box: Box) -> None:
    """root of the container can give files to every id of the map"""
    if not own_range():
        raise NotApplicable("this user has one id only")
    assert not box.sh("touch /tmp/x && busybox chown 33:44 /tmp/x && stat -c %u:%g /tmp/x | grep -q 33:44").failed
