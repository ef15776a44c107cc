"""A streaming parser of tar archives: ustar, GNU long names and sparse files, PAX. It touches no file system.

Archives come from strangers: every length is compared with a bound before memory is spent on it, names stay bytes, and
whatever breaks the format raises InvalidInput. Global PAX headers are skipped, as docker does: none of their keys
concerns a layer.
"""

from __future__ import annotations

import re
import struct
from typing import Protocol

from rootless.errors import InvalidInput

BLOCK = 512
MAX_NAME = 4096  # the kernel's PATH_MAX: a longer path could not be used
MAX_PAX = 1 << 20  # bytes of one PAX header
MAX_SEGMENTS = 1 << 17  # pieces of data in one sparse file
MAX_REPEATED = 2  # extension headers of one kind before one member; POSIX.1 and GNU tar write one
MAX_BESIDE = 4 << 20  # bytes of all extension headers before one member: PAX records, long names, labels
MAX_SIZE = 1 << 50  # bytes of one file
XATTR_PREFIX = b"SCHILY.xattr."

FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

_EXTENSIONS = (b"x", b"X", b"g", b"L", b"K", b"V")
_ZERO = bytes(BLOCK)
_FIELDS = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s")
_PAX_LENGTH = re.compile(rb"([0-9]{1,8}) ")
_NUMBER = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?")


class TarSource(Protocol):
    """The uncompressed bytes of an archive, read from start to end."""

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes, or fewer at the end of the stream."""

    def skip(self, size: int) -> None:
        """Pass over `size` bytes. Raises InvalidInput when the stream ends before."""


class TarEntry:
    """One member of an archive.

    mtime: nanoseconds since the epoch; size: bytes of the file; stored: bytes of data that follow in the archive, fewer
    than `size` when the file is sparse; segments: (offset, length) of each piece of data in a sparse file, None for any
    other file; device: major and minor number.
    """

    __slots__ = (
        "device",
        "gid",
        "linkname",
        "mode",
        "mtime",
        "name",
        "segments",
        "size",
        "stored",
        "type",
        "uid",
        "xattrs",
    )

    def __init__(self) -> None:
        self.name = b""
        self.type = FILE
        self.linkname = b""
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.mtime = 0
        self.size = 0
        self.stored = 0
        self.xattrs: dict[str, bytes] = {}
        self.segments: list[tuple[int, int]] | None = None
        self.device = 0, 0


class TarStream:
    """Gives the members of an archive one after the other.

    Before asking for the next one, the caller must take from the source the `stored` bytes of a regular file and the
    `padding` after them. The data of all other kinds has been passed over already.
    """

    __slots__ = ("_source",)

    def __init__(self, source: TarSource) -> None:
        self._source = source

    def next(self) -> TarEntry | None:
        """The next entry, None at the end of the archive. Raises InvalidInput."""
        source = self._source
        pax: dict[bytes, bytes] | None = None
        sparse_pairs: list[bytes] = []
        long_name: bytes | None = None
        long_link: bytes | None = None
        repeated: dict[bytes, int] = {}
        beside = 0
        while True:
            header = source.take(BLOCK)
            if not header:
                if pax or long_name or long_link:
                    raise InvalidInput("tar archive ends after an extension header")
                return None
            if len(header) < BLOCK:
                raise InvalidInput("tar archive is cut off in a header")
            if header == _ZERO:
                second = source.take(BLOCK)
                if second not in (b"", _ZERO):
                    raise InvalidInput("tar archive has a single zero block between its members")
                return None
            entry, kind = _parse(header)
            if kind in _EXTENSIONS:
                # Such a header costs time and makes no file. Zeros compress well: without a bound, a small archive
                # with an endless chain of headers would keep the parser busy for ever
                repeated[kind] = repeated.get(kind, 0) + 1
                beside += BLOCK + entry.stored
                if beside > MAX_BESIDE or (repeated[kind] > MAX_REPEATED and kind not in (b"g", b"V")):
                    raise InvalidInput("tar archive has a chain of extension headers before a member")
            if kind in (b"x", b"g", b"X"):
                content = self._extension(entry.stored, MAX_PAX)
                if kind != b"g":
                    pax, sparse_pairs = _pax(content)
                continue
            if kind == b"L":
                long_name = self._extension(entry.stored, MAX_NAME + 1).split(b"\0", 1)[0]
                continue
            if kind == b"K":
                long_link = self._extension(entry.stored, MAX_NAME + 1).split(b"\0", 1)[0]
                continue
            if kind == b"V":  # a label of the volume: nothing to unpack
                self._pass(entry.stored)
                continue
            break
        if long_name is not None:
            entry.name = long_name
        if long_link is not None:
            entry.linkname = long_link
        if kind == b"S":
            self._old_sparse(entry, header)
        entry.type = _kind(kind, entry.name)
        if entry.type in (CHARACTER, BLOCK_DEVICE):
            entry.device = _number(header[329:337], "device number"), _number(header[337:345], "device number")
        if pax:
            self._apply_pax(entry, pax, sparse_pairs)
        _check(entry)
        if entry.type != FILE:
            # A link's header may give the size of the file that it names, and no data follows it then. Data of a
            # directory, a device or a pipe is passed over
            if entry.type not in (LINK, SYMLINK):
                self._pass(entry.stored)
            entry.size = entry.stored = 0
        return entry

    @staticmethod
    def padding(entry: TarEntry) -> int:
        """Bytes between the end of the entry's data and the next header."""
        return -entry.stored % BLOCK

    def _pass(self, size: int) -> None:
        self._source.skip(size + (-size % BLOCK))

    def _extension(self, size: int, limit: int) -> bytes:
        if size > limit:
            raise InvalidInput(f"tar archive has an extension header of {size} bytes, the limit is {limit}")
        padded = size + (-size % BLOCK)
        content = self._source.take(padded)
        if len(content) < padded:
            raise InvalidInput("tar archive is cut off in an extension header")
        return content[:size]

    def _old_sparse(self, entry: TarEntry, header: bytes) -> None:
        """GNU tar's old sparse format (member type S): offset and length pairs in the header and in blocks after it."""
        pairs = [header[386 + 24 * i : 410 + 24 * i] for i in range(4)]
        more = header[482]
        size = _number(header[483:495], "size of sparse file")
        while more:
            block = self._source.take(BLOCK)
            if len(block) < BLOCK:
                raise InvalidInput("tar archive is cut off in a sparse map")
            pairs += [block[24 * i : 24 * i + 24] for i in range(21)]
            if len(pairs) > MAX_SEGMENTS:
                raise InvalidInput(f"tar archive has a sparse file with more than {MAX_SEGMENTS} segments")
            more = block[504]
        segments = []
        for pair in pairs:
            if pair[12] == 0:  # an unused slot ends the map
                break
            segments.append((_number(pair[:12], "sparse offset"), _number(pair[12:], "sparse length")))
        entry.segments = segments
        entry.size = size

    def _apply_pax(self, entry: TarEntry, pax: dict[bytes, bytes], sparse_pairs: list[bytes]) -> None:
        for key, value in pax.items():
            if key == b"path":
                entry.name = value
            elif key == b"linkpath":
                entry.linkname = value
            elif key == b"size":
                entry.stored = _decimal(value, "size")
                if entry.segments is None:
                    entry.size = entry.stored
            elif key == b"uid":
                entry.uid = _decimal(value, "uid")
            elif key == b"gid":
                entry.gid = _decimal(value, "gid")
            elif key == b"mtime":
                entry.mtime = _time(value)
            elif key.startswith(XATTR_PREFIX):
                try:
                    entry.xattrs[key[len(XATTR_PREFIX) :].decode()] = value
                except UnicodeDecodeError:
                    raise InvalidInput("tar archive has an extended attribute whose name is not UTF-8") from None
        if pax.get(b"path", b"").endswith(b"/") and entry.type == FILE:
            entry.type = DIRECTORY
        if entry.type == FILE:
            self._pax_sparse(entry, pax, sparse_pairs)

    def _pax_sparse(self, entry: TarEntry, pax: dict[bytes, bytes], pairs: list[bytes]) -> None:
        """GNU tar's sparse formats in PAX records: 0.0 (two keys for each segment), 0.1 (one key with the map) and 1.0
        (the map stands before the data). pairs: the values of the keys of 0.0, in order."""
        if pax.get(b"GNU.sparse.major") == b"1" and pax.get(b"GNU.sparse.minor") == b"0":
            numbers, used = self._map_before_data(entry.stored)
            entry.stored -= used
            size = pax.get(b"GNU.sparse.realsize", b"")
        elif b"GNU.sparse.map" in pax:
            numbers = [_decimal(n, "sparse map") for n in pax[b"GNU.sparse.map"].split(b",") if n]
            size = pax.get(b"GNU.sparse.size", b"")
        elif pairs:
            numbers = [_decimal(n, "sparse map") for n in pairs]
            size = pax.get(b"GNU.sparse.size", b"")
        else:
            return
        if len(numbers) % 2 or len(numbers) > 2 * MAX_SEGMENTS:
            raise InvalidInput("tar archive has a malformed sparse map")
        entry.segments = list(zip(numbers[::2], numbers[1::2], strict=True))
        entry.size = _decimal(size, "size of sparse file")
        if b"GNU.sparse.name" in pax:
            entry.name = pax[b"GNU.sparse.name"]

    def _map_before_data(self, stored: int) -> tuple[list[int], int]:
        """The numbers in the decimal lines at the start of a 1.0 sparse member, and how many bytes those lines fill."""
        content = b""
        lines: list[bytes] = []
        wanted = 1
        while len(lines) < wanted:
            if len(content) + BLOCK > stored or len(content) > 64 * MAX_SEGMENTS:
                raise InvalidInput("tar archive has a malformed sparse map")
            block = self._source.take(BLOCK)
            if len(block) < BLOCK:
                raise InvalidInput("tar archive is cut off in a sparse map")
            content += block
            tail = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
            lines += (tail + block).splitlines(keepends=True)
            complete = lines if lines[-1].endswith(b"\n") else lines[:-1]
            if complete and wanted == 1:
                count = _decimal(complete[0].strip(), "sparse map")
                if count > MAX_SEGMENTS:
                    raise InvalidInput(f"tar archive has a sparse file with more than {MAX_SEGMENTS} segments")
                wanted = 1 + 2 * count
            if len(complete) >= wanted > 1 or (complete and wanted == 1):
                break
        return [_decimal(line.strip(), "sparse map") for line in lines[1:wanted]], len(content)


def is_header(block: bytes) -> bool:
    """Whether 512 bytes are the header of a member: their checksum is right and their numbers can be read."""
    try:
        _parse(block)
    except InvalidInput:
        return False
    return True


def _parse(header: bytes) -> tuple[TarEntry, bytes]:
    """The member that one header block describes, and its type flag. Raises InvalidInput when the checksum is wrong."""
    name, mode, uid, gid, size, mtime, checksum, kind, linkname, magic, _, _, _, _, prefix, _ = _FIELDS.unpack(header)
    expected = _number(checksum, "checksum")
    total = sum(header) - sum(checksum) + 8 * 32
    if total != expected:
        # Some old programs added the bytes up as signed characters (pax(1))
        signed = sum(struct.unpack("148b8x356b", header)) + 8 * 32
        if signed != expected:
            raise InvalidInput("tar archive has a header with a wrong checksum")
    entry = TarEntry()
    entry.name = name.split(b"\0", 1)[0]
    if magic == b"ustar\x0000":
        head = prefix.split(b"\0", 1)[0]
        if head:
            entry.name = head + b"/" + entry.name
    entry.linkname = linkname.split(b"\0", 1)[0]
    entry.mode = _number(mode, "mode") & 0o7777
    entry.uid = _number(uid, "uid")
    entry.gid = _number(gid, "gid")
    entry.size = entry.stored = _number(size, "size")
    entry.mtime = _number(mtime, "mtime", signed=True) * 1_000_000_000
    if entry.size > MAX_SIZE:
        raise InvalidInput(f"tar archive has a member of {entry.size} bytes")
    return entry, kind


def _kind(kind: bytes, name: bytes) -> bytes:
    if kind in (b"0", b"\0", b"7", b"S"):
        return DIRECTORY if name.endswith(b"/") and kind != b"S" else FILE
    if kind == b"D":  # a directory of GNU tar's incremental archives: the list of names that follows is of no use here
        return DIRECTORY
    if kind in (LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO):
        return kind
    raise InvalidInput(f"tar archive has a member of unknown type {kind!r}")


def _check(entry: TarEntry) -> None:
    if len(entry.name) > MAX_NAME or len(entry.linkname) > MAX_NAME:
        raise InvalidInput(f"tar archive has a path of more than {MAX_NAME} bytes")
    if b"\0" in entry.name or b"\0" in entry.linkname:
        raise InvalidInput("tar archive has a path with a NUL byte")
    if entry.size > MAX_SIZE or entry.stored > MAX_SIZE:
        raise InvalidInput(f"tar archive has a member of {entry.size} bytes")
    if entry.segments is not None:
        position = total = 0
        for offset, length in entry.segments:
            if offset < position or offset + length > entry.size:
                raise InvalidInput("tar archive has a sparse file whose segments overlap or lie outside of it")
            position = offset + length
            total += length
        if total != entry.stored:
            raise InvalidInput("tar archive has a sparse file whose segments do not add up to its data")


def _number(field: bytes, what: str, *, signed: bool = False) -> int:
    """The number in a field of a header: octal digits, or big-endian binary (GNU tar) when the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:  # negative: two's complement
            value -= 1 << (8 * len(field) - 1)
        if (value < 0 and not signed) or abs(value) >= 1 << 63:
            raise InvalidInput(f"tar archive has an impossible {what}")
        return value
    text = field.split(b"\0", 1)[0].strip(b" ")
    if not text:
        return 0
    try:
        if not text.isdigit():
            raise ValueError
        return int(text, 8)
    except ValueError:
        raise InvalidInput(f"tar archive has a malformed {what}: {text[:16]!r}") from None


def _decimal(value: bytes, what: str) -> int:
    if not _NUMBER.fullmatch(value):
        raise InvalidInput(f"tar archive has a malformed {what}: {value[:24]!r}")
    return int(value)


def _time(value: bytes) -> int:
    """The nanoseconds of a time that is given in decimal seconds with a fraction."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise InvalidInput(f"tar archive has a malformed mtime: {value[:24]!r}")
    nanoseconds = int(match[2]) * 1_000_000_000 + int((match[3] or b"0")[:9].ljust(9, b"0"))
    return -nanoseconds if match[1] else nanoseconds


def _pax(content: bytes) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The records of a PAX header (`LENGTH KEY=VALUE\\n`), and the values of the keys of GNU's sparse format 0.0.

    Those keys come once for each segment, so their values are kept apart, in order. A key with an empty value takes
    back what an earlier record said (pax(1)).
    """
    records: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    position = 0
    while position < len(content):
        match = _PAX_LENGTH.match(content, position)
        if match is None:
            raise InvalidInput("tar archive has a malformed PAX header")
        end = position + int(match[1])
        record = content[match.end() : end]
        key, equals, value = record.partition(b"=")
        if end > len(content) or not record.endswith(b"\n") or not equals or not key:
            raise InvalidInput("tar archive has a malformed PAX header")
        value = value[:-1]
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pairs.append(value)
        elif value:
            records[key] = value
        else:
            records.pop(key, None)
        position = end
    return records, pairs
