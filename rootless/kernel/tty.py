"""Pseudo terminals opened by fd, never by a path, and their window size. Raw mode and copying live elsewhere."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

_TIOCGWINSZ = 0x5413
_TIOCSWINSZ = 0x5414
_TIOCSCTTY = 0x540E
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
if os.uname().machine.startswith("ppc"):
    _TIOCGWINSZ, _TIOCSWINSZ, _TIOCSPTLCK, _TIOCGPTPEER = 0x40087468, 0x80087467, 0x80045431, 0x20005441

_DEVPTS_SUPER_MAGIC = 0x1CD1
_PTMX_DEVICE = os.makedev(5, 2)
_SLAVE_MAJORS = range(136, 144)


def is_ptmx(fd: int) -> bool:
    """Is `fd` a pty master opened from a devpts filesystem or /dev/ptmx (character device 5:2)?"""
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _PTMX_DEVICE


def is_pty_slave(fd: int) -> bool:
    """Is `fd` a pty slave of a devpts filesystem? (CVE-2025-52565: what is bound on /dev/console must be one)."""
    from rootless.kernel.mounts import fs_magic

    status = os.fstat(fd)
    return (
        stat.S_ISCHR(status.st_mode)
        and os.major(status.st_rdev) in _SLAVE_MAJORS
        and fs_magic(fd) == _DEVPTS_SUPER_MAGIC
    )


def open_ptmx(dev_pts_dirfd: int) -> tuple[int, int]:
    """(master fd, slave fd) of a new pty of the devpts mounted at `dev_pts_dirfd`; both close-on-exec.

    The slave comes from the master by TIOCGPTPEER (Linux 4.13), so no name of the container is ever looked up.
    Raises OSError ENXIO when either is not what it must be.
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    master = os.open("ptmx", flags | os.O_NOFOLLOW, dir_fd=dev_pts_dirfd)
    try:
        if not is_ptmx(master):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), "ptmx")
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
        if not is_pty_slave(slave):
            os.close(slave)
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), "pty slave")
    except BaseException:
        os.close(master)
        raise
    return master, slave


def set_controlling(fd: int) -> None:
    """Make the terminal `fd` the controlling one of this session leader."""
    fcntl.ioctl(fd, _TIOCSCTTY, 0)


def set_winsize(fd: int, rows: int, cols: int) -> None:
    """TIOCSWINSZ; sends SIGWINCH to the foreground group."""
    fcntl.ioctl(fd, _TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def get_winsize(fd: int) -> tuple[int, int]:
    """(rows, columns) of the terminal."""
    rows, cols, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, _TIOCGWINSZ, bytes(8)))
    return int(rows), int(cols)
