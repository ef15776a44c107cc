"""The loopback interface of a fresh network namespace: it is made down, and somebody inside has to switch it on."""

from __future__ import annotations

import fcntl
import socket
import struct

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_REQUEST = struct.Struct("16sh14x")  # struct ifreq as far as its flags; the rest of the union is zero


def switch_on_loopback() -> None:
    """Set `lo` of this process's network namespace up. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _REQUEST.pack(b"lo", 0) + bytes(8))
        _, flags = _REQUEST.unpack(answer[: _REQUEST.size])
        fcntl.ioctl(control, _SIOCSIFFLAGS, _REQUEST.pack(b"lo", flags | _IFF_UP) + bytes(8))
