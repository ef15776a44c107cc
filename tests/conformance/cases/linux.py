"""config-linux.md: sysctl, masked and read-only paths, propagation of the root, personality, NUMA, and refusals."""

from __future__ import annotations

import os

from tests.conformance.harness import Box, NotApplicable, case, mount_of

CONFIG = "config-linux.md"


@case(f"{CONFIG}#sysctl")
def sysctl(box: Box) -> None:
    """sysctls of the own namespaces are set, and the host's stay"""
    with open("/proc/sys/kernel/msgmax") as file:
        before = file.read()
    box.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4711", "net.ipv4.ping_group_range": "0 0"}
    seen = box.must_run("/bin/cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax").out.split()
    assert seen == ["1", "4711"]
    with open("/proc/sys/kernel/msgmax") as file:
        assert file.read() == before


@case(f"{CONFIG}#sysctl")
def sysctl_of_the_host_is_an_error(box: Box) -> None:
    """a sysctl that belongs to the whole host, or to a namespace that is not the container's own, is an error"""
    box.linux["sysctl"] = {"vm.swappiness": "1"}
    box.must_fail()
    box.linux["sysctl"] = {"kernel.msgmax": "4711"}
    box.linux["namespaces"] = [n for n in box.linux["namespaces"] if n["type"] != "ipc"]
    box.must_fail()


@case(f"{CONFIG}#masked-paths")
def masked_file(box: Box) -> None:
    """a masked file reads as empty"""
    box.linux["maskedPaths"] = ["/data/file"]
    seen = box.probe("/data/file")["paths"]["/data/file"]
    assert seen["read"] in (0, -1) and seen["size"] == 0


@case(f"{CONFIG}#masked-paths")
def masked_directory(box: Box) -> None:
    """a masked directory is empty and cannot be written"""
    box.linux["maskedPaths"] = ["/data", "/tmp"]
    for path, seen in box.probe("/data", "/tmp")["paths"].items():
        assert seen.get("entries", 0) == 0 and seen["write_errno"] != 0, path


@case(f"{CONFIG}#masked-paths")
def masked_path_that_is_missing(box: Box) -> None:
    """a masked path that does not exist is no error"""
    box.linux["maskedPaths"] = ["/nonexistent", "/proc/nonexistent"]
    box.must_run("/bin/true")


@case(f"{CONFIG}#masked-paths")
def relative_masked_path_is_an_error(box: Box) -> None:
    """masked and read-only paths have to be absolute"""
    for key in ("maskedPaths", "readonlyPaths"):
        box.linux[key] = ["data/file"]
        box.must_fail()
        del box.linux[key]


@case(f"{CONFIG}#masked-paths", "EXTRA")
def masked_proc(box: Box) -> None:
    """files of /proc can be masked"""
    box.linux["maskedPaths"] = ["/proc/keys", "/proc/timer_list", "/proc/acpi"]
    seen = box.probe("/proc/keys")["paths"]["/proc/keys"]
    assert not seen or seen["read"] in (0, -1)


@case(f"{CONFIG}#readonly-paths")
def read_only_paths(box: Box) -> None:
    """read-only paths cannot be written, files and directories; what is missing is no error"""
    box.linux["readonlyPaths"] = ["/data", "/etc/passwd", "/nonexistent", "/proc/sys"]
    seen = box.probe("/data", "/etc/passwd", "/tmp", "/proc/sys/kernel/msgmax")["paths"]
    assert seen["/data"]["write_errno"] == seen["/etc/passwd"]["write_errno"] == 30
    assert seen["/proc/sys/kernel/msgmax"]["write_errno"] != 0 and seen["/tmp"]["write_errno"] == 0


def _root_propagation(word: str, expected: str) -> None:
    def check(box: Box) -> None:
        box.linux["rootfsPropagation"] = word
        fields = " ".join(mount_of(box.probe(), "/")["propagation"])
        # slave: of nothing, where the host's mounts are private; then it is as good as private
        assert (expected in fields) if expected else "shared:" not in fields and "unbindable" not in fields, fields

    check.__name__ = f"root_propagation_{word}"
    check.__doc__ = f"rootfsPropagation {word}"
    check.__module__ = __name__
    case(f"{CONFIG}#rootfs-mount-propagation")(check)


for _word, _expected in (("shared", "shared:"), ("slave", ""), ("private", ""), ("unbindable", "unbindable")):
    _root_propagation(_word, _expected)


@case(f"{CONFIG}#rootfs-mount-propagation")
def unknown_root_propagation_is_an_error(box: Box) -> None:
    """a rootfsPropagation that does not exist is an error"""
    box.linux["rootfsPropagation"] = "sideways"
    box.must_fail()


@case(f"{CONFIG}#personality")
def personality(box: Box) -> None:
    """personality LINUX32 is the execution domain"""
    if os.uname().machine not in ("x86_64", "aarch64", "s390x", "ppc64le"):
        raise NotApplicable("this is no 64-bit processor with a 32-bit personality")
    box.linux["personality"] = {"domain": "LINUX32"}
    assert box.probe()["personality"] & 0xFF == 8


@case(f"{CONFIG}#personality")
def personality_flags_are_an_error(box: Box) -> None:
    """flags of personality, of which none is defined, are an error"""
    box.linux["personality"] = {"domain": "LINUX", "flags": ["MOON"]}
    box.must_fail()


@case(f"{CONFIG}#memory-policy (1.3)")
def memory_policy(box: Box) -> None:
    """memoryPolicy sets the NUMA policy of the program"""
    box.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0"}
    seen = box.probe()
    if seen["mempolicy"] < 0:
        raise NotApplicable("this kernel has no NUMA policies")
    assert seen["mempolicy"] == 2 and seen["mempolicy_nodes"] == 1


@case(f"{CONFIG}#memory-policy (1.3)")
def unknown_memory_policy_is_an_error(box: Box) -> None:
    """a memory policy that does not exist is an error"""
    box.linux["memoryPolicy"] = {"mode": "MPOL_MOON", "nodes": "0"}
    box.must_fail()


@case(f"{CONFIG}#intelrdt")
def resctrl_is_refused_or_given(box: Box) -> None:
    """intelRdt that this user cannot have is an error"""
    if os.access("/sys/fs/resctrl/schemata", os.W_OK):
        raise NotApplicable("this user may write /sys/fs/resctrl")
    box.linux["intelRdt"] = {"closID": "guaranteed", "l3CacheSchema": "L3:0=f"}
    box.must_fail()


@case(f"{CONFIG}#network-devices (1.3)")
def network_device_that_is_missing_is_an_error(box: Box) -> None:
    """netDevices with an interface that does not exist, or cannot be moved, is an error"""
    box.linux["netDevices"] = {"moon0": {"name": "eth0"}}
    box.must_fail()


@case("config.md#linux-process", "EXTRA")
def labels_without_their_module_are_errors(box: Box) -> None:
    """an AppArmor profile or SELinux label that cannot be honoured is an error, never ignored (CVE-2025-65105)"""
    if os.path.exists("/sys/fs/selinux/enforce") or os.path.exists("/sys/kernel/security/apparmor"):
        raise NotApplicable("this host has AppArmor or SELinux")
    box.process["apparmorProfile"] = "no-such-profile"
    assert box.run("/bin/true").failed
    del box.process["apparmorProfile"]
    box.process["selinuxLabel"] = "system_u:system_r:svirt_lxc_net_t:s0:c124,c675"
    assert box.run("/bin/true").failed
