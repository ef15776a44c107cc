"""Keeps content under its digest: it is written under a temporary name, verified and renamed.

What the bytes mean is unknown here.
"""

from __future__ import annotations

import os
from io import BufferedReader
from types import TracebackType

from rootless.errors import DigestMismatch, HostLimit, InvalidInput, NotFound
from rootless.image.digest import digest_of, hex_of
from rootless.records.json_file import random_name

CHUNK = 1 << 20


class Blobs:
    """The directory `blobs/sha256` of an OCI image layout."""

    __slots__ = ("directory", "incoming")

    def __init__(self, root: str) -> None:
        self.directory = f"{root}/blobs/sha256"
        self.incoming = f"{root}/incoming"

    def path(self, digest: str) -> str:
        """Where the blob lies or would lie. Raises InvalidInput for a malformed digest."""
        return f"{self.directory}/{hex_of(digest)}"

    def has(self, digest: str) -> bool:
        """Whether the blob is here. Its bytes were verified when it was written."""
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        """Bytes of the blob. Raises NotFound."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError as e:
            raise NotFound(f"no blob '{digest}' in the store", hint="pull the image again") from e

    def open(self, digest: str) -> BufferedReader:
        """Open the blob for reading. Its bytes are not verified again: `verify` does that. Raises NotFound."""
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError as e:
            raise NotFound(f"no blob '{digest}' in the store", hint="pull the image again") from e
        except OSError as e:
            raise HostLimit(f"cannot read blob '{digest}': {e.strerror}") from e

    def read(self, digest: str, limit: int) -> bytes:
        """All bytes of a small blob (at most `limit` of them), verified.

        Raises NotFound; InvalidInput when it is larger; DigestMismatch when the file was damaged.
        """
        with self.open(digest) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise InvalidInput(f"blob '{digest}' is larger than {limit} bytes")
        if digest_of(content) != digest:
            raise _damaged(digest)
        return content

    def verify(self, digest: str) -> None:
        """Read the whole blob and compare its digest. Raises NotFound, DigestMismatch."""
        import hashlib

        with self.open(digest) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest[7:]:
            raise _damaged(digest)

    def remove(self, digest: str) -> None:
        """Delete the blob; nothing happens when it is not here."""
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            pass

    def digests(self) -> list[str]:
        """All blobs that are here, in no order."""
        return [f"sha256:{name}" for name in os.listdir(self.directory) if len(name) == 64]

    def writer(self, expected_digest: str | None = None, expected_size: int | None = None) -> BlobWriter:
        """A new blob, to be written and then committed."""
        return BlobWriter(self, expected_digest, expected_size)

    def check(self, expected_digest: str, expected_size: int, *, trusted: bool = False) -> BlobCheck:
        """As `writer`, but the bytes are not kept. trusted: whether the caller knows that the digest is compared
        elsewhere, so that only the size is."""
        return BlobCheck(expected_digest, expected_size, trusted=trusted)

    def put(self, content: bytes) -> str:
        """Store small `content` and return its digest."""
        with self.writer(expected_size=len(content)) as writer:
            writer.write(content)
            return writer.commit()


def _damaged(digest: str) -> DigestMismatch:
    return DigestMismatch(
        f"blob '{digest}' is damaged: its bytes have another digest",
        hint="`rootless system check --repair` fetches it again",
    )


class BlobCheck:
    """Compares the size and digest of bytes that pass by, and keeps none of them. offset: bytes so far."""

    __slots__ = ("_digest", "_hash", "_size", "offset")

    def __init__(self, expected_digest: str, expected_size: int, *, trusted: bool) -> None:
        hex_of(expected_digest)
        import hashlib

        self._digest = expected_digest
        self._size = expected_size
        self._hash = None if trusted else hashlib.sha256()
        self.offset = 0

    def write(self, content: bytes | memoryview) -> int:
        """Take bytes into account. Raises DigestMismatch once there are more than expected."""
        self.offset += len(content)
        if self.offset > self._size:
            raise DigestMismatch(f"blob '{self._digest}' is longer than its size of {self._size} bytes")
        if self._hash is not None:
            self._hash.update(content)
        return len(content)

    def commit(self) -> str:
        """Compare size and digest with the expected ones, and return the digest. Raises DigestMismatch."""
        digest = self._digest if self._hash is None else f"sha256:{self._hash.hexdigest()}"
        if self.offset != self._size:
            raise DigestMismatch(f"blob '{self._digest}' has {self.offset} bytes instead of {self._size}")
        if digest != self._digest:
            raise DigestMismatch(f"content has digest '{digest}' instead of '{self._digest}'")
        return digest

    def abort(self) -> None:
        """Do nothing: nothing was kept that would have to be removed."""


class BlobWriter:
    """A blob that is being written. Used in a `with`: at its end, a blob that was not committed is removed.

    offset: bytes written so far, from which an interrupted download resumes.
    """

    __slots__ = ("_blobs", "_digest", "_fd", "_hash", "_path", "_size", "offset")

    def __init__(self, blobs: Blobs, expected_digest: str | None, expected_size: int | None) -> None:
        if expected_digest is not None:
            hex_of(expected_digest)
        self._blobs = blobs
        self._digest = expected_digest
        self._size = expected_size
        import hashlib

        self._hash = hashlib.sha256()
        self._path = f"{blobs.incoming}/{random_name()}"
        self.offset = 0
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise HostLimit(f"cannot write to '{blobs.incoming}': {e.strerror}") from e

    def write(self, content: bytes | memoryview) -> int:
        """Add bytes. Raises DigestMismatch once there are more than expected, HostLimit when the disk is full."""
        self.offset += len(content)
        if self._size is not None and self.offset > self._size:
            raise DigestMismatch(f"blob '{self._digest}' is longer than its size of {self._size} bytes")
        self._hash.update(content)
        view = memoryview(content)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as e:
            from rootless.host.full import full_error

            raise full_error(f"cannot write blob into '{self._blobs.incoming}'", e, self._blobs.incoming) from e
        return len(content)

    def commit(self) -> str:
        """Verify, make durable, give the blob its name; returns its digest.

        Raises DigestMismatch (size or digest), HostLimit (the disk is full).
        """
        digest = f"sha256:{self._hash.hexdigest()}"
        if self._size is not None and self.offset != self._size:
            raise DigestMismatch(f"blob '{self._digest or digest}' has {self.offset} bytes instead of {self._size}")
        if self._digest is not None and digest != self._digest:
            raise DigestMismatch(f"content has digest '{digest}' instead of '{self._digest}'")
        try:
            # The name of a blob promises that its bytes were verified. Without this sync before the rename, a power cut
            # could leave the name on the disk and not the bytes.
            os.fdatasync(self._fd)
            os.fchmod(self._fd, 0o400)
            os.rename(self._path, self._blobs.path(digest))
        except OSError as e:
            from rootless.host.full import full_error

            raise full_error(f"cannot store blob '{digest}'", e, self._blobs.incoming) from e
        os.close(self._fd)
        self._fd = -1
        return digest

    def abort(self) -> None:
        """Remove what was written; nothing happens after a commit."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
