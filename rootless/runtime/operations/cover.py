"""The operations for maskedPaths and readonlyPaths of the runtime specification (config-linux.md).

What is bound over a masked file is proven to be the null device, by its fd.
"""

from __future__ import annotations

import os
import stat

from rootless.errors import RuntimeFailure
from rootless.kernel import mounts
from rootless.runtime.mount_options import MountOptions
from rootless.runtime.operations import attach
from rootless.runtime.operations.base import Operation, RootContext, existing, reopened

NULL_DEVICE = os.makedev(1, 3)


class Mask(Operation):
    """Hide `targets`: a file below the null device, a directory below an empty read-only tmpfs; missing ones are fine.
    One that is hidden already, by whatever name it was given before, is not hidden again.

    CVE-2025-31133: an image or another container could put a link in the place of /dev/null, and the masked file would
    then show, and let be written, whatever the link names. So the host's null device is opened once, checked by its fd,
    and bound from that fd.
    """

    __slots__ = ("targets",)

    def __init__(self, targets: list[str]) -> None:
        self.targets = targets

    def describe(self) -> str:
        return "mask " + ", ".join(f"'{p}'" for p in self.targets)

    def apply(self, context: RootContext) -> None:
        null = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
        empty = -1
        try:
            status = os.fstat(null)
            if not stat.S_ISCHR(status.st_mode) or status.st_rdev != NULL_DEVICE:
                raise RuntimeFailure("cannot mask paths: the host's '/dev/null' is not the null device")
            for path in self.targets:
                target = existing(context, path)
                if target is None:
                    continue
                try:
                    found = os.fstat(target)
                    if stat.S_ISDIR(found.st_mode):
                        if empty < 0 or found.st_dev != os.fstat(empty).st_dev:
                            empty = self._directory(context, path, target, empty)
                    elif not os.path.samestat(found, status):
                        os.close(attach.bind(null, target, lambda: os.dup(null), recursive=False))
                finally:
                    os.close(target)
        finally:
            os.close(null)
            if empty >= 0:
                os.close(empty)

    def _directory(self, context: RootContext, path: str, target: int, empty: int) -> int:
        """Cover one directory by an empty tmpfs, and return an fd of that tmpfs.

        empty: the tmpfs of an earlier directory, which is bound here too; -1 makes the first one.
        """
        if empty >= 0:
            os.close(attach.bind(empty, target, lambda: os.dup(empty), recursive=False))
            return empty
        options = MountOptions()
        options.set = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC
        options.filesystem = ["size=0", "nr_inodes=1", "mode=755"]
        new = attach.NewFilesystem("tmpfs", "tmpfs", options)
        empty = attach.filesystem(new, target, lambda: reopened(context, path))
        attach.set_attributes(empty, mounts.MOUNT_ATTR_RDONLY)
        return empty


class ReadOnly(Operation):
    """Make `targets` read-only with all that is mounted below them; missing ones are fine."""

    __slots__ = ("targets",)

    def __init__(self, targets: list[str]) -> None:
        self.targets = targets

    def describe(self) -> str:
        return "make read-only " + ", ".join(f"'{p}'" for p in self.targets)

    def apply(self, context: RootContext) -> None:
        for path in dict.fromkeys(self.targets):
            target = existing(context, path)
            if target is not None:
                try:
                    self._seal(context, path, target)
                finally:
                    os.close(target)

    def _seal(self, context: RootContext, path: str, target: int) -> None:
        mount = attach.bind(target, target, lambda: reopened(context, path), recursive=True)
        try:
            attach.set_attributes(mount, mounts.MOUNT_ATTR_RDONLY, recursive=True)
        finally:
            os.close(mount)
