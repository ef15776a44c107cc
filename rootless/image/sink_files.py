"""What sinks write with: an archive's file or stream, a blob's file that a later try continues, hashing on the way."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Protocol

from rootless.errors import DigestMismatch, UsageError
from rootless.host.full import full_error
from rootless.image.content import Placed
from rootless.image.digest import check_digest
from rootless.paths import sync_paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from rootless.image.content import BlobContent

    OnBytes = Callable[[int], None]

_PIECE = 1 << 20


class ArchiveOutput(Protocol):
    """The file or stream that the bytes of an archive go to."""

    @property
    def directory(self) -> str:
        """A directory where files without a name may lie meanwhile: on a file system that has room for the archive."""

    def write(self, content: bytes, /) -> object:
        """Add bytes. Raises HostLimit, OSError."""

    def finish(self) -> None:
        """Make what was written visible under its name."""

    def close(self) -> None:
        """Give back what is open; an archive that was not finished is dropped. Harmless twice."""


class ArchiveFile:
    """An archive's file, written beside `path` and renamed at the end, so that no half archive has that name.

    Devices and pipes (`/dev/stdout`) are written directly: the rename would put a file in their place. may_replace:
    whether a file of that name with something in it is replaced; else it raises UsageError. Raises HostLimit.
    """

    __slots__ = ("_file", "_path", "_temporary")

    def __init__(self, path: str, *, may_replace: bool = False) -> None:
        self._path = path
        is_special = os.path.exists(path) and not os.path.isfile(path)
        if not may_replace and os.path.isfile(path) and os.path.getsize(path):
            raise UsageError(f"'{path}' exists", hint="an archive is not added to: remove it, or name another file")
        self._temporary = "" if is_special else f"{path}.{os.getpid()}.part"
        with disk_errors(path):
            self._file = open(self._temporary or path, "wb" if is_special else "xb")

    @property
    def directory(self) -> str:
        """The directory of the file, which has room for the archive."""
        return os.path.dirname(os.path.abspath(self._path))

    def write(self, content: bytes, /) -> None:
        """Add bytes. Raises HostLimit."""
        with disk_errors(self._path):
            self._file.write(content)

    def finish(self) -> None:
        """Give the file its name. Raises HostLimit."""
        with disk_errors(self._path):
            if self._temporary:
                self._file.flush()
                os.fsync(self._file.fileno())  # or after a power cut the name may be that of an empty file
            self._file.close()
            if self._temporary:
                os.rename(self._temporary, self._path)
                self._temporary = ""
                sync_paths([self.directory])

    def close(self) -> None:
        """Remove the file unless it was finished."""
        with contextlib.suppress(OSError):  # what cannot be flushed is dropped anyway
            self._file.close()
        if self._temporary:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = ""


class ArchiveStream:
    """An archive on a stream that is open already (standard output, a client's connection), which stays open.

    directory: where files without a name may lie meanwhile.
    """

    __slots__ = ("_stream", "directory", "write")

    def __init__(self, stream: BinaryIO, directory: str) -> None:
        self._stream = stream
        self.directory = directory
        self.write = stream.write

    def finish(self) -> None:
        """Send what is still buffered."""
        self._stream.flush()

    def close(self) -> None:
        """Leave the stream to who opened it."""


class CheckedStream:
    """The bytes of a content, hashed while they are read."""

    __slots__ = ("_content", "_count", "_hash", "_on_bytes", "_reader")

    def __init__(self, content: BlobContent, on_bytes: OnBytes) -> None:
        self._content = content
        self._on_bytes = on_bytes
        self._hash = hashlib.new(check_digest(content.digest).partition(":")[0])
        self._count = 0
        self._reader = content.open(0)

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, empty at the end."""
        piece = self._reader.read(size)
        self._hash.update(piece)
        self._count += len(piece)
        self._on_bytes(self._count)
        return piece

    def drain(self) -> None:
        """Read what is left, so that `check` compares all bytes."""
        while self.read(_PIECE):
            pass

    def check(self) -> None:
        """Compare the bytes with the content's digest and size once all were read. Raises DigestMismatch."""
        _compare(self._content, self._hash.hexdigest(), self._count)

    def close(self) -> None:
        """Close the reader below."""
        self._reader.close()


def put_file(path: str, content: BlobContent, on_bytes: OnBytes) -> Placed:
    """Write the content to `path`, which appears when it is whole and verified; go on where an earlier try ended.

    Raises DigestMismatch, HostLimit. After HostLimit the half file stays as `PATH.part` for the next try.
    """
    part = f"{path}.part"
    with disk_errors(path):
        if os.path.exists(path):
            return Placed(str(content.digest), content.size or os.path.getsize(path), "there")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            count = _append(part, content, on_bytes)
        except DigestMismatch:
            # The next try would append to these bytes, and fail again however often it is made
            os.unlink(part)
            raise
        os.rename(part, path)
        sync_paths([os.path.dirname(path)])
    return Placed(str(content.digest), count, "sent")


def ignore_progress(count: int) -> None:
    """The listener for content that is too small to show its progress."""


@contextlib.contextmanager
def disk_errors(path: str) -> Iterator[None]:
    """Turn errors of the disk into HostLimit with the path that the user gave, and with what to do when it is full."""
    try:
        yield
    except OSError as e:
        raise full_error(f"cannot write '{path}'", e, os.path.dirname(os.path.abspath(path))) from e


def _append(part: str, content: BlobContent, on_bytes: OnBytes) -> int:
    """Add to the file what it lacks of the content, verify all its bytes, and return how many there are."""
    hasher = hashlib.new(check_digest(content.digest).partition(":")[0])
    count = 0
    with open(part, "ab+") as file:
        file.seek(0)
        while piece := file.read(_PIECE):
            hasher.update(piece)
            count += len(piece)
        reader = content.open(count)
        try:
            while piece := reader.read(_PIECE):
                hasher.update(piece)
                file.write(piece)
                count += len(piece)
                on_bytes(count)
        finally:
            reader.close()
        _compare(content, hasher.hexdigest(), count)
        # A file that has the digest for a name is believed without a look: its bytes are on the disk before it has one
        file.flush()
        os.fsync(file.fileno())
    return count


def _compare(content: BlobContent, found: str, count: int) -> None:
    """Raise DigestMismatch unless `found` (hexadecimal) and `count` (bytes) are the content's digest and size."""
    wanted = str(content.digest)
    if content.size is not None and count != content.size:
        raise DigestMismatch(f"content of '{wanted}' has {count} bytes instead of {content.size}")
    if found != wanted.partition(":")[2]:
        raise DigestMismatch(f"content has digest '{wanted.partition(':')[0]}:{found}' instead of '{wanted}'")
