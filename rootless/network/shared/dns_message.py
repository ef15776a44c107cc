"""Messages of the DNS (RFC 1035) as far as a name server of containers needs them: read a question, write an answer.

Whoever sends a question may be hostile: every length is checked, and a name in a question has no pointers.
"""

from __future__ import annotations

import socket
import struct

A, PTR, AAAA, ANY = 1, 12, 28, 255
NO_ERROR, FORMAT_ERROR, NO_SUCH_NAME, NOT_IMPLEMENTED = 0, 1, 3, 4
_IN = 1
_HEADER = struct.Struct(">HHHHHH")
_RESPONSE, _RECURSION_DESIRED, _RECURSION_AVAILABLE, _OPCODE, _AUTHORITATIVE = 0x8000, 0x0100, 0x0080, 0x7800, 0x0400
_PLAIN_SIZE = 512  # bytes of an answer by UDP to a question without EDNS
_MOST_SIZE = 4096  # bytes of an answer by UDP whatever the question allows
_LIFETIME = 5  # seconds: a container that is started again may have another address


class Question:
    """A question. identity: the number by which the asker knows its answer; name: in lower case, without a final dot;
    kind: the type of record; packet: all of it; size: the bytes that an answer by UDP may have."""

    __slots__ = ("_end", "flags", "identity", "kind", "name", "packet", "record_class", "size")

    def __init__(self, packet: bytes) -> None:
        """Read the message `packet`. Raises ValueError when it is no question."""
        if len(packet) < _HEADER.size:
            raise ValueError("shorter than a header")
        self.packet = packet
        self.identity, self.flags, questions, answers, authorities, others = _HEADER.unpack_from(packet)
        if self.flags & _RESPONSE:
            raise ValueError("an answer")
        self.name, self.kind, self.record_class, self._end = "", 0, 0, _HEADER.size
        self.size = _PLAIN_SIZE
        if self.flags & _OPCODE or questions != 1 or answers or authorities:
            return
        labels, at, length = [], _HEADER.size, 0
        while True:
            size = packet[at] if at < len(packet) else 64
            length += size + 1
            if size > 63 or length > 255:
                raise ValueError("a name that is none")
            label = packet[at + 1 : at + 1 + size]
            at += 1 + size
            if not size:
                break
            labels.append(label.decode("latin-1").lower())
        if at + 4 > len(packet):
            raise ValueError("it ends within the question")
        self.name = ".".join(labels)
        self.kind, self.record_class = struct.unpack_from(">HH", packet, at)
        self._end = at + 4
        if others and packet[self._end : self._end + 3] == b"\0\0\x29" and len(packet) >= self._end + 5:
            (size,) = struct.unpack_from(">H", packet, self._end + 3)
            self.size = max(_PLAIN_SIZE, min(size, _MOST_SIZE))

    @property
    def is_query(self) -> bool:
        """Whether it asks for one name of the Internet's class, and for nothing else."""
        return self._end > _HEADER.size and self.record_class == _IN

    def answer_addresses(self, addresses: list[str]) -> bytes:
        """The answer that the name has these IPv4 addresses; where more do not fit, the first of them."""
        fits = max(1, (self.size - self._end) // 16)
        body = b"".join(_record(A, socket.inet_pton(socket.AF_INET, address)) for address in addresses[:fits])
        return self._reply(NO_ERROR, min(len(addresses), fits)) + body

    def answer_name(self, name: str) -> bytes:
        """The answer to a question of type PTR."""
        labels = [label.encode("latin-1", "replace")[:63] for label in name.split(".") if label]
        encoded = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
        return self._reply(NO_ERROR, 1) + _record(PTR, encoded)

    def answer_nothing(self, code: int = NO_ERROR) -> bytes:
        """The answer that there is no record of that type, or no such name, by `code`."""
        return self._reply(code, 0)

    def _reply(self, code: int, answers: int) -> bytes:
        flags = _RESPONSE | _AUTHORITATIVE | _RECURSION_AVAILABLE | (self.flags & (_OPCODE | _RECURSION_DESIRED)) | code
        questions = 1 if self._end > _HEADER.size else 0
        header = _HEADER.pack(self.identity, flags, questions, answers, 0, 0)
        return header + self.packet[_HEADER.size : self._end]

    def renumbered(self, identity: int) -> bytes:
        """The question with another number, for another server."""
        return struct.pack(">H", identity) + self.packet[2:]

    def has_answer(self, packet: bytes, identity: int) -> bool:
        """Whether `packet` answers this question, which was sent with the number `identity`."""
        if len(packet) < _HEADER.size:
            return False
        number, flags = struct.unpack_from(">HH", packet)
        # The question comes back with the answer, perhaps in other letters of the same case
        asked = self.packet[_HEADER.size : self._end].lower()
        return number == identity and bool(flags & _RESPONSE) and packet[_HEADER.size : self._end].lower() == asked


def reverse_address(name: str) -> str | None:
    """The IPv4 address in a name such as 5.0.89.10.in-addr.arpa; None for another name."""
    labels = name.split(".")
    if len(labels) != 6 or labels[4:] != ["in-addr", "arpa"]:
        return None
    if not all(label.isascii() and label.isdigit() and len(label) <= 3 and int(label) < 256 for label in labels[:4]):
        return None
    return ".".join(str(int(label)) for label in reversed(labels[:4]))


def _record(kind: int, content: bytes) -> bytes:
    """A record about the name of the question, to which a pointer leads (section 4.1.4)."""
    return b"\xc0\x0c" + struct.pack(">HHIH", kind, _IN, _LIFETIME, len(content)) + content
