"""Placing one mount on a checked fd: the mount API of Linux 5.2, and mount(2) where that is missing. It plans nothing.

ROOTLESS_NO_MOUNT_API=1 in the environment forces the old way, so that tests reach it.
"""

from __future__ import annotations

import errno
import os

from rootless.kernel import mounts
from rootless.runtime.operations.base import fd_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.runtime.mount_options import MountOptions
    from rootless.runtime.operations.idmapped import IdMapped

# Where the new calls are missing the kernel answers ENOSYS. The seccomp filter of a container that we run in may answer
# EPERM for calls that it does not know.
_MISSING = (errno.ENOSYS, errno.EPERM, errno.EINVAL)

_ATTRIBUTE_FLAGS = (
    (mounts.MOUNT_ATTR_RDONLY, mounts.MS_RDONLY),
    (mounts.MOUNT_ATTR_NOSUID, mounts.MS_NOSUID),
    (mounts.MOUNT_ATTR_NODEV, mounts.MS_NODEV),
    (mounts.MOUNT_ATTR_NOEXEC, mounts.MS_NOEXEC),
    (mounts.MOUNT_ATTR_NODIRATIME, mounts.MS_NODIRATIME),
    (mounts.MOUNT_ATTR_NOSYMFOLLOW, mounts.MS_NOSYMFOLLOW),
)


def has_mount_api() -> bool:
    """Whether the new calls may be tried."""
    return os.environ.get("ROOTLESS_NO_MOUNT_API") != "1"


class NewFilesystem:
    """A file system to mount: type and source as mount(2) has them, options as `mount_options` sorts them.

    fill: is called with an fd of its root before anybody else can see it (before Linux 5.2: as soon as it is mounted).
    """

    __slots__ = ("fill", "fstype", "options", "source")

    def __init__(self, fstype: str, source: str | None, options: MountOptions) -> None:
        self.fstype = fstype
        self.source = source
        self.options = options
        self.fill: Callable[[int], None] = _leave_empty


def _leave_empty(mount: int) -> None:
    pass


def open_source(path: str) -> int:
    """An fd, as with O_PATH, of what is to be bound; links are followed. What is mounted on demand (autofs) is mounted,
    which open(2) with O_PATH leaves out. Raises OSError."""
    if has_mount_api():
        try:
            return mounts.open_tree(mounts.AT_FDCWD, path, 0)
        except OSError as e:
            if e.errno not in _MISSING:
                raise
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def bind(
    source: int | str, target: int, reopen: Callable[[], int], *, recursive: bool, idmap: IdMapped | None = None
) -> int:
    """Bind `source` (path, or fd taken as it is) on the file of `target`; return an fd of the new mount's root.

    reopen: opens the target again, now with the mount on it; the old way needs that. idmap: only the new way has it.
    """
    if idmap is not None:
        tree = clone(source, recursive=recursive)
        idmap.apply(tree)
        mounts.move_mount(tree, target)
        return tree
    if has_mount_api():
        try:
            tree = clone(source, recursive=recursive)
        except OSError as e:
            # EINVAL also means that a bind without its submounts would uncover what those hide, which a less privileged
            # mount namespace may not do (mount_namespaces(7)). The old call below is refused alike, and reports it.
            if e.errno not in _MISSING:
                raise
        else:
            mounts.move_mount(tree, target)
            return tree
    path = source if isinstance(source, str) else fd_path(source)
    mounts.mount(path, fd_path(target), None, mounts.MS_BIND | (mounts.MS_REC if recursive else 0))
    return reopen()


def clone(source: int | str, *, recursive: bool) -> int:
    """A detached copy of the mount at `source` (Linux 5.2)."""
    flags = mounts.OPEN_TREE_CLONE | (mounts.AT_RECURSIVE if recursive else 0)
    if isinstance(source, str):
        return mounts.open_tree(mounts.AT_FDCWD, source, flags)
    return mounts.open_tree(source, "", flags | mounts.AT_EMPTY_PATH)


def filesystem(new: NewFilesystem, target: int, reopen: Callable[[], int], idmap: IdMapped | None = None) -> int:
    """Mount `new` on the file of the fd `target`; return an fd of the root of the new mount. OSError of the kernel's.

    reopen: as for `bind`; idmap: the map of the mount, which only the calls of Linux 5.12 can give it.
    """
    if idmap is not None:
        mount = detached(new)
        idmap.apply(mount)
        new.fill(mount)
        mounts.move_mount(mount, target)
        return mount
    if has_mount_api():
        try:
            mount = detached(new)
        except OSError as e:
            if e.errno != errno.ENOSYS:
                raise
        else:
            new.fill(mount)
            mounts.move_mount(mount, target)
            return mount
    options = new.options
    flags = _flags(options.set & ~mounts.MOUNT_ATTR_RDONLY)
    for word, flag in (
        ("sync", mounts.MS_SYNCHRONOUS),
        ("dirsync", mounts.MS_DIRSYNC),
        ("mand", mounts.MS_MANDLOCK),
        ("lazytime", mounts.MS_LAZYTIME),
    ):
        if word in options.superblock:
            flags |= flag
    mounts.mount(new.source or new.fstype, fd_path(target), new.fstype, flags, ",".join(options.filesystem) or None)
    mount = reopen()
    new.fill(mount)
    return mount


def detached(new: NewFilesystem) -> int:
    """A new filesystem that is mounted nowhere yet. Read-only is left out: it comes last, see `set_attributes`."""
    options = new.options
    context = mounts.fsopen(new.fstype)
    try:
        if new.source:
            mounts.fsconfig_string(context, "source", new.source)
        for word in options.superblock:
            mounts.fsconfig_flag(context, word)
        for word in options.filesystem:
            key, separator, value = word.partition("=")
            if separator:
                mounts.fsconfig_string(context, key, value)
            else:
                mounts.fsconfig_flag(context, key)
        mounts.fsconfig_create(context)
        return mounts.fsmount(context, options.set & ~mounts.MOUNT_ATTR_RDONLY)
    finally:
        os.close(context)


def set_attributes(mount: int, gained: int, lost: int = 0, *, recursive: bool = False) -> None:
    """Add and take MOUNT_ATTR_* of the mount that `mount` is the root of, or of it and all below.

    The old way is a remount, which sets all flags anew. Flags of a mount that came from a more privileged mount
    namespace are locked (mount_namespaces(7)), and a remount that leaves one out is refused with EPERM: so the flags
    that are there are repeated.
    """
    if has_mount_api():
        try:
            mounts.mount_setattr(mount, set=gained, clear=lost, recursive=recursive)
            return
        except OSError as e:
            if e.errno != errno.ENOSYS:
                raise
    paths = [fd_path(mount)]
    if recursive:
        paths += _below(os.readlink(fd_path(mount)))
    for path in paths:
        present = mounts.statfs_flags(path)
        flags = (present & ~_flags(lost)) | _flags(gained)
        mounts.mount(None, path, None, mounts.MS_REMOUNT | mounts.MS_BIND | flags)


def _below(path: str) -> list[str]:
    """Where mounts lie below `path`, outermost first."""
    from rootless.kernel.procfs import mountinfo

    prefix = path.rstrip("/") + "/"
    return sorted({m.target for m in mountinfo() if m.target.startswith(prefix)})


def _flags(attributes: int) -> int:
    """The MS_* flags of mount(2) that mean the same as the MOUNT_ATTR_* bits `attributes`."""
    flags = 0
    for attribute, flag in _ATTRIBUTE_FLAGS:
        if attributes & attribute:
            flags |= flag
    choice = attributes & mounts.MOUNT_ATTR__ATIME
    if choice == mounts.MOUNT_ATTR_NOATIME:
        flags |= mounts.MS_NOATIME
    elif choice == mounts.MOUNT_ATTR_STRICTATIME:
        flags |= mounts.MS_STRICTATIME
    return flags
