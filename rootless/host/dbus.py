"""A D-Bus client of two method calls, for the user's own systemd: messages out, replies in, nothing else of D-Bus.

Written here because a library costs each start of a container more than the call itself (docs/decisions/cgroups.md).
What comes in is bounded and checked; whatever breaks the wire format is an OSError EPROTO.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_MAX_MESSAGE = 1 << 18  # bytes; the daemon's own bound is 128 MiB, no answer to our calls comes near this one
_MAX_LINE = 4096  # bytes of a line of the authentication
_PATIENCE = 5.0  # seconds for the daemon to take the connection
_BUS = "org.freedesktop.DBus"


class Writer:
    """Arguments in the wire format (D-Bus specification, "Marshaling"; little endian), each aligned to its type."""

    __slots__ = ("buffer",)

    def __init__(self) -> None:
        self.buffer = bytearray()

    def align(self, to: int) -> None:
        """Append zeroes up to the next multiple of `to` bytes."""
        self.buffer += bytes(-len(self.buffer) % to)

    def number(self, value: int) -> None:
        """Encode a D-Bus UINT32 (type code u)."""
        self.align(4)
        self.buffer += struct.pack("<I", value)

    def text(self, value: str) -> None:
        """Encode a D-Bus STRING or OBJECT_PATH (type codes s and o). Raises ValueError for a NUL byte."""
        encoded = value.encode()
        if b"\0" in encoded:
            raise ValueError("a NUL byte in a D-Bus string")
        self.number(len(encoded))
        self.buffer += encoded + b"\0"

    def signature(self, value: str) -> None:
        """Encode a D-Bus SIGNATURE (type code g)."""
        self.buffer += bytes((len(value),)) + value.encode() + b"\0"

    def array(self, align: int, fill: Callable[[], None]) -> None:
        """Encode a D-Bus ARRAY (type code a) of what `fill` writes, whose elements are aligned to `align` bytes."""
        self.number(0)
        at = len(self.buffer) - 4
        self.align(align)
        begin = len(self.buffer)
        fill()
        struct.pack_into("<I", self.buffer, at, len(self.buffer) - begin)

    def numbers(self, values: Sequence[int]) -> None:
        """Encode a D-Bus array of UINT32 (type code au)."""

        def fill() -> None:
            for value in values:
                self.number(value)

        self.array(4, fill)

    def variant(self, value: str | bool | Sequence[int]) -> None:
        """Encode a D-Bus VARIANT (type code v) that holds a STRING, a BOOLEAN or an array of UINT32."""
        if isinstance(value, str):
            self.signature("s")
            self.text(value)
        elif isinstance(value, bool):
            self.signature("b")
            self.number(int(value))
        else:
            self.signature("au")
            self.numbers(value)

    def properties(self, pairs: Sequence[tuple[str, str | bool | Sequence[int]]]) -> None:
        """Encode a D-Bus array of named variants (type code a(sv)), as systemd takes the properties of a unit."""

        def fill() -> None:
            for name, value in pairs:
                self.align(8)
                self.text(name)
                self.variant(value)

        self.array(8, fill)


class Message:
    """A message that came in. texts: the strings and object paths at the beginning of its body, UINT32s left out."""

    __slots__ = ("error", "kind", "member", "reply_to", "texts")

    def __init__(self, kind: int, reply_to: int, member: str, error: str, texts: list[str]) -> None:
        self.kind = kind
        self.reply_to = reply_to
        self.member = member
        self.error = error
        self.texts = texts


def encode_call(serial: int, target: tuple[str, str, str, str], signature: str, body: bytes) -> bytes:
    """The bytes of a method call. target: destination ("" where there is no bus), object path, interface, member."""
    destination, path, interface, member = target
    writer = Writer()
    writer.buffer += struct.pack("<cBBBII", b"l", METHOD_CALL, 0, 1, len(body), serial)

    def fields() -> None:
        for code, kind, value in (
            (_PATH, "o", path),
            (_INTERFACE, "s", interface),
            (_MEMBER, "s", member),
            (_DESTINATION, "s", destination),
            (_SIGNATURE, "g", signature),
        ):
            if not value:
                continue
            writer.align(8)
            writer.buffer.append(code)
            writer.signature(kind)
            writer.signature(value) if kind == "g" else writer.text(value)

    writer.array(8, fields)
    writer.align(8)
    return bytes(writer.buffer) + body


class _Reader:
    """Reads one message. What runs over the message's end raises ValueError, IndexError or struct.error."""

    __slots__ = ("_buffer", "_order", "at")

    def __init__(self, buffer: bytes, order: str, at: int) -> None:
        self._buffer = buffer
        self._order = order
        self.at = at

    def align(self, to: int) -> None:
        self.at += -self.at % to

    def number(self) -> int:
        self.align(4)
        value: int = struct.unpack_from(f"{self._order}I", self._buffer, self.at)[0]
        self.at += 4
        return value

    def text(self) -> str:
        return self._bytes(self.number())

    def signature(self) -> str:
        length = self._buffer[self.at]
        self.at += 1
        return self._bytes(length)

    def _bytes(self, length: int) -> str:
        end = self.at + length
        if end >= len(self._buffer) or self._buffer[end] != 0:
            raise ValueError("a string runs over the end")
        value = self._buffer[self.at : end].decode()
        self.at = end + 1
        return value


def message_length(head: bytes) -> int:
    """How many bytes the message has whose first 16 are `head`. Raises OSError EPROTO for too many, or nonsense."""
    order = _order(head)
    body, _, fields = struct.unpack_from(f"{order}III", head, 4)
    length = 16 + fields + (-fields % 8) + body
    if length > _MAX_MESSAGE or head[3] != 1:
        raise _broken(f"a message of {length} bytes, protocol version {head[3]}")
    return int(length)


def decode_message(message: bytes) -> Message:
    """Decode the bytes of one whole message. Raises OSError EPROTO for what breaks the wire format."""
    order = _order(message)
    try:
        reader = _Reader(message, order, 12)
        end = reader.number() + 16
        values: dict[int, str | int] = {}
        while reader.at < end:
            reader.align(8)
            code = message[reader.at]
            reader.at += 1
            kind = reader.signature()
            if kind == "g":
                values[code] = reader.signature()
            elif kind in ("s", "o"):
                values[code] = reader.text()
            elif kind == "u":
                values[code] = reader.number()
            else:
                raise ValueError(f"header field of type '{kind}'")
        reader.align(8)
        texts: list[str] = []
        for kind in str(values.get(_SIGNATURE, "")):
            if kind in "so":
                texts.append(reader.text())
            elif kind == "u":
                reader.number()
            else:
                break  # in the answers that we ask for no text follows values of other types
    except (ValueError, IndexError, struct.error) as e:
        raise _broken(str(e)) from e
    return Message(
        message[1],
        int(values.get(_REPLY_SERIAL) or 0) if isinstance(values.get(_REPLY_SERIAL, 0), int) else 0,
        str(values.get(_MEMBER, "")),
        str(values.get(_ERROR_NAME, "")),
        texts,
    )


def _order(head: bytes) -> str:
    if head[:1] not in (b"l", b"B"):
        raise _broken(f"a message begins with {head[:1]!r}")
    return "<" if head[:1] == b"l" else ">"


def _broken(what: str) -> OSError:
    return OSError(errno.EPROTO, f"the answer is no D-Bus: {what}")


class Connection:
    """A connection to the unix socket `path`. Raises OSError.

    is_bus: whether a message bus listens, which wants a greeting first and a destination in each call; else it is the
    peer itself, as at systemd's private socket.
    """

    __slots__ = ("_buffer", "_serial", "_socket", "is_bus")

    def __init__(self, path: str, *, is_bus: bool) -> None:
        self.is_bus = is_bus
        self._buffer = bytearray()
        self._serial = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(_PATIENCE)
            self._socket.connect(path)
            self._check_peer()
            uid = str(os.geteuid()).encode().hex()
            self._socket.sendall(b"\0AUTH EXTERNAL " + uid.encode() + b"\r\nBEGIN\r\n")
            # The answer is awaited before the first call is sent. sd-bus as a server (systemd 252) lets a call that it
            # has read together with BEGIN lie until more arrives, so that a call sent along would never be answered.
            self._authenticate()
            if is_bus:
                self.call((_BUS, "/org/freedesktop/DBus", _BUS, "Hello"), "", b"")
        except BaseException:
            self._socket.close()
            raise

    def _check_peer(self) -> None:
        """Raise OSError EACCES unless the peer is root or the caller, as the kernel says (SO_PEERCRED, unix(7)).

        The environment may lead into somebody else's directory, where the listener would learn what we start.
        """
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        if uid not in (0, os.geteuid()):
            raise OSError(errno.EACCES, f"user {uid}, who is neither root nor you, listens there")

    def _authenticate(self) -> None:
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > _MAX_LINE:
                raise _broken("an endless line of authentication")
            received = self._socket.recv(4096)
            if not received:
                raise OSError(errno.ECONNRESET, "the connection was closed")
            self._buffer += received
        line, _, rest = bytes(self._buffer).partition(b"\r\n")
        if not line.startswith(b"OK"):
            raise OSError(errno.EACCES, f"authentication refused: {line[:80].decode(errors='replace')}")
        self._buffer = bytearray(rest)

    def call(self, target: tuple[str, str, str, str], signature: str, body: bytes) -> int:
        """Send a method call without waiting, and return its serial, by which its answer is known."""
        self._serial += 1
        destination, *rest = target
        path, interface, member = rest
        target = (destination if self.is_bus else "", path, interface, member)
        self._socket.sendall(encode_call(self._serial, target, signature, body))
        return self._serial

    def receive(self, timeout: float) -> Message | None:
        """The next message, None when none came within `timeout` seconds. Raises OSError, EPROTO for nonsense."""
        deadline = time.monotonic() + timeout
        while True:
            message = self._take()
            if message is not None:
                return message
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                received = self._socket.recv(1 << 16)
            except TimeoutError:
                return None
            if not received:
                raise OSError(errno.ECONNRESET, "the connection was closed")
            self._buffer += received

    def _take(self) -> Message | None:
        buffer = self._buffer
        if len(buffer) < 16:
            return None
        length = message_length(bytes(buffer[:16]))
        if len(buffer) < length:
            return None
        message = bytes(buffer[:length])
        del buffer[:length]
        return decode_message(message)

    def close(self) -> None:
        """Close the connection to the bus."""
        self._socket.close()
