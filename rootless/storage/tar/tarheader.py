"""Headers of tar members: ustar, with PAX records for what does not fit. Pure; the same input gives the same bytes."""

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
    """One member of an archive. name: without leading slash, of a directory with one at the end; mtime: nanoseconds;
    size: bytes that follow; records: PAX records of its own (key, value)."""

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


def encode(member: Member) -> bytes:
    """The header blocks of `member`."""
    records = list(member.records)
    name, linkname, uid, gid, size = member.name, member.linkname, member.uid, member.gid, member.size
    if len(name) > _MAX_NAME:
        records.append((b"path", name))
    if len(linkname) > _MAX_NAME:
        records.append((b"linkpath", linkname))
    if uid > _MAX_ID:
        records.append((b"uid", b"%d" % uid))
        uid = 0
    if gid > _MAX_ID:
        records.append((b"gid", b"%d" % gid))
        gid = 0
    if size > _MAX_SIZE:
        records.append((b"size", b"%d" % size))
        size = 0
    seconds, fraction = divmod(member.mtime, _SECOND)
    if fraction or not 0 <= seconds <= _MAX_SIZE:
        records.append((b"mtime", _decimal(member.mtime)))
        seconds = min(max(seconds, 0), _MAX_SIZE)
    for attribute, value in member.xattrs:
        records.append((b"SCHILY.xattr." + attribute.encode("utf-8", "surrogateescape"), value))
    block = _block(name, member.kind, member.mode, uid, gid, size, seconds, linkname, member.major, member.minor)
    if not records:
        return block
    content = b"".join(_record(key, value) for key, value in sorted(records))
    base = name.rstrip(b"/").rpartition(b"/")[2]
    return b"".join(
        (
            _block(b"PaxHeaders.0/" + base[:80], b"x", 0o644, 0, 0, len(content), 0, b"", 0, 0),
            content,
            bytes(-len(content) % BLOCK),
            block,
        )
    )


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    linkname: bytes,
    major: int,
    minor: int,
) -> bytes:
    block = _FIELDS.pack(
        name,
        b"%07o\0" % mode,
        b"%07o\0" % uid,
        b"%07o\0" % gid,
        b"%011o\0" % size,
        b"%011o\0" % mtime,
        _SPACES,
        kind,
        linkname,
        b"ustar\x0000",
        b"",
        b"",
        b"%07o\0" % (major & _MAX_ID),
        b"%07o\0" % (minor & _MAX_ID),
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
