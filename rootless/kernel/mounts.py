"""The mount system calls, old and new. It knows no order of mounts and checks no target."""

from __future__ import annotations

import ctypes
import os
import struct

from rootless.kernel.libc import check_result, libc, syscall, syscall_number

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_DETACH = 2

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

MOUNT_ATTR_RDONLY = 0x00000001
MOUNT_ATTR_NOSUID = 0x00000002
MOUNT_ATTR_NODEV = 0x00000004
MOUNT_ATTR_NOEXEC = 0x00000008
MOUNT_ATTR__ATIME = 0x00000070
MOUNT_ATTR_NOATIME = 0x00000010
MOUNT_ATTR_STRICTATIME = 0x00000020
MOUNT_ATTR_NODIRATIME = 0x00000080
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000

PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
DEVPTS_SUPER_MAGIC = 0x1CD1
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270
OVERLAYFS_SUPER_MAGIC = 0x794C7630

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6

# statvfs's ST_* that differ from or are missing in the MS_* of mount(2)
_ST_RELATIME = 4096
_ST_NOSYMFOLLOW = 8192
_ST_SAME = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME

libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_char_p)


def _optional(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2). `data` longer than a page is EINVAL: use fsopen and its family there."""
    result = libc.mount(_optional(source), os.fsencode(target), _optional(fstype), flags, _optional(data))
    check_result(result, "mount", source or fstype or "none", target, fstype, hex(flags), data)


def umount(target: str, flags: int = 0) -> None:
    """Unmount what is mounted at `target` (umount2(2)); flags: MNT_* and UMOUNT_*. Raises OSError."""
    check_result(libc.umount2(os.fsencode(target), flags), "umount2", target, flags)


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root of this mount namespace and move the old root to `old` (pivot_root(2)). Raises OSError."""
    syscall(syscall_number("pivot_root"), os.fsencode(new), os.fsencode(old))


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2): fd of the mount at `path`, or of a detached copy with OPEN_TREE_CLONE. Close-on-exec always.

    A detached copy that is attached nowhere ends with its last fd: nothing has to be unmounted after a failure.
    """
    return syscall(_OPEN_TREE, dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)


def move_mount(from_fd: int, to_fd: int) -> None:
    """Attach the mount of `from_fd` on the file of `to_fd`, both taken as they are, without resolving any name.

    `to_fd` stays below the new mount: open the target again to work inside it.
    """
    syscall(_MOVE_MOUNT, from_fd, b"", to_fd, b"", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)


def move_mount_to(from_fd: int, dirfd: int, path: str) -> None:
    """Attach the mount of `from_fd` at `path` relative to `dirfd`; the last name is not followed."""
    syscall(_MOVE_MOUNT, from_fd, b"", dirfd, os.fsencode(path), _MOVE_MOUNT_F_EMPTY_PATH)


def mount_setattr(
    fd: int,
    *,
    set: int = 0,
    clear: int = 0,
    userns_fd: int | None = None,
    recursive: bool = False,
) -> None:
    """mount_setattr(2) on the mount that `fd` is the root of (Linux 5.12; ENOSYS before).

    set, clear: MOUNT_ATTR_*; a userns_fd adds MOUNT_ATTR_IDMAP.
    """
    if userns_fd is not None:
        set |= MOUNT_ATTR_IDMAP
    attributes = struct.pack("=QQQQ", set, clear, 0, 0 if userns_fd is None else userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(_MOUNT_SETATTR, fd, b"", flags, attributes, len(attributes))


def fsopen(fstype: str) -> int:
    """fsopen(2): a context in which to configure a new filesystem."""
    return syscall(_FSOPEN, fstype.encode(), _FSOPEN_CLOEXEC)


def _fsconfig(fd: int, command: int, key: str | None, value: str | None, aux: int) -> None:
    try:
        syscall(_FSCONFIG, fd, command, _optional(key), _optional(value), aux)
    except OSError as e:
        reason = _context_log(fd)
        if reason:
            e.add_note(reason)
        raise


def _context_log(fd: int) -> str:
    """What the kernel wrote about the context's last failure (fsopen(2): messages are read from the fd)."""
    lines: list[str] = []
    try:
        while len(lines) < 16:
            lines.append(os.read(fd, 4096).decode(errors="replace").strip())
    except OSError:
        pass
    return "; ".join(lines)


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """Set the option `key=value` of a file system that is being made (fsconfig(2), FSCONFIG_SET_STRING)."""
    _fsconfig(fd, _FSCONFIG_SET_STRING, key, value, 0)


def fsconfig_flag(fd: int, key: str) -> None:
    """Set option `key`, which has no value."""
    _fsconfig(fd, _FSCONFIG_SET_FLAG, key, None, 0)


def fsconfig_create(fd: int) -> None:
    """Make the filesystem of the context; the kernel's own words are in the exception's notes."""
    _fsconfig(fd, _FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(fd: int, attributes: int = 0) -> int:
    """fsmount(2): a detached mount (MOUNT_ATTR_*) of the context's filesystem."""
    return syscall(_FSMOUNT, fd, _FSMOUNT_CLOEXEC, attributes)


def statfs_flags(path_or_fd: str | int) -> int:
    """The MS_* flags of the mount that holds `path_or_fd`: what a remount in a user namespace must repeat.

    mount_namespaces(7): the flags of a mount that came from a more privileged mount namespace are locked, and a remount
    that leaves one of them out is refused with EPERM.
    """
    flags = os.statvfs(path_or_fd).f_flag
    result = flags & _ST_SAME
    if flags & _ST_RELATIME:
        result |= MS_RELATIME
    if flags & _ST_NOSYMFOLLOW:
        result |= MS_NOSYMFOLLOW
    return result


def fs_magic(fd: int) -> int:
    """f_type of the filesystem of `fd` (O_PATH fds too)."""
    buffer = ctypes.create_string_buffer(256)
    check_result(libc.fstatfs(fd, buffer), "fstatfs", fd)
    # first member: __fsword_t, which is a long everywhere but on s390x
    value = struct.unpack_from("=I" if os.uname().machine == "s390x" else "@L", buffer)[0]
    return int(value) & 0xFFFFFFFF
