"""unshare, setns, a process's network and user namespaces as open files, the UTS names, the loopback interface.

It knows no policy of them.
"""

from __future__ import annotations

import _socket
import ctypes
import fcntl
import os
import struct

from rootless.kernel.libc import check_result, libc

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_NS_GET_USERNS = 0xB701
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_INTERFACE_REQUEST = struct.Struct("16sh14x")  # struct ifreq as far as its flags; the rest of the union is zero

libc.unshare.argtypes = (ctypes.c_int,)
libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
libc.sethostname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
libc.setdomainname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)


def unshare(flags: int) -> None:
    """unshare(2). EINVAL for CLONE_NEWUSER means that this process has more than one thread."""
    check_result(libc.unshare(flags), "unshare", flags)


def setns(fd: int, flags: int = 0) -> None:
    """setns(2) on a namespace fd, or on a pidfd with the CLONE_NEW* flags to join."""
    check_result(libc.setns(fd, flags), "setns", fd, flags)


class OpenNetwork:
    """A network namespace and the user namespace that its process is in, as open files of this process.

    They stay what they were when the process changes its ids, which can make its /proc/PID/ns unreadable, or ends.
    """

    __slots__ = ("network", "user")

    def __init__(self, network: int, user: int) -> None:
        self.network = network
        self.user = user

    @classmethod
    def of_process(cls, pid: int) -> OpenNetwork:
        """Those of process `pid`; `close` closes them.

        proc(5), ptrace(2): the kernel opens /proc/PID/ns only of a process that is dumpable, or that was executed in a
        user namespace where we have CAP_SYS_PTRACE. A forked process that changes its uid is neither until it makes
        itself dumpable again, so call this while the process waits for its caller. Raises PermissionError, or
        FileNotFoundError when the process has ended.
        """
        network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return cls(network, os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
        except BaseException:
            os.close(network)
            raise

    @classmethod
    def with_owner(cls, pid: int) -> OpenNetwork:
        """The network namespace of process `pid`, and the user namespace that owns it, which need not be the process's.

        Only of a process that has executed its command, as `of_process` says. Raises OSError.
        """
        import fcntl

        network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return cls(network, fcntl.ioctl(network, _NS_GET_USERNS))
        except BaseException:
            os.close(network)
            raise

    def close(self) -> None:
        """Close both; the namespaces live on as long as a process is in them."""
        for fd in (self.network, self.user):
            os.close(fd)


def owner_of(namespace_fd: int) -> int:
    """A descriptor of the user namespace that owns a namespace (ioctl_ns(2)). Raises OSError: it is no namespace, or
    its owner is none that this process may see."""
    return fcntl.ioctl(namespace_fd, _NS_GET_USERNS)


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    encoded = os.fsencode(name)
    check_result(libc.sethostname(encoded, len(encoded)), "sethostname", name)


def setdomainname(name: str) -> None:
    """Set the NIS domain name of this UTS namespace."""
    encoded = os.fsencode(name)
    check_result(libc.setdomainname(encoded, len(encoded)), "setdomainname", name)


def switch_on_loopback() -> None:
    """Set `lo` of this process's network namespace up, which a fresh one has down. Raises OSError."""
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _INTERFACE_REQUEST.pack(b"lo", 0) + bytes(8))
        _, flags = _INTERFACE_REQUEST.unpack(answer[: _INTERFACE_REQUEST.size])
        fcntl.ioctl(control, _SIOCSIFFLAGS, _INTERFACE_REQUEST.pack(b"lo", flags | _IFF_UP) + bytes(8))
    finally:
        control.close()
