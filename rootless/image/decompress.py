"""Compressed archives as streams of plain bytes: gzip, zstd, xz and bzip2, told apart by their first bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rootless.errors import InvalidInput

if TYPE_CHECKING:
    from typing import BinaryIO

_MAX_WINDOW = 1 << 27
_XZ_MEMORY = 1 << 28
HEAD = 6


def compression_of(head: bytes) -> str | None:
    """The compression that begins with these bytes (HEAD of them), None for none that is known."""
    for magic, name in (
        (b"\x1f\x8b", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"BZh", "bzip2"),
    ):
        if head.startswith(magic):
            return name
    return None


class Plain:
    """The decompressed bytes of `stream`, whose first bytes `head` were read already."""

    __slots__ = ("_name", "_reader")

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        joined = _Joined(head, stream)
        self._name = compression_of(head)
        self._reader: Any = joined if self._name is None else _OPEN[self._name](joined)

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, empty at the end. Raises InvalidInput when the compressed bytes are damaged."""
        if self._name is None:
            piece: bytes = self._reader.read(size)
            return piece
        try:
            piece = self._reader.read(size)
        except Exception as e:
            # Each library has errors of its own, all of which mean the same; the disk's errors are passed on
            if isinstance(e, OSError) and e.errno is not None:
                raise
            raise InvalidInput(f"the archive is not valid {self._name}: {e}") from e
        return piece


class _Joined:
    """A stream with some bytes put back before it."""

    __slots__ = ("_head", "_stream")

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes."""
        if not self._head:
            return self._stream.read(size)
        piece = self._head if size < 0 else self._head[:size]
        self._head = self._head[len(piece) :]
        return piece + self._stream.read() if size < 0 else piece


def _open_gzip(stream: _Joined) -> Any:
    try:
        from isal import igzip

        opened: Any = igzip
        return opened.IGzipFile(fileobj=stream, mode="rb")
    except ImportError:
        import gzip

        return gzip.GzipFile(fileobj=stream, mode="rb")  # type: ignore[call-overload]


def _open_zstd(stream: _Joined) -> Any:
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    return decoder.stream_reader(stream, read_across_frames=True)  # type: ignore[arg-type]


class _Chunked:
    """lzma or bz2 over a stream: all members, with an end that must be there."""

    __slots__ = ("_decoder", "_new", "_pending", "_stream")

    def __init__(self, new: Any, stream: _Joined) -> None:
        self._new = new
        self._decoder = new()
        self._stream = stream
        self._pending = b""

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, at least one unless it is the end."""
        while True:
            if self._decoder.eof:
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
            piece: bytes = self._decoder.decompress(chunk, size)
            if piece:
                return piece


def _open_xz(stream: _Joined) -> Any:
    import lzma

    return _Chunked(lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), stream)


def _open_bzip2(stream: _Joined) -> Any:
    import bz2

    return _Chunked(bz2.BZ2Decompressor, stream)


_OPEN = {"gzip": _open_gzip, "zstd": _open_zstd, "xz": _open_xz, "bzip2": _open_bzip2}
