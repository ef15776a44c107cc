"""Writes a tar of regular files and directories, streaming and reproducible: owner 0, one time."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.image.decompress import ByteSource

_BLOCK = 512
_OCTAL_LIMIT = 8**11  # a size has 11 octal digits; a larger one is written in GNU's base 256
_NAME_LIMIT = 100  # bytes


class TarWriter:
    """A ustar archive that goes to `write`, which must take all bytes that it is given."""

    __slots__ = ("_write",)

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def directory(self, name: str, *, mode: int = 0o755) -> None:
        """Add a directory; what lies in it comes after it."""
        self._header(f"{name}/", 0, b"5", mode)

    def file(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        """Add a small file, whose content is in memory. Raises ValueError for a name above 100 bytes."""
        self._header(name, len(content), b"0", mode)
        self._write(content)
        self._pad(len(content))

    def stream(self, name: str, size: int, reader: ByteSource) -> None:
        """Add a file of exactly `size` bytes. Raises EOFError when the reader has fewer."""
        self._header(name, size, b"0", 0o644)
        left = size
        while left:
            piece = reader.read(min(left, 1 << 20))
            if not piece:
                raise EOFError(f"'{name}' ends {left} bytes too early")
            self._write(piece)
            left -= len(piece)
        self._pad(size)

    def hard_link(self, name: str, target: str) -> None:
        """Add a further name of the file `target`, which was added before."""
        self._header(name, 0, b"1", 0o755, target)

    def finish(self) -> None:
        """Write the end of the archive: two blocks of zeros."""
        self._write(bytes(2 * _BLOCK))

    def _header(self, name: str, size: int, kind: bytes, mode: int, target: str = "") -> None:
        encoded = name.encode()
        if len(encoded) > _NAME_LIMIT:
            raise ValueError(f"'{name}' is too long for this archive")
        header = bytearray(_BLOCK)
        header[0 : len(encoded)] = encoded
        header[100:108] = b"%07o\0" % mode
        header[108:116] = header[116:124] = b"0000000\0"
        header[124:136] = b"%011o\0" % size if size < _OCTAL_LIMIT else b"\x80" + size.to_bytes(11, "big")
        header[136:148] = b"00000000000\0"
        header[148:156] = b" " * 8
        header[156:157] = kind
        header[157 : 157 + len(target.encode())] = target.encode()
        header[257:265] = b"ustar\x0000"
        header[148:156] = b"%06o\0 " % sum(header)
        self._write(bytes(header))

    def _pad(self, size: int) -> None:
        self._write(bytes(-size % _BLOCK))
