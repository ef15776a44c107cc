"""The OCI configuration: read with bounds, checked property by property. What follows from it is decided elsewhere.

runtime-spec 1.3 (config.md, config-linux.md). A configuration is hostile input: what passes `validate` has the types
that the rest of the runtime counts on.
"""

from __future__ import annotations

import json
import os
import stat

from rootless.errors import InvalidInput
from rootless.runtime.process.command import RLIMITS
from rootless.runtime.process.hooks import STAGES
from rootless.runtime.process.namespace_steps import FLAGS
from rootless.runtime.process.scheduling import FLAGS as SCHEDULER_FLAGS
from rootless.runtime.process.scheduling import IO_CLASSES, MEMORY_FLAGS, MEMORY_MODES, PERSONALITIES, POLICIES, numbers
from rootless.runtime.schema import (
    absolute,
    anything,
    array,
    boolean,
    fail,
    filled,
    integer,
    mapping,
    one_of,
    record,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAXIMUM = 8 << 20
"""Bytes of config.json."""

_ID = integer(0, 0xFFFFFFFE)
_UINT32 = integer(0, 0xFFFFFFFF)
_INT32 = integer(-(1 << 31), (1 << 31) - 1)
_UINT64 = integer(0, (1 << 64) - 1)
_INT64 = integer(-(1 << 63), (1 << 63) - 1)
# podman writes RLIM_INFINITY as -1 in some versions
_LIMIT = integer(-1, (1 << 64) - 1)
_IDS = array(
    record({"containerID": _ID, "hostID": _ID, "size": _UINT32}, required=("containerID", "hostID", "size")), most=340
)
_CAPABILITIES = array(text, most=256)
_HOOKS = array(
    record(
        {"path": absolute, "args": array(text), "env": array(text), "timeout": integer(1, 86400)}, required=("path",)
    ),
    most=100,
)
_PROPAGATIONS = one_of("shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable", "")
_SIZE = record({"height": integer(0, 65535), "width": integer(0, 65535)}, required=("height", "width"))


def _list_of_numbers(path: str, value: Any) -> None:
    text(path, value)
    try:
        numbers(value)
    except ValueError:
        raise fail(path, f"must be a list of numbers such as 0-3,7, not '{value}'") from None


def _interface(path: str, value: Any) -> None:
    text(path, value)
    # netdev(9), dev_valid_name
    if not 0 < len(value.encode(errors="replace")) < 16 or value in (".", "..") or set(value) & set("/: \t\n"):
        raise fail(path, f"must be the name of an interface, not '{value}'")


def _no_flags(path: str, value: Any) -> None:
    if value:
        raise fail(path, "must be empty: the specification defines no such flag")


_OFFSET = record({"secs": _INT64, "nanosecs": integer(0, 999_999_999)})

PROCESS = record(
    {
        "terminal": boolean,
        "consoleSize": _SIZE,
        "cwd": absolute,
        "env": array(text),
        "args": array(text, least=1),
        "commandLine": text,
        "rlimits": array(
            record({"type": one_of(*RLIMITS), "soft": _LIMIT, "hard": _LIMIT}, required=("type", "soft", "hard"))
        ),
        "user": record({"uid": _ID, "gid": _ID, "umask": integer(0, 0o777), "additionalGids": array(_ID, most=65536)}),
        "capabilities": record(
            dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), _CAPABILITIES)
        ),
        "noNewPrivileges": boolean,
        "apparmorProfile": text,
        "selinuxLabel": text,
        "oomScoreAdj": integer(-1000, 1000),
        "scheduler": record(
            {
                "policy": one_of(*POLICIES),
                "nice": integer(-20, 19),
                "priority": _INT32,
                "flags": array(one_of(*SCHEDULER_FLAGS)),
                "runtime": _UINT64,
                "deadline": _UINT64,
                "period": _UINT64,
            },
            required=("policy",),
        ),
        "execCPUAffinity": record({"initial": _list_of_numbers, "final": _list_of_numbers}),
        "ioPriority": record({"class": one_of(*IO_CLASSES), "priority": integer(0, 7)}, required=("class",)),
    },
    required=("cwd", "args"),
)

_CONFIG = record(
    {
        "ociVersion": filled,
        "root": record({"path": filled, "readonly": boolean}, required=("path",)),
        "hostname": text,
        "domainname": text,
        "annotations": mapping(text),
        "process": PROCESS,
        "mounts": array(
            record(
                {
                    "destination": filled,
                    "type": text,
                    "source": text,
                    "options": array(text, most=1000),
                    "uidMappings": _IDS,
                    "gidMappings": _IDS,
                },
                required=("destination",),
            ),
            most=10_000,
        ),
        "hooks": record(dict.fromkeys(STAGES, _HOOKS)),
        "linux": record(
            {
                "namespaces": array(record({"type": one_of(*FLAGS), "path": absolute}, required=("type",)), most=8),
                "uidMappings": _IDS,
                "gidMappings": _IDS,
                "timeOffsets": record({"monotonic": _OFFSET, "boottime": _OFFSET}),
                "devices": array(
                    record(
                        {
                            "type": one_of("c", "b", "u", "p"),
                            "path": absolute,
                            "major": _UINT32,
                            "minor": _UINT32,
                            "fileMode": integer(0, 0o7777 | 0o170000),
                            "uid": _ID,
                            "gid": _ID,
                        },
                        required=("type", "path"),
                    ),
                    most=10_000,
                ),
                "cgroupsPath": text,
                "sysctl": mapping(text),
                "maskedPaths": array(absolute, most=10_000),
                "readonlyPaths": array(absolute, most=10_000),
                "rootfsPropagation": _PROPAGATIONS,
                "mountLabel": text,
                "resources": anything,
                "seccomp": record(
                    {"defaultAction": filled, "listenerPath": absolute, "listenerMetadata": text},
                    required=("defaultAction",),
                ),
                "personality": record({"domain": one_of(*PERSONALITIES), "flags": _no_flags}, required=("domain",)),
                "memoryPolicy": record(
                    {
                        "mode": one_of(*MEMORY_MODES),
                        "nodes": _list_of_numbers,
                        "flags": array(one_of(*MEMORY_FLAGS), most=8),
                    },
                    required=("mode",),
                ),
                "intelRdt": anything,
                "netDevices": mapping(record({"name": _interface})),
            }
        ),
    },
    required=("ociVersion", "root"),
)


def load_config(bundle: str) -> dict[str, Any]:
    """The validated configuration of directory `bundle`. Raises InvalidInput."""
    return load(os.path.join(bundle, "config.json"))


def load(path: str) -> dict[str, Any]:
    """The validated configuration in a file."""
    config: dict[str, Any] = read_json(path)
    validate(config)
    return config


def read_json(path: str) -> Any:
    """The JSON value in `path`: a regular file of at most MAXIMUM bytes. Raises InvalidInput."""
    try:
        # a FIFO would hang us
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        raise InvalidInput(
            f"cannot read '{path}': {e.strerror}", hint="is this the bundle's directory? (flag --bundle)"
        ) from e
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidInput(f"cannot read '{path}': it is no regular file")
        content = file.read(MAXIMUM + 1)
    if len(content) > MAXIMUM:
        raise InvalidInput(f"cannot read '{path}': it is larger than {MAXIMUM} bytes")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as e:
        raise InvalidInput(f"cannot read '{path}': it is no JSON: {e}") from e


def validate(config: Any) -> None:
    """Raise InvalidInput, naming the property, unless `config` can be worked with."""
    _CONFIG("", config)
    major = config["ociVersion"].partition(".")[0]
    if major != "1":
        raise fail("ociVersion", f"must be of version 1, not '{config['ociVersion']}'")
    for key in ("vm", "windows", "solaris", "zos"):
        if config.get(key) is not None and config.get("linux") is None:
            raise fail(key, "is for another platform: this runtime is for Linux")
    linux = config.get("linux") or {}
    _no_duplicates("linux.namespaces", [n["type"] for n in linux.get("namespaces") or []])
    process = config.get("process")
    if process is not None:
        validate_process(process, checked=True)
    spaces = {n["type"] for n in linux.get("namespaces") or []}
    if linux.get("timeOffsets") and "time" not in spaces:
        raise fail("linux.timeOffsets", "needs an own time namespace")
    if linux.get("intelRdt"):
        raise fail("linux.intelRdt", "cannot be had by an ordinary user: /sys/fs/resctrl belongs to root")
    if linux.get("netDevices") and "network" not in spaces:
        raise fail("linux.netDevices", "needs an own network namespace")
    if linux.get("mountLabel") and not selinux_is_on():
        raise fail("linux.mountLabel", "cannot be honoured: this host has no SELinux")
    for index, mount in enumerate(config.get("mounts") or []):
        mapped = bool(mount.get("uidMappings")), bool(mount.get("gidMappings"))
        if any(mapped) != all(mapped) or ({"idmap", "ridmap"} & set(mount.get("options") or []) and not any(mapped)):
            raise fail(f"mounts[{index}]", "asks for an idmapped mount, which needs uidMappings and gidMappings")


def validate_process(process: Any, *, checked: bool = False) -> None:
    """The same for one `process` object (of `exec --process`)."""
    if not checked:
        PROCESS("process", process)
    _no_duplicates("process.rlimits", [limit["type"] for limit in process.get("rlimits") or []])
    for index, limit in enumerate(process.get("rlimits") or []):
        if 0 <= limit["hard"] < limit["soft"]:
            raise fail(f"process.rlimits[{index}]", "has a soft limit above the hard one")
    if process.get("apparmorProfile") not in (None, "", "unconfined") and not apparmor_is_on():
        raise fail("process.apparmorProfile", "cannot be honoured: this host has no AppArmor")
    if process.get("selinuxLabel") and not selinux_is_on():
        raise fail("process.selinuxLabel", "cannot be honoured: this host has no SELinux")


def apparmor_is_on() -> bool:
    """Whether the kernel enforces AppArmor profiles."""
    try:
        with open("/sys/module/apparmor/parameters/enabled") as f:
            return f.read(1) == "Y"
    except OSError:
        return False


def selinux_is_on() -> bool:
    """Whether the kernel enforces SELinux labels."""
    return os.path.exists("/sys/fs/selinux/enforce")


def _no_duplicates(path: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise fail(path, f"has '{name}' twice")
