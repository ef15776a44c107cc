"""Typed steps that build the container's view of the system; each can describe and apply itself."""

from rootless.runtime.operations.base import AFTER_MOUNTS, BEFORE_MOUNTS, Operation, RootContext
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

__all__ = [
    "AFTER_MOUNTS",
    "BEFORE_MOUNTS",
    "Bind",
    "Cgroup",
    "Console",
    "Device",
    "Devpts",
    "Filesystem",
    "Hostname",
    "MakeDirectory",
    "Mask",
    "MountOperation",
    "Mqueue",
    "OpenRoot",
    "Operation",
    "PivotRoot",
    "Proc",
    "ReadOnly",
    "RootContext",
    "SealReadOnly",
    "Symlink",
    "Sysctl",
    "Sysfs",
    "Tmpfs",
]
