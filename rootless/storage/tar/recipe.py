"""The recipe of a layer: the file `recipe.zst` (or `.gz`) beside `diff`, by which the layer's tar can be written again.

A recipe is a list of steps. Each step has bytes of the archive as they are (headers, PAX and GNU records, padding, what
follows the end) and then a range of a file of the tree. Recipe and tree together give every byte of the archive, so the
compressed layer need not be kept. This module reads and writes the format; `storage.layers.rebuild` plays a recipe.

Whoever makes a layer's archive and tree writes the recipe on the way, in the order of the archive's bytes:

    with RecipeWriter.create(directory) as recipe:         # layers/<temporary>, where diff lies or will lie
        recipe.raw(header)                                 # bytes that are in no file of the tree
        recipe.payload(b"usr/bin/env", size, crc=crc)      # the next `size` bytes are those of diff/usr/bin/env
        recipe.raw(padding)                                # a sparse file: one payload() per segment, with offset=
    record["recipe"], record["tar_size"] = True, recipe.tar_size

Paths are bytes below `diff`, free of links, `.` and `..`. A file that a later member of the same archive replaces is
moved to `replaced/<number>` beside `diff`, and `replaced()` notes that in the recipe.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import NamedTuple

from rootless.errors import HostLimit, InvalidInput
from rootless.host.full import full_error

try:
    from isal.isal_zlib import crc32  # ten times zlib's speed
except ImportError:
    from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class _Compressor(Protocol):
        """The compressor that zstandard and zlib make for one stream."""

        def compress(self, data: bytes, /) -> bytes: ...
        def flush(self) -> bytes: ...


__all__ = ["RecipeWriter", "crc32", "find_recipe", "make_opener", "read_moved", "read_steps"]

MAGIC = b"rootless recipe 1\n"
NAMES = ("recipe.zst", "recipe.gz")
REPLACED = "replaced"
_STEP = struct.Struct("<IHQQI")  # length of the raw bytes, length of the path, offset, size, CRC-32
_MOVED = 0xFFFFFFFF  # in place of the first length: this is no step but notes a file that was replaced
_RAW = 1 << 20  # raw bytes of one step; up to twice as many where one piece brings them
_BATCH = 1 << 18  # bytes given to the compressor at once
_MAX_PATH = 1 << 13
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class RecipeStep(NamedTuple):
    """One step: the bytes `raw`, then `size` bytes of the file `path` from `offset` on (none when `size` is 0).

    crc: CRC-32 of those bytes of the file, 0 when it was not noted.
    """

    raw: bytes
    path: bytes
    offset: int
    size: int
    crc: int


class Moved(NamedTuple):
    """Notes that the file or directory `path` was replaced and lies at `replaced/<number>` since.

    steps: number of payloads written before that. What they say of files at or below `path` is meant of the moved one;
    later payloads mean the file that came in its place.
    """

    path: bytes
    steps: int
    number: int


class RecipeWriter:
    """Writes a recipe to an open file, with no more than a batch of it in memory.

    It is to be made before a change of root, since it imports its compressor, and to be used from one thread only.
    tar_size: bytes of the archive so far; payloads: number of calls of `payload` so far.
    """

    __slots__ = ("_batch", "_batched", "_compressor", "_fd", "_last", "_moved", "_raw", "_size", "payloads", "tar_size")

    def __init__(self, fd: int, compressor: _Compressor) -> None:
        self._fd = fd
        self._compressor = compressor
        self._raw: list[bytes] = []
        self._size = 0
        self._batch: list[bytes] = [MAGIC]
        self._batched = 0
        self._last = b""
        self._moved: list[Moved] = []
        self.payloads = 0
        self.tar_size = 0

    @staticmethod
    def create(directory: str) -> RecipeWriter:
        """A new recipe in the directory of a layer that is being made. Raises HostLimit."""
        name, compressor = _compressor()
        try:
            return RecipeWriter(os.open(f"{directory}/{name}", _NEW, 0o600), compressor)
        except OSError as e:
            raise HostLimit(f"cannot write the recipe of a layer in '{directory}': {e.strerror}") from e

    def raw(self, piece: bytes) -> None:
        """The next bytes of the archive, which are in no file of the tree."""
        self._raw.append(piece)
        self._size += len(piece)
        if self._size >= _RAW:
            self._put(b"", 0, 0, 0)

    def payload(self, path: bytes, size: int, *, offset: int = 0, crc: int = 0) -> None:
        """The next `size` (> 0) bytes of the archive are those of the file `path` from `offset` on."""
        self._put(b"" if path == self._last else path, offset, size, crc)
        self._last = path
        self.payloads += 1

    def replaced(self, path: bytes) -> int:
        """Note that the file or directory `path` now moves to `replaced/<number>`; the number is returned."""
        number = len(self._moved)
        self._moved.append(Moved(path, self.payloads, number))
        return number

    def close(self) -> None:
        """Write what is left; the caller syncs the file system. Raises HostLimit (the disk is full)."""
        if self._fd < 0:
            return
        self._put(b"", 0, 0, 0)
        for path, steps, number in self._moved:
            self._batch += (_STEP.pack(_MOVED, len(path), steps, number, 0), path)
        self._flush()
        self._write(self._compressor.flush())
        self.abort()

    def abort(self) -> None:
        """Close the file as it is; harmless after close."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _put(self, path: bytes, offset: int, size: int, crc: int) -> None:
        raw = b"".join(self._raw)
        self._raw.clear()
        self._size = 0
        # A long piece (data of a whiteout, what follows the end) is cut into steps: the reader refuses longer ones
        while len(raw) > 2 * _RAW:
            self._batch += (_STEP.pack(_RAW, 0, 0, 0, 0), raw[:_RAW])
            self.tar_size += _RAW
            raw = raw[_RAW:]
            self._flush()
        self._batch += (_STEP.pack(len(raw), len(path), offset, size, crc), raw, path)
        self._batched += len(raw) + len(path)
        self.tar_size += len(raw) + size
        if self._batched >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        self._write(self._compressor.compress(b"".join(self._batch)))
        self._batch.clear()
        self._batched = 0

    def _write(self, content: bytes) -> None:
        view = memoryview(content)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as e:
            raise full_error("cannot write the recipe of a layer", e, self._fd) from e

    def __enter__(self) -> RecipeWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        if kind is None:
            self.close()
        self.abort()


def find_recipe(directory: str) -> str | None:
    """The path of the recipe in a layer's directory; None when the layer was made without one."""
    for name in NAMES:
        if os.path.exists(f"{directory}/{name}"):
            return f"{directory}/{name}"
    return None


def read_steps(open_recipe: Callable[[], io.BufferedReader]) -> Iterator[RecipeStep]:
    """The steps of a recipe. Raises InvalidInput when it is damaged."""
    for step in _records(open_recipe):
        if isinstance(step, RecipeStep):
            yield step


def read_moved(open_recipe: Callable[[], io.BufferedReader]) -> list[Moved]:
    """What was replaced, in the order in which it was. The notes stand at the end, so the whole recipe is read.

    Raises InvalidInput when the recipe is damaged.
    """
    return [step for step in _records(open_recipe) if isinstance(step, Moved)]


def make_opener(path: str) -> Callable[[], io.BufferedReader]:
    """A function that opens the recipe `path` at its start, even after a change of root. Raises OSError."""
    if path.endswith(".zst"):
        import zstandard

        def open_zstd(fd: int) -> io.BufferedReader:
            file = os.fdopen(fd, "rb")
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=True)
            return io.BufferedReader(reader, _BATCH)

        decode = open_zstd
    else:
        import gzip

        def open_gzip(fd: int) -> io.BufferedReader:
            return io.BufferedReader(gzip.GzipFile(fileobj=os.fdopen(fd, "rb")), _BATCH)

        decode = open_gzip
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def open_again() -> io.BufferedReader:
        os.lseek(fd, 0, os.SEEK_SET)
        return decode(os.dup(fd))

    return open_again


def _records(open_recipe: Callable[[], io.BufferedReader]) -> Iterator[RecipeStep | Moved]:
    last = b""
    with open_recipe() as file:
        try:
            if _exactly(file, len(MAGIC)) != MAGIC:
                raise InvalidInput("the recipe of a layer has an unknown format")
            while header := file.read(_STEP.size):
                if len(header) < _STEP.size:
                    raise InvalidInput("the recipe of a layer is cut off")
                length, path_length, offset, size, crc = _STEP.unpack(header)
                if path_length > _MAX_PATH or (length > 2 * _RAW and length != _MOVED):
                    raise InvalidInput("the recipe of a layer is damaged")
                if length == _MOVED:
                    yield Moved(_exactly(file, path_length), offset, size)
                    continue
                raw, path = _exactly(file, length), _exactly(file, path_length)
                if size:
                    last = path = path or last
                yield RecipeStep(raw, path, offset, size, crc)
        except InvalidInput:
            raise
        except (OSError, EOFError, zlib.error) as e:
            raise InvalidInput(f"the recipe of a layer is damaged: {e}") from e
        except Exception as e:
            if type(e).__name__ != "ZstdError":  # the module is imported where it is needed only
                raise
            raise InvalidInput(f"the recipe of a layer is damaged: {e}") from e


def _exactly(file: io.BufferedReader, size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise InvalidInput("the recipe of a layer is cut off")
    return content


def _compressor() -> tuple[str, _Compressor]:
    try:
        import zstandard

        return NAMES[0], zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    except ImportError:
        return NAMES[1], zlib.compressobj(6, zlib.DEFLATED, 31)
