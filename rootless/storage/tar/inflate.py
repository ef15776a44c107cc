"""Inflates a compressed stream and computes the sha256 of what comes out, within bounds. It knows nothing of archives.

Reading, inflating (by isal where it is installed, which is several times faster than zlib) and hashing run in a thread
of their own, while the main thread makes files: all three release Python's interpreter lock, so both threads advance.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading

from rootless.errors import InvalidInput
from rootless.image.decompress import PlainBytes, compression_of, read_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from rootless.storage.tar.recipe import RecipeWriter

    Codec = Callable[[int], Iterator[bytes]]

    class _Decoder(Protocol):
        """The decoder that zlib and isal make for one member of a gzip stream."""

        @property
        def eof(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        @property
        def unconsumed_tail(self) -> bytes: ...
        def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


READ = 1 << 18  # bytes that are read from the descriptor at once
PIECE = 1 << 20  # bytes that a decoder may give at once
DEPTH = 8  # pieces that may wait for the main thread: so much memory, and no more, is used ahead of it
MAX_TOTAL = 1 << 40
# A few megabytes of a hostile layer could fill the disk. Deflate cannot grow data 2000 times (1032 is its bound); zstd,
# xz and bzip2 can, with nothing but zeros. No real layer does once RATIO_FREE bytes have come out.
RATIO = 2000
RATIO_FREE = 4 << 30
MAX_WINDOW = 1 << 27  # bytes of memory that a zstd frame may ask its decoder for (RFC 8878, 3.1.1.1.2)
# zstandard's decoder cannot be told how much to give at once. Four bytes of a zstd stream can stand for a block of
# 128 KiB of zeros (RFC 8878, 3.1.1.2), so 4 KiB of input become at most 128 MiB in memory.
ZSTD_FEED = 1 << 12


class Inflated:
    """A tarstream.TarSource over a compressed file descriptor.

    recipe: is given all bytes that are taken or skipped. Bytes that go out by `views` are the content of files; whoever
    reads them notes them in the recipe. total: uncompressed bytes so far, all of them once `drain` has returned.
    """

    __slots__ = ("_buffer", "_failure", "_hash", "_pieces", "_position", "_recipe", "_stop", "_thread", "total")

    @staticmethod
    def codec(fd: int) -> Codec:
        """What decompresses the bytes that can be read from `fd`, with its module already imported.

        The caller changes its root afterwards, and an import would then look for the module in the image. The format is
        told by the stream's first bytes, which are read here, and not by the layer's media type, which may lie.
        """
        head = read_head(_Descriptor(fd))
        return _CODECS[compression_of(head)](head)

    def __init__(self, fd: int, codec: Codec, recipe: RecipeWriter | None = None) -> None:
        self._buffer = b""
        self._position = 0
        self._recipe = recipe
        self._hash = hashlib.sha256()
        self._pieces: queue.Queue[bytes | None] = queue.Queue(DEPTH)
        self._failure: BaseException | None = None
        self._stop = False
        self.total = 0
        self._thread = threading.Thread(target=self._work, args=(codec(fd),), daemon=True)
        self._thread.start()

    def _work(self, chunks: Iterator[bytes]) -> None:
        """The body of the thread: inflate and hash, at most DEPTH pieces ahead of the main thread."""
        try:
            for piece in chunks:
                self.total += len(piece)
                if self.total > MAX_TOTAL:
                    raise InvalidInput(f"layer is larger than {MAX_TOTAL >> 30} GiB")
                self._hash.update(piece)
                self._pieces.put(piece)
                if self._stop:
                    return
        except BaseException as e:
            self._failure = e
        self._pieces.put(None)

    def _more(self) -> bool:
        piece = self._pieces.get()
        if piece is None:
            self._pieces.put(None)  # the mark of the end goes back, so that a further call finds it and does not wait
            if self._failure is not None:
                raise self._failure
            return False
        self._buffer, self._position = piece, 0
        return True

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes, or fewer at the end."""
        end = self._position + size
        if end <= len(self._buffer):
            piece = self._buffer[self._position : end]
            self._position = end
        else:
            piece = b"".join(self.views(size))
        if self._recipe is not None:
            self._recipe.raw(piece)
        return piece

    def views(self, size: int) -> Iterator[memoryview]:
        """`size` bytes without copying them, in pieces; fewer at the end."""
        while size > 0:
            if self._position == len(self._buffer) and not self._more():
                return
            view = memoryview(self._buffer)[self._position : self._position + size]
            self._position += len(view)
            size -= len(view)
            yield view

    def skip(self, size: int) -> None:
        """Pass over `size` bytes. Raises InvalidInput when there are fewer."""
        for view in self.views(size):
            size -= len(view)
            if self._recipe is not None:
                self._recipe.raw(bytes(view))
        if size > 0:
            raise InvalidInput("tar archive is cut off")

    def drain(self) -> str:
        """Read to the very end and return the digest of all uncompressed bytes."""
        if self._recipe is not None:
            self._recipe.raw(self._buffer[self._position :])
        while self._more():
            if self._recipe is not None:
                self._recipe.raw(self._buffer)
        self._thread.join()
        return f"sha256:{self._hash.hexdigest()}"

    def stop(self) -> None:
        """Let the thread end after its next piece."""
        self._stop = True


class _Descriptor:
    """A file descriptor as a stream. count: bytes that were read."""

    __slots__ = ("_fd", "count")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.count = 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, empty at the end."""
        piece = os.read(self._fd, READ if size < 0 else size)
        self.count += len(piece)
        return piece


def _read(head: bytes, fd: int) -> Iterator[bytes]:
    if head:
        yield head
    while chunk := os.read(fd, READ):
        yield chunk


def _plain(head: bytes) -> Codec:
    return lambda fd: _read(head, fd)


def _guard(read: int, written: int) -> None:
    if written > RATIO_FREE and written > read * RATIO:
        raise InvalidInput(f"layer grows more than {RATIO} times when it is uncompressed")


def _gzip(head: bytes, new: Callable[[], _Decoder], error: type[Exception]) -> Codec:
    """What inflates all members of a gzip stream (RFC 1952, 2.2); anything else after the last one is refused."""

    def chunks(fd: int) -> Iterator[bytes]:
        decoder = None
        read = written = 0
        try:
            for chunk in _read(head, fd):
                read += len(chunk)
                while chunk:
                    if decoder is None or decoder.eof:
                        decoder = new()
                    piece = decoder.decompress(chunk, PIECE)
                    chunk = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
                    if piece:
                        written += len(piece)
                        _guard(read, written)
                        yield piece
        except error as e:
            raise InvalidInput(f"layer is not valid gzip: {e}") from e
        if decoder is None or not decoder.eof:
            raise InvalidInput("gzip stream of the layer is cut off")

    return chunks


def _gzip_codec(head: bytes) -> Codec:
    try:
        from isal import isal_zlib

        failure: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub says instance
        return _gzip(head, lambda: isal_zlib.decompressobj(wbits=31), failure)
    except ImportError:
        import zlib

        return _gzip(head, lambda: zlib.decompressobj(wbits=31), zlib.error)


def _zstd_codec(head: bytes) -> Codec:
    """What inflates all frames of a zstd stream (RFC 8878, 3.1). Skippable frames are among them: zstd:chunked layers
    keep their table of contents in one."""
    import zstandard

    def chunks(fd: int) -> Iterator[bytes]:
        factory = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        decoder = None
        read = written = 0
        try:
            for chunk in _read(head, fd):
                for start in range(0, len(chunk), ZSTD_FEED):
                    pending = chunk[start : start + ZSTD_FEED]
                    read += len(pending)
                    while pending:
                        if decoder is None or decoder.eof:
                            decoder = factory.decompressobj()
                        piece = decoder.decompress(pending)
                        pending = decoder.unused_data if decoder.eof else b""
                        if piece:
                            written += len(piece)
                            _guard(read, written)
                            yield piece
        except zstandard.ZstdError as e:
            raise InvalidInput(f"layer is not valid zstd: {e}") from e
        if decoder is None or not decoder.eof:
            raise InvalidInput("zstd stream of the layer is cut off")

    return chunks


def _other_codec(head: bytes) -> Codec:
    """What inflates xz and bzip2. docker and podman take such layers as well, although no media type names them."""
    if compression_of(head) == "xz":
        import lzma  # noqa: F401 - PlainBytes imports it too, but only after the change of root
    else:
        import bz2  # noqa: F401 - as lzma

    def chunks(fd: int) -> Iterator[bytes]:
        source = _Descriptor(fd)
        plain = PlainBytes(head, source)
        written = 0
        while piece := plain.read(PIECE):
            written += len(piece)
            _guard(source.count, written)
            yield piece

    return chunks


_CODECS: dict[str | None, Callable[[bytes], Codec]] = {
    "gzip": _gzip_codec,
    "zstd": _zstd_codec,
    "xz": _other_codec,
    "bzip2": _other_codec,
    None: _plain,
}
