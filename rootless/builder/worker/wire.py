"""The messages between a build and its worker processes: length, JSON, and fds beside it. It knows no job."""

from __future__ import annotations

import json
import os
import socket
import struct

from rootless.errors import HostLimit
from rootless.host.answer import LIMIT, parse_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_HEAD = struct.Struct("!I")
_FDS = 16


def send(connection: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message, and duplicates of `fds` with its first bytes. Raises OSError when the peer is gone."""
    payload = json.dumps(message).encode()
    if fds:
        socket.send_fds(connection, [_HEAD.pack(len(payload))], list(fds))
    else:
        connection.sendall(_HEAD.pack(len(payload)))
    connection.sendall(payload)


def receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its fds; None when the peer has closed."""
    try:
        head, fds, _, _ = socket.recv_fds(connection, _HEAD.size, _FDS)
    except ConnectionResetError:
        return None, []
    for fd in fds:
        os.set_inheritable(fd, False)
    if head and len(head) < _HEAD.size:
        head += _exactly(connection, _HEAD.size - len(head))
    if len(head) < _HEAD.size:
        return None, fds
    (length,) = _HEAD.unpack(head)
    if length > LIMIT:
        raise HostLimit(f"a message of a build's worker is too long ({length} bytes)")
    payload = _exactly(connection, length)
    if len(payload) < length:
        return None, fds
    return parse_object(payload), fds


def _exactly(connection: socket.socket, length: int) -> bytes:
    pieces = []
    while length:
        piece = connection.recv(min(length, 1 << 20))
        if not piece:
            break
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
