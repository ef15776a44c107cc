"""Compressed archives as streams of plain bytes: gzip, zstd, xz and bzip2, told apart by their first bytes."""

from __future__ import annotations

import io
from typing import Protocol

from rootless.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer


class ByteSource(Protocol):
    """A stream of bytes that its reader does not have to close."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, empty at the end."""


# Bounds on the memory that a hostile stream can make its decoder take, in bytes
_MAX_WINDOW = 1 << 27  # zstd's own tool accepts no more either, unless it is told to; the format allows terabytes
_XZ_MEMORY = 1 << 28  # `xz -9` needs 65 MiB
# Compressed bytes that the zstd decoder is given at once. It returns all that they become: a block of 4 bytes can stand
# for 128 KiB, so that one step makes at most 128 MiB
_ZSTD_FEED = 1 << 12
HEAD = 6  # bytes by which the compressions are told apart


def compression_of(head: bytes) -> str | None:
    """The compression that begins with these bytes (HEAD of them), None for none that is known.

    A zstd stream may begin with a frame to be skipped (RFC 8878, 3.1.2): its magic number has 16 values.
    """
    if head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5:
        return "zstd"
    # A tar begins with a file's name, which may begin with "BZh9". In a bzip2 stream the magic number of the first
    # block follows, or that of the stream's end
    if head[:3] == b"BZh" and head[3:4] in b"123456789" and head[4:6] in (b"1A", b"\x17r"):
        return "bzip2"
    for magic, name in (
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\x00", "xz"),
    ):
        if head.startswith(magic):
            return name
    return None


def read_head(stream: ByteSource) -> bytes:
    """The first HEAD bytes of `stream`, fewer where it ends before."""
    head = b""
    while len(head) < HEAD and (piece := stream.read(HEAD - len(head))):
        head += piece
    return head


class PlainBytes:
    """The decompressed bytes of `stream`, whose first bytes `head` were read already."""

    __slots__ = ("_name", "_reader")

    def __init__(self, head: bytes, stream: ByteSource) -> None:
        joined = _Joined(head, stream)
        self._name = compression_of(head)
        self._reader: _Pieces = joined if self._name is None else _OPEN[self._name](joined)

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, empty at the end. Raises InvalidInput when the compressed bytes are damaged."""
        if self._name is None:
            return self._reader.read(size) or b""
        try:
            return self._reader.read(size) or b""
        except Exception as e:
            # Each library raises exceptions of its own for damaged bytes, OSError without a number among them. One with
            # a number comes from the disk or the network: it says nothing about the archive and is passed on
            if isinstance(e, OSError) and e.errno is not None:
                raise
            raise InvalidInput(f"the archive is not valid {self._name}: {e}") from e


class _Pieces(Protocol):
    """What gives plain bytes. The type allows None, since Python's raw readers do, where no bytes have come yet."""

    def read(self, size: int = -1, /) -> bytes | None:
        """At most `size` bytes, empty at the end."""


class _Decoder(Protocol):
    """What the decompressors of lzma and bz2 have in common: each decodes one member of a stream."""

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether the decoder has given all plain bytes that its input so far is good for."""

    @property
    def unused_data(self) -> bytes:
        """The bytes after the member's end."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` plain bytes of the input so far and of `data`; what is left is given by later calls."""


class _Joined(io.RawIOBase):
    """A stream with some bytes put back before it. Closing it leaves the stream open."""

    def __init__(self, head: bytes, stream: ByteSource) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        """True: Python's gzip reader refuses a stream that does not say that it can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` as far as one read goes; 0 at the end."""
        room = memoryview(buffer)
        piece = self._head[: len(room)] or self._stream.read(len(room))
        self._head = self._head[len(piece) :]
        room[: len(piece)] = piece
        return len(piece)


def _open_gzip(stream: _Joined) -> _Pieces:
    try:
        from isal import igzip

        opener: Callable[..., _Pieces] = igzip.IGzipFile
        return opener(fileobj=stream, mode="rb")
    except ImportError:
        import gzip

        return gzip.GzipFile(fileobj=stream, mode="rb")


class _Zstd:
    """All frames of a zstd stream. The library's own reader would take a stream that is cut off for a whole one."""

    __slots__ = ("_decoder", "_new", "_stream", "_waiting")

    def __init__(self, stream: _Joined) -> None:
        import zstandard

        self._new = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj
        self._decoder = self._new()
        self._stream = stream
        self._waiting = b""

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, at least one unless it is the end."""
        while not self._waiting:
            if self._decoder.eof:
                chunk = self._decoder.unused_data or self._stream.read(_ZSTD_FEED)
                if not chunk:
                    return b""
                self._decoder = self._new()
            else:
                chunk = self._stream.read(_ZSTD_FEED)
                if not chunk:
                    raise EOFError("it is cut off")
            self._waiting = self._decoder.decompress(chunk)
        piece = self._waiting if size < 0 else self._waiting[:size]
        self._waiting = self._waiting[len(piece) :]
        return piece


class _Chunked:
    """All members of an xz or bzip2 stream. A stream that is cut off raises EOFError instead of just ending early."""

    __slots__ = ("_decoder", "_new", "_pending", "_stream")

    def __init__(self, new: Callable[[], _Decoder], stream: _Joined) -> None:
        self._new = new
        self._decoder = new()
        self._stream = stream
        self._pending = b""

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, at least one unless it is the end."""
        while True:
            if self._decoder.eof:
                # Zeros after a member are padding, which the xz format has and which tapes add
                rest = self._decoder.unused_data or self._stream.read(1 << 16)
                if not rest.strip(b"\0"):
                    return b""
                self._decoder = self._new()
                self._pending = rest
            chunk = self._pending
            self._pending = b""
            if not chunk and self._decoder.needs_input:
                chunk = self._stream.read(1 << 16)
                if not chunk:
                    raise EOFError("it is cut off")
            piece = self._decoder.decompress(chunk, size)
            if piece:
                return piece


def _open_xz(stream: _Joined) -> _Pieces:
    import lzma

    return _Chunked(lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), stream)


def _open_bzip2(stream: _Joined) -> _Pieces:
    import bz2

    return _Chunked(bz2.BZ2Decompressor, stream)


_OPEN: dict[str, Callable[[_Joined], _Pieces]] = {
    "gzip": _open_gzip,
    "zstd": _Zstd,
    "xz": _open_xz,
    "bzip2": _open_bzip2,
}
