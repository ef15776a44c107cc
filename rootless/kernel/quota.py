"""The caller's own disk quota on a file system (quotactl_fd(2), Linux 5.14). It sets nothing."""

from __future__ import annotations

import ctypes
import os

from rootless.kernel.libc import syscall

_QUOTACTL_FD = 443
_Q_GETQUOTA = 0x800007
_USRQUOTA = 0


class _Quota(ctypes.Structure):
    """struct if_dqblk of linux/quota.h; block limits in KiB, the space in bytes."""

    _fields_ = (
        ("bhardlimit", ctypes.c_uint64),
        ("bsoftlimit", ctypes.c_uint64),
        ("curspace", ctypes.c_uint64),
        ("ihardlimit", ctypes.c_uint64),
        ("isoftlimit", ctypes.c_uint64),
        ("curinodes", ctypes.c_uint64),
        ("btime", ctypes.c_uint64),
        ("itime", ctypes.c_uint64),
        ("valid", ctypes.c_uint32),
    )


def quota_left(fd: int) -> tuple[int | None, int | None]:
    """Bytes and inodes that the caller's quota still allows on the file system of `fd`; None = no limit.

    Raises OSError where there are no quotas (ESRCH, ENOTSUP, ENODEV) or no such system call (ENOSYS).
    """
    quota = _Quota()
    command = (_Q_GETQUOTA << 8) | _USRQUOTA
    syscall(_QUOTACTL_FD, fd, command, os.getuid(), ctypes.addressof(quota))
    space = max(quota.bhardlimit * 1024 - quota.curspace, 0) if quota.bhardlimit else None
    inodes = max(quota.ihardlimit - quota.curinodes, 0) if quota.ihardlimit else None
    return space, inodes
