"""The message channel between launcher and init: whole JSON messages and passed fds. It knows no meaning of a message.

SOCK_SEQPACKET keeps message borders and tells the end of the peer as an empty read.
"""

from __future__ import annotations

import array
import json
import os
import socket

from rootless.host.answer import parse_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAXIMUM = 256 * 1024
"""Bytes of one message; an error with a long path stays far below."""


class Channel:
    """One end of a connected socket."""

    __slots__ = ("_socket",)

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send one message, and duplicates of `fds` with it. Raises OSError (EPIPE when the peer is gone)."""
        payload = json.dumps(message).encode()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._socket.sendmsg([payload], ancillary, socket.MSG_NOSIGNAL)

    def receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """The next message and the fds that came with it; None when the peer has closed or ended."""
        size = socket.CMSG_SPACE(4 * array.array("i").itemsize)
        try:
            payload, ancillary, _, _ = self._socket.recvmsg(MAXIMUM, size, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            # the peer ended with a message of ours unread
            return None, []
        fds: list[int] = []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                fds.extend(numbers)
        if not payload:
            for fd in fds:
                os.close(fd)
            return None, []
        return parse_object(payload), fds

    def peer_is_gone(self) -> bool:
        """Whether the other end is closed, without taking a message."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def fileno(self) -> int:
        """The descriptor of the socket, for poll(2); the channel goes on owning it."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end; harmless when closed."""
        self._socket.close()


def pair() -> tuple[Channel, Channel]:
    """A pair of connected channels: one for the launcher, one for the process that it forks."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), Channel(theirs)
