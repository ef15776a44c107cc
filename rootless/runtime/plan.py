"""From an OCI configuration to the ordered list of operations. Pure: it looks at nothing but its arguments."""

from __future__ import annotations

import os.path

from rootless.errors import InvalidInput
from rootless.kernel import mounts as kernel
from rootless.runtime import mount_options as option_table
from rootless.runtime.operations.base import BEFORE_MOUNTS, Operation
from rootless.runtime.operations.config_mounts import (
    Bind,
    Cgroup,
    Filesystem,
    MountOperation,
    Mqueue,
    Proc,
    Sysfs,
    Tmpfs,
)
from rootless.runtime.operations.cover import Mask, ReadOnly
from rootless.runtime.operations.devices import Console, Device, Devpts, Symlink
from rootless.runtime.operations.kernel_settings import Hostname, Sysctl
from rootless.runtime.operations.root import MakeDirectory, OpenRoot, PivotRoot, SealReadOnly
from rootless.runtime.spec.oci_config import OciDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.runtime.spec.oci_config import LinuxConfig, OciConfig, OciMount

DEFAULT_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
"""runtime-spec config-linux.md, default devices; console and ptmx come with the terminal and devpts."""

_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)

_PROPAGATION = {
    "shared": kernel.MS_SHARED | kernel.MS_REC,
    "rshared": kernel.MS_SHARED | kernel.MS_REC,
    "slave": kernel.MS_SLAVE | kernel.MS_REC,
    "rslave": kernel.MS_SLAVE | kernel.MS_REC,
    "private": kernel.MS_PRIVATE | kernel.MS_REC,
    "rprivate": kernel.MS_PRIVATE | kernel.MS_REC,
    "unbindable": kernel.MS_UNBINDABLE,
    "runbindable": kernel.MS_UNBINDABLE | kernel.MS_REC,
}

# cgroup-v2.rst, "Mounting": they belong to the whole hierarchy, and the kernel ignores them in a cgroup namespace
_CGROUP_OPTIONS = frozenset(
    (
        "nsdelegate",
        "favordynmods",
        "nofavordynmods",
        "memory_localevents",
        "memory_recursiveprot",
        "memory_hugetlb_accounting",
        "pids_localevents",
    )
)

_IPC_SYSCTLS = ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.auto_msgmni")


class RootFacts:
    """What the plan must know beside the configuration.

    bundle: absolute path, where relative sources start; root_is_mounted: somebody mounts the root before the first
    operation; nosuid: not all ids of the root are the container's; is_gid_mapped: by the container's id map;
    pivot: False to move the root instead (the old root is an initramfs).
    """

    __slots__ = ("bundle", "is_gid_mapped", "nosuid", "pivot", "root_is_mounted")

    def __init__(
        self,
        bundle: str,
        is_gid_mapped: Callable[[int], bool],
        *,
        root_is_mounted: bool = False,
        nosuid: bool = False,
        pivot: bool = True,
    ) -> None:
        self.bundle = bundle
        self.is_gid_mapped = is_gid_mapped
        self.root_is_mounted = root_is_mounted
        self.nosuid = nosuid
        self.pivot = pivot


def operations(config: OciConfig, facts: RootFacts, extra: Sequence[Operation] = ()) -> list[Operation]:
    """All steps from the bare mount namespace to the container's `/`, in the order to apply them.

    extra: the caller's own, put before or after the configuration's mounts by their stage. Raises InvalidInput for
    what contradicts itself.
    """
    linux = config.linux
    own = {namespace.kind for namespace in linux.namespaces}
    process = config.process
    plan: list[Operation] = [OpenRoot(bind=not facts.root_is_mounted, nosuid=facts.nosuid)]
    plan += [op for op in extra if op.stage == BEFORE_MOUNTS]
    plan += [_mapped(_mount(entry, own, facts), entry, linux, i) for i, entry in enumerate(config.mounts)]
    plan += _devices(linux.devices)
    if process is not None and process.terminal:
        plan.append(Console(process.user.uid, *(process.console_size or (0, 0))))
    plan += [op for op in extra if op.stage != BEFORE_MOUNTS]
    if config.hostname or config.domainname:
        if "uts" not in own:
            raise InvalidInput("config property 'hostname' needs an own uts namespace")
        plan.append(Hostname(config.hostname, config.domainname))
    plan += [_sysctl(key, value, own) for key, value in linux.sysctl.items()]
    if process is not None and process.cwd != "/":
        plan.append(MakeDirectory(process.cwd))
    if linux.readonly_paths:
        plan.append(ReadOnly(linux.readonly_paths))
    if linux.masked_paths:
        plan.append(Mask(linux.masked_paths))
    plan.append(SealReadOnly(root=config.root_is_readonly))
    propagation = _PROPAGATION[linux.rootfs_propagation] if linux.rootfs_propagation else 0
    plan.append(PivotRoot(propagation=propagation, pivot=facts.pivot))
    return plan


def root_propagation(config: OciConfig) -> int:
    """MS_* for the whole tree before anything is mounted: slave, so that later mounts of the host still arrive."""
    word = config.linux.rootfs_propagation or "rslave"
    if word.lstrip("r").startswith("private"):
        return kernel.MS_PRIVATE | kernel.MS_REC
    return kernel.MS_SLAVE | kernel.MS_REC


def describe(plan: Sequence[Operation]) -> list[str]:
    """The plan as lines, for `--debug`."""
    return [operation.describe() for operation in plan]


def _mount(entry: OciMount, own: set[str], facts: RootFacts) -> Operation:
    destination = os.path.normpath("/" + entry.destination.lstrip("/"))
    options = option_table.parse_mount_options(entry.options)
    fstype, source = entry.fstype, entry.source
    if options.bind or fstype == "bind":
        unknown = [word for word in options.filesystem if "=" not in word]
        if unknown:
            raise InvalidInput(f"mount '{destination}': unknown option '{unknown[0]}' for a bind")
        return Bind(os.path.join(facts.bundle, source), destination, options)
    if destination == "/proc" and fstype != "proc":
        raise InvalidInput("mount '/proc': only type proc or a bind of it can be there")
    if fstype == "proc":
        return Proc(destination, options) if "pid" in own else _host_tree("/proc", destination, options)
    if fstype == "sysfs":
        return Sysfs(destination, options) if "network" in own else _host_tree("/sys", destination, options)
    if fstype == "mqueue":
        if "ipc" in own:
            return Mqueue(destination, options)
        return _host_tree("/dev/mqueue", destination, options, optional=True)
    if fstype == "tmpfs":
        return Tmpfs(source or fstype, destination, options)
    if fstype == "devpts":
        options.filesystem = [w for w in options.filesystem if not _is_unmapped_gid(w, facts)]
        return Devpts(destination, options)
    if fstype in ("cgroup", "cgroup2"):
        unknown = [word for word in options.filesystem if word not in _CGROUP_OPTIONS]
        if unknown:
            raise InvalidInput(f"mount '{destination}': unknown option '{unknown[0]}' for a cgroup")
        return Cgroup(destination, options, own_namespace="cgroup" in own)
    return Filesystem(fstype, source or None, destination, options)


def _mapped(operation: Operation, entry: OciMount, linux: LinuxConfig, index: int) -> Operation:
    """Give a mount the id map of its own that the configuration asks for."""
    if entry.uids and isinstance(operation, MountOperation):
        from rootless.runtime.operations.idmapped import IdMapped

        operation.idmap = IdMapped(f"mounts[{index}]", entry, linux)
    return operation


def _is_unmapped_gid(word: str, facts: RootFacts) -> bool:
    name, _, value = word.partition("=")
    if name != "gid":
        return False
    from rootless.units import whole_number

    gid = whole_number(value)
    return gid is not None and not facts.is_gid_mapped(gid)


def _host_tree(
    source: str, destination: str, options: option_table.MountOptions, *, optional: bool = False
) -> Operation:
    """The host's own instance of a kernel filesystem, where the container shares the namespace behind it."""
    tree = option_table.MountOptions()
    tree.bind = tree.recursive = True
    tree.recursive_set = options.recursive_set | (options.set & ~kernel.MOUNT_ATTR__ATIME)
    tree.propagation = options.propagation
    return Bind(source, destination, tree, optional=optional)


def _devices(listed: list[OciDevice]) -> list[Operation]:
    devices: dict[str, Operation] = {
        path: Device(path, OciDevice(path, "c", major, minor)) for path, major, minor in DEFAULT_DEVICES
    }
    for entry in listed:
        path = os.path.normpath("/" + entry.path.lstrip("/"))
        if path in ("/dev/ptmx", "/dev/console"):
            continue  # the container has its own
        devices[path] = Device(path, entry)
    return [*devices.values(), *(Symlink(target, name) for target, name in _LINKS)]


def _sysctl(key: str, value: str, own: set[str]) -> Operation:
    name = key.replace("/", ".")
    if name.startswith("net."):
        needed = "network"
    elif name in _IPC_SYSCTLS or name.startswith(("kernel.shm", "fs.mqueue.")):
        needed = "ipc"
    elif name in ("kernel.hostname", "kernel.domainname"):
        needed = "uts"
    elif name.startswith("user."):
        needed = "user"
    else:
        raise InvalidInput(f"config property 'linux.sysctl': '{key}' belongs to the whole host, not to a namespace")
    if needed not in own:
        raise InvalidInput(f"config property 'linux.sysctl': '{key}' needs an own {needed} namespace")
    return Sysctl(key, value)
