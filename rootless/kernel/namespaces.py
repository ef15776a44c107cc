"""unshare, setns and the UTS names. It knows no order and no policy of namespaces."""

from __future__ import annotations

import ctypes
import os

from rootless.kernel.libc import check, libc

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

libc.unshare.argtypes = (ctypes.c_int,)
libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
libc.sethostname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
libc.setdomainname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)


def unshare(flags: int) -> None:
    """unshare(2). EINVAL for CLONE_NEWUSER means that this process has more than one thread."""
    check(libc.unshare(flags), "unshare", flags)


def setns(fd: int, flags: int = 0) -> None:
    """setns(2) on a namespace fd, or on a pidfd with the CLONE_NEW* flags to join."""
    check(libc.setns(fd, flags), "setns", fd, flags)


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    encoded = os.fsencode(name)
    check(libc.sethostname(encoded, len(encoded)), "sethostname", name)


def setdomainname(name: str) -> None:
    """Set the NIS domain name of this UTS namespace."""
    encoded = os.fsencode(name)
    check(libc.setdomainname(encoded, len(encoded)), "setdomainname", name)
