"""Compressing layers for registries and archives: the same bytes for the same tar, always. It touches no files.

gzip has no time and no name in its header. A `Compression` has a key, which changes with its level and implementation:
under it the digest of the result may be remembered.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.image.source import Reader

NAMES = ("gzip", "zstd", "none")
_LEVELS = {"gzip": (1, 9), "zstd": (1, 22), "none": (0, 0)}
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # RFC 1952, 2.3: deflate, no name, no time, an unknown system (255)
_PIECE = 1 << 20
_FAST_GZIP = 3  # ISA-L's levels are 0 to 3; above them zlib works
_DEFAULT_GZIP = 2
_DEFAULT_ZSTD = 3


class Compression(NamedTuple):
    """How layers are compressed. name: one of NAMES. level: None = a fast one."""

    name: str = "gzip"
    level: int | None = None

    @property
    def suffix(self) -> str:
        """What follows `…layer.v1.tar` in the media type of a layer (image-spec layer.md)."""
        return "" if self.name == "none" else f"+{self.name}"

    @property
    def key(self) -> str:
        """What the digest of a compressed layer is remembered under: name, implementation and level."""
        if self.name == "gzip":
            import zlib

            library = _isal_version() if _isal(self.level) else f"zlib-{zlib.ZLIB_RUNTIME_VERSION}"
            return f"gzip:{library}:{self.level or _DEFAULT_GZIP}"
        if self.name == "zstd":
            import zstandard

            library = ".".join(str(number) for number in zstandard.ZSTD_VERSION)
            return f"zstd:{library}:{self.level or _DEFAULT_ZSTD}"
        return "none"


def parse_compression(name: str, level: int | None = None) -> Compression:
    """The compression that the user's flags mean. Raises UsageError for an unknown name or a level that it lacks."""
    if name not in NAMES:
        raise UsageError(f"unknown compression '{name}'", hint=f"use one of: {', '.join(NAMES)}")
    lowest, highest = _LEVELS[name]
    if level is not None and not lowest <= level <= highest:
        raise UsageError(
            f"compression level {level} is not one of {name}", hint=f"use {lowest} to {highest}" if highest else None
        )
    return Compression(name, level)


class Encoder(Protocol):
    """Compresses piece by piece: `feed` for each, then `finish`, once."""

    def feed(self, piece: bytes) -> bytes:
        """The next compressed bytes."""

    def finish(self) -> bytes:
        """The last compressed bytes, after which nothing may be fed."""


class Compressed:
    """The compressed bytes of `reader`, made while they are read."""

    __slots__ = ("_encoder", "_reader", "_waiting")

    def __init__(self, reader: Reader, compression: Compression) -> None:
        self._reader = reader
        self._encoder: Encoder | None = make_encoder(compression)
        self._waiting = bytearray()

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, empty at the end."""
        while self._encoder is not None and (size < 0 or len(self._waiting) < size):
            piece = self._next()
            if piece:
                self._waiting += self._encoder.feed(piece)
            if len(piece) < _PIECE:
                self._waiting += self._encoder.finish()
                self._encoder = None
        taken = bytes(self._waiting if size < 0 else self._waiting[:size])
        del self._waiting[: len(taken)]
        return taken

    def _next(self) -> bytes:
        """The next _PIECE bytes, fewer only at the end of the reader.

        What ISA-L makes of the same bytes depends on how they are cut: as every piece but the last has the same size,
        the same tar always becomes the same layer, however few bytes the reader gives at a time.
        """
        parts = []
        left = _PIECE
        while left and (part := self._reader.read(left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the reader of the plain bytes."""
        self._reader.close()


def make_encoder(compression: Compression) -> Encoder:
    """A new encoder of that compression, for a caller that has the bytes at hand instead of a reader."""
    return _ENCODERS[compression.name](compression.level)


class _Deflate(Protocol):
    """What the compressor objects of zlib and ISA-L have in common."""

    def compress(self, data: bytes, /) -> bytes:
        """The next compressed bytes."""

    def flush(self) -> bytes:
        """The last compressed bytes, after which nothing may be fed."""


class _Gzip:
    """One gzip member (RFC 1952) with nothing in its header that varies."""

    __slots__ = ("_crc", "_crc32", "_object", "_size", "_started")

    def __init__(self, level: int | None) -> None:
        import zlib

        chosen = level or _DEFAULT_GZIP
        self._object: _Deflate
        self._crc32: Callable[[bytes, int], int]
        if _isal(level):
            from isal import isal_zlib

            self._object, self._crc32 = isal_zlib.compressobj(chosen, zlib.DEFLATED, -15), isal_zlib.crc32
        else:
            self._object, self._crc32 = zlib.compressobj(chosen, zlib.DEFLATED, -15), zlib.crc32
        self._crc = 0
        self._size = 0
        self._started = False

    def feed(self, piece: bytes) -> bytes:
        """The next compressed bytes."""
        self._crc = self._crc32(piece, self._crc)
        self._size += len(piece)
        return self._head() + self._object.compress(piece)

    def finish(self) -> bytes:
        """The last compressed bytes, after which nothing may be fed."""
        tail = (self._crc & 0xFFFFFFFF).to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        return self._head() + self._object.flush() + tail

    def _head(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return _GZIP_HEADER


class _Zstd:
    """One zstd frame (RFC 8878) with a checksum, which a reader verifies."""

    __slots__ = ("_object",)

    def __init__(self, level: int | None) -> None:
        import zstandard

        self._object = zstandard.ZstdCompressor(level=level or _DEFAULT_ZSTD, write_checksum=True).compressobj()

    def feed(self, piece: bytes) -> bytes:
        """The next compressed bytes."""
        return self._object.compress(piece)

    def finish(self) -> bytes:
        """The last compressed bytes, after which nothing may be fed."""
        return self._object.flush()


class _Nothing:
    """Passes the bytes on as they are: the encoder of layers that stay uncompressed."""

    __slots__ = ()

    def __init__(self, level: int | None) -> None:
        pass

    def feed(self, piece: bytes) -> bytes:
        """The piece as it is: nothing is compressed."""
        return piece

    def finish(self) -> bytes:
        """No bytes: all of them have left already."""
        return b""


def _isal_version() -> str:
    """ISA-L's name and version: another version may compress the same tar to other bytes."""
    import isal

    return f"isal-{isal.__version__}"


def _isal(level: int | None) -> bool:
    """Whether ISA-L compresses at this level: it has the fast levels only, and need not be installed."""
    if (level or _DEFAULT_GZIP) > _FAST_GZIP:
        return False
    try:
        import isal  # noqa: F401
    except ImportError:
        return False
    return True


_ENCODERS: dict[str, Callable[[int | None], Encoder]] = {"gzip": _Gzip, "zstd": _Zstd, "none": _Nothing}
