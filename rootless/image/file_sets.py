"""Named files in a directory or in a tar archive, read at random and never unpacked: what layouts and archives lie on.

Names come from hostile archives. In a directory no symbolic link is followed; in a tar nothing but its bytes is read.
"""

from __future__ import annotations

import os
import stat
from typing import Protocol

from rootless.errors import HostLimit, InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from rootless.image.source import Reader

_BLOCK = 512
_MAX_ENTRIES = 100_000  # each is kept in memory, and one without content is no more than a header of 512 bytes
_MAX_EXTENSION = 1 << 20  # bytes of a long name or a pax header, which are read into memory
_OCTAL = frozenset(b"01234567")
_MAX_LINKS = 8  # links that are followed, since they may lead in a circle


class FileSet(Protocol):
    """Files that are read by their names, wherever they lie."""

    def has(self, name: str) -> bool:
        """Whether there is a regular file of that name."""

    def size(self, name: str) -> int:
        """How many bytes it has. Raises InvalidInput when there is none."""

    def open(self, name: str, offset: int = 0) -> Reader:
        """Its content from `offset` on. Raises InvalidInput when there is none."""

    def close(self) -> None:
        """Give back what is open."""


def read_file(files: FileSet, name: str, limit: int) -> bytes:
    """All bytes of a small file. Raises InvalidInput when it is missing or larger than `limit`."""
    if files.size(name) > limit:
        raise InvalidInput(f"'{name}' is larger than {limit} bytes")
    reader = files.open(name)
    try:
        pieces = []
        while piece := reader.read(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        reader.close()


class DirectoryFiles:
    """The files below a directory, which a stranger may have filled."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise InvalidInput(f"cannot open directory '{path}': {e.strerror}") from e

    def has(self, name: str) -> bool:
        """Whether there is a regular file of that name."""
        try:
            os.close(self._open(name))
        except (InvalidInput, HostLimit):
            return False
        return True

    def size(self, name: str) -> int:
        """How many bytes the file has. Raises InvalidInput when there is none of that name."""
        fd = self._open(name)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def open(self, name: str, offset: int = 0) -> BinaryIO:
        """The content of the file from byte `offset` on. Raises InvalidInput when there is none of that name."""
        file = os.fdopen(self._open(name), "rb")
        file.seek(offset)
        return file

    def close(self) -> None:
        """Close the directory; files that were opened in it stay open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, name: str) -> int:
        """Open a regular file, component by component, none of which may be a symbolic link.

        A link in an image that somebody else made would let us read any file of the user into the store, and push it.
        O_NOFOLLOW refuses a link only as the last component of a path: so each component is opened by itself.
        """
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise InvalidInput(f"'{name}' is not a name of a file in '{self.path}'")
        directory = os.dup(self._fd)
        try:
            for part in parts[:-1]:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                inner = os.open(part, flags, dir_fd=directory)
                os.close(directory)
                directory = inner
            # Opening a FIFO waits for its writer (fifo(7)): with O_NONBLOCK one of that name cannot hang us
            fd = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError as e:
            raise InvalidInput(f"'{self.path}' has no file '{name}'") from e
        except OSError as e:
            raise HostLimit(f"cannot read '{self.path}/{name}': {e.strerror}") from e
        finally:
            os.close(directory)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidInput(f"'{self.path}/{name}' is not a regular file")
        return fd


class TarFiles:
    """The files in a seekable tar archive (ustar, GNU long names, pax paths and sizes)."""

    __slots__ = ("_archive", "_links", "_places")

    def __init__(self, archive: BinaryIO) -> None:
        self._archive = archive
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._scan()

    def has(self, name: str) -> bool:
        """Whether there is a regular file of that name (or a link that leads to one)."""
        return self._place(name) is not None

    def size(self, name: str) -> int:
        """How many bytes the file has. Raises InvalidInput when there is none of that name."""
        return self._require(name)[1]

    def open(self, name: str, offset: int = 0) -> Reader:
        """The content of the file from byte `offset` on. Several threads may have files of one archive open at once."""
        start, size = self._require(name)
        return _Slice(self._archive.fileno(), start + min(offset, size), max(0, size - offset))

    def close(self) -> None:
        """Close the archive's file."""
        self._archive.close()

    def names(self) -> list[str]:
        """The names of all regular files, without links."""
        return list(self._places)

    def _require(self, name: str) -> tuple[int, int]:
        place = self._place(name)
        if place is None:
            raise InvalidInput(f"the archive has no file '{name}'")
        return place

    def _place(self, name: str) -> tuple[int, int] | None:
        """Where a file lies; links inside the archive are followed (old docker archives link equal layers)."""
        for _ in range(_MAX_LINKS):
            if name in self._places:
                return self._places[name]
            if name not in self._links:
                return None
            name = self._links[name]
        return None

    def _scan(self) -> None:
        """Note where each file lies. Only headers are read.

        Raises InvalidInput for what is no tar, is cut off, or has more entries or longer headers than we bear.
        """
        archive = self._archive
        end = archive.seek(0, os.SEEK_END)
        position = entries = 0
        long_name = long_link = None
        pax: dict[str, str] = {}
        while position + _BLOCK <= end:
            archive.seek(position)
            header = archive.read(_BLOCK)
            if header == bytes(_BLOCK):
                break
            _check_sum(header)
            entries += 1
            if entries > _MAX_ENTRIES:
                raise InvalidInput(f"the archive has more than {_MAX_ENTRIES} entries")
            size = _number(header[124:136])
            kind = header[156:157]
            position += _BLOCK
            if kind in (b"L", b"K", b"x", b"g"):
                if size > _MAX_EXTENSION:
                    raise InvalidInput("the archive has a header longer than 1 MiB")
                extension = archive.read(size)
                if kind == b"x":
                    pax = _pax(extension)
                elif kind == b"L":
                    long_name = _text(extension)
                elif kind == b"K":
                    long_link = _text(extension)
                position += -(-size // _BLOCK) * _BLOCK
                continue
            name = pax.get("path") or long_name or _ustar_name(header)
            link = pax.get("linkpath") or long_link or _text(header[157:257])
            if "size" in pax:
                size = _decimal(pax["size"])
            self._note(_clean(name), kind, link, position, size)
            if position + size > end:
                raise InvalidInput(f"the archive is cut off in '{name[:200]}'")
            # Only regular files have content: at a directory or a link the size says nothing
            if kind in (b"0", b"\0", b"7"):
                position += -(-size // _BLOCK) * _BLOCK
            long_name = long_link = None
            pax = {}
        if not entries:
            raise InvalidInput("the archive is empty or not a tar archive")

    def _note(self, name: str, kind: bytes, link: str, position: int, size: int) -> None:
        # Of several entries with one name the last counts, as when the archive is unpacked. The types are those of
        # POSIX's ustar: "0", NUL and "7" for files, "1" for hard links, "2" for symbolic links
        self._places.pop(name, None)
        self._links.pop(name, None)
        if kind in (b"0", b"\0", b"7"):
            self._places[name] = (position, size)
        elif kind == b"1":
            self._links[name] = _clean(link)
        elif kind == b"2":
            self._links[name] = _clean(f"{os.path.dirname(name)}/{link}" if not link.startswith("/") else link)


class _Slice:
    """Some bytes of an open file.

    It has a descriptor of its own and reads with pread(2), which leaves the file's position alone: slices of one file
    can be read by several threads, and outlive the file that they were made of.
    """

    __slots__ = ("_fd", "_left", "_position")

    def __init__(self, fd: int, position: int, size: int) -> None:
        self._fd = os.dup(fd)
        self._position = position
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, empty at the end."""
        if size < 0 or size > self._left:
            size = self._left
        piece = os.pread(self._fd, min(size, 1 << 20), self._position)
        self._position += len(piece)
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Close the slice's own descriptor; harmless twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _check_sum(header: bytes) -> None:
    # POSIX, ustar: the sum of the header's bytes, where the 8 of the sum itself count as spaces
    expected = sum(header[:148]) + 8 * 32 + sum(header[156:])
    if _number(header[148:156]) != expected:
        raise InvalidInput("the archive is damaged or not a tar archive: a header has a wrong checksum")


def _number(field: bytes) -> int:
    """The number in a header's field: octal text, or GNU's base 256, which the first bit tells. Raises InvalidInput."""
    if field[0] & 0x80:
        number = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40 or number >= 1 << 62:
            raise InvalidInput("the archive has a header with an impossible size")
        return number
    text = field.split(b"\0", 1)[0].strip()
    # int() alone would take a sign, too: a negative size would read the whole archive into memory
    if not _OCTAL.issuperset(text):
        raise InvalidInput("the archive has a header with a malformed number")
    return int(text, 8) if text else 0


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInput("the archive has a header with a malformed size")
    return int(text)


def _pax(extension: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE\\n` of a pax header, whose lengths count all of the record. Raises InvalidInput."""
    records = {}
    while extension.strip(b"\0"):
        head, space, _ = extension.partition(b" ")
        if not space or not head.isdigit() or len(head) > 7 or not len(head) + 1 < int(head) <= len(extension):
            raise InvalidInput("the archive has a malformed pax header")
        record, extension = extension[len(head) + 1 : int(head) - 1], extension[int(head) :]
        key, _, value = record.partition(b"=")
        records[_text(key)] = value.decode("utf-8", "surrogateescape")
    return records


def _ustar_name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _clean(name: str) -> str:
    """The name without `./`, `//` and inner `..`; what would lead out of the archive names nothing in it."""
    return os.path.normpath("/" + name).lstrip("/")
