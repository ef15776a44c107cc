"""Writes the headers of tar members: ustar, with PAX records for what does not fit (pax(1), POSIX.1-2001).

The same member always gives the same bytes: a layer's digest is computed from them.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

BLOCK = 512
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
END = bytes(2 * BLOCK)

_FIELDS = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_MAX_ID = 8**7 - 1
_MAX_SIZE = 8**11 - 1
_MAX_NAME = 100
_SECOND = 1_000_000_000
_SPACES = b" " * 8


class Member(NamedTuple):
    """One member of an archive.

    name: without a slash at the start, a directory's with one at the end; mtime: nanoseconds since the epoch; size:
    bytes of data that follow the header; major, minor: of a device; records: further PAX records (key, value).
    """

    name: bytes
    kind: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    linkname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    records: tuple[tuple[bytes, bytes], ...] = ()


def encode_header(member: Member) -> bytes:
    """The header blocks of `member`: a ustar block, and before it, as a PAX member, what such a block cannot hold."""
    records = list(member.records)
    if len(member.name) > _MAX_NAME:
        records.append((b"path", member.name))
    if len(member.linkname) > _MAX_NAME:
        records.append((b"linkpath", member.linkname))
    if member.uid > _MAX_ID:
        records.append((b"uid", b"%d" % member.uid))
    if member.gid > _MAX_ID:
        records.append((b"gid", b"%d" % member.gid))
    if member.size > _MAX_SIZE:
        records.append((b"size", b"%d" % member.size))
    seconds, fraction = divmod(member.mtime, _SECOND)
    if fraction or not 0 <= seconds <= _MAX_SIZE:
        records.append((b"mtime", _decimal(member.mtime)))
    for attribute, value in member.xattrs:
        records.append((b"SCHILY.xattr." + attribute.encode("utf-8", "surrogateescape"), value))
    block = _block(member)
    if not records:
        return block
    content = b"".join(_record(key, value) for key, value in sorted(records))
    base = member.name.rstrip(b"/").rpartition(b"/")[2]
    extended = Member(b"PaxHeaders.0/" + base[:80], b"x", 0o644, size=len(content))
    return b"".join((_block(extended), content, bytes(-len(content) % BLOCK), block))


def _block(member: Member) -> bytes:
    """The ustar block. What is too large for its field stands in a PAX record, which readers prefer; here an id or
    a size is 0 then, and a name or a time is cut off."""
    block = _FIELDS.pack(
        member.name,
        b"%07o\0" % member.mode,
        b"%07o\0" % (member.uid if member.uid <= _MAX_ID else 0),
        b"%07o\0" % (member.gid if member.gid <= _MAX_ID else 0),
        b"%011o\0" % (member.size if member.size <= _MAX_SIZE else 0),
        b"%011o\0" % min(max(member.mtime // _SECOND, 0), _MAX_SIZE),
        _SPACES,
        member.kind,
        member.linkname,
        b"ustar\x0000",
        b"",
        b"",
        b"%07o\0" % (member.major & _MAX_ID),
        b"%07o\0" % (member.minor & _MAX_ID),
        b"",
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where the length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _decimal(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    seconds, fraction = divmod(abs(nanoseconds), _SECOND)
    return b"%s%d%s" % (sign, seconds, (b".%09d" % fraction).rstrip(b"0") if fraction else b"")
