"""Places on disk that a copy writes to: OCI layout, `dir:`, and both kinds of archive. Bytes are hashed on the way in.

Directories take blobs in any order and keep half ones for the next try; an archive is written beside its name, one blob
after the other, and appears by a rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, Protocol

from rootless.errors import DigestMismatch, HostLimit, InvalidInput, UsageError
from rootless.image.digest import check_digest, digest_of
from rootless.image.directory import VERSION, file_name
from rootless.image.distribution.destination import Placed
from rootless.image.layout import REF_NAME, blob_path
from rootless.image.manifest import MANIFEST_LIMIT, OCI_INDEX, load_json
from rootless.image.tarwriter import TarWriter
from rootless.paths import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.image.distribution.upload import UploadContent

    OnBytes = Callable[[int], None]

_PIECE = 1 << 20
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Sink(Protocol):
    """Where a copy goes. at_once: how many blobs may be put at the same time."""

    at_once: int

    def put_blob(self, content: UploadContent, on_bytes: OnBytes) -> Placed:
        """Let the place have these bytes, unless it has them."""

    def put_config(self, content: UploadContent) -> Placed:
        """The same for an image's config, after its layers."""

    def put_manifest(self, raw: bytes, media_type: str, *, is_top: bool) -> None:
        """Manifest or index; blobs and children came before."""

    def finish(self) -> None:
        """Make it all visible."""

    def close(self) -> None:
        """Give back what is open; without `finish` before, an archive leaves nothing."""


class LayoutSink:
    """A directory with an OCI layout, new or with other images in it. tag: the name that the image gets there."""

    at_once = 3

    def __init__(self, path: str, tag: str) -> None:
        self._path = path
        self._tag = tag
        self._top: dict[str, Any] | None = None
        with told(path):
            os.makedirs(f"{path}/blobs/sha256", exist_ok=True)
            if set(os.listdir(path)) - {"blobs"} and not os.path.exists(f"{path}/index.json"):
                raise UsageError(f"directory '{path}' is not empty and no OCI layout", hint="give another one")

    def put_blob(self, content: UploadContent, on_bytes: OnBytes) -> Placed:
        """Write a blob, from where an earlier try ended."""
        path = f"{self._path}/{blob_path(str(content.digest))}"
        return put_file(path, content, on_bytes)

    def put_config(self, content: UploadContent) -> Placed:
        """Write a config."""
        return self.put_blob(content, _unheard)

    def put_manifest(self, raw: bytes, media_type: str, *, is_top: bool) -> None:
        """Write the manifest; the top one goes into the layout's index at the end."""
        digest = digest_of(raw)
        with told(self._path):
            atomic_write(f"{self._path}/{blob_path(digest)}", raw, mode=0o644)
        if is_top:
            self._top = {"mediaType": media_type, "digest": digest, "size": len(raw)}

    def finish(self) -> None:
        """Name the image in index.json; another one of that name loses it."""
        assert self._top is not None
        with told(self._path):
            try:
                with open(f"{self._path}/index.json", "rb") as file:
                    index = load_json(file.read(MANIFEST_LIMIT), "index.json")
            except FileNotFoundError:
                index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
            manifests = index.get("manifests")
            if not isinstance(manifests, list):
                raise InvalidInput(f"index.json of '{self._path}' is not an index")
            index["manifests"] = [each for each in manifests if not self._is_replaced(each)] + [
                named(self._top, self._tag)
            ]
            atomic_write(f"{self._path}/oci-layout", _LAYOUT, mode=0o644)
            atomic_write(f"{self._path}/index.json", json.dumps(index).encode(), mode=0o644)

    def _is_replaced(self, entry: Any) -> bool:
        assert self._top is not None
        annotations = entry.get("annotations") if isinstance(entry, dict) else None
        name = annotations.get(REF_NAME, "") if isinstance(annotations, dict) else ""
        is_same = isinstance(entry, dict) and entry.get("digest") == self._top["digest"]
        return bool(name == self._tag and (self._tag or is_same))

    def close(self) -> None:
        """Nothing stays open."""


class DirectorySink:
    """A directory in skopeo's `dir:` form."""

    at_once = 3

    def __init__(self, path: str) -> None:
        self._path = path
        with told(path):
            os.makedirs(path, exist_ok=True)
            if os.listdir(path) and not os.path.exists(f"{path}/version"):
                raise UsageError(f"directory '{path}' is not empty and no image's", hint="give another one")
            atomic_write(f"{path}/version", VERSION, mode=0o644)

    def put_blob(self, content: UploadContent, on_bytes: OnBytes) -> Placed:
        """Write a blob, from where an earlier try ended."""
        return put_file(f"{self._path}/{file_name(str(content.digest))}", content, on_bytes)

    def put_config(self, content: UploadContent) -> Placed:
        """Write a config."""
        return self.put_blob(content, _unheard)

    def put_manifest(self, raw: bytes, media_type: str, *, is_top: bool) -> None:
        """Write the manifest."""
        name = "manifest.json" if is_top else f"{file_name(digest_of(raw))}.manifest.json"
        with told(self._path):
            atomic_write(f"{self._path}/{name}", raw, mode=0o644)

    def finish(self) -> None:
        """Everything is there already."""

    def close(self) -> None:
        """Nothing stays open."""


class ArchiveFile:
    """A tar on its way: written beside `path`, renamed at the end. Devices and pipes are written directly."""

    def __init__(self, path: str) -> None:
        self.path = path
        is_special = os.path.exists(path) and not os.path.isfile(path)
        if os.path.isfile(path) and os.path.getsize(path):
            raise UsageError(f"'{path}' exists", hint="an archive is not added to: remove it, or name another file")
        self._temporary = "" if is_special else f"{path}.{os.getpid()}.part"
        with told(path):
            self._file = open(self._temporary or path, "wb" if is_special else "xb")
        self.tar = TarWriter(self._write)

    def _write(self, content: bytes) -> None:
        with told(self.path):
            self._file.write(content)

    def finish(self) -> None:
        """End the tar and give it its name."""
        self.tar.finish()
        with told(self.path):
            self._file.close()
            if self._temporary:
                os.rename(self._temporary, self.path)
                self._temporary = ""

    def close(self) -> None:
        """Drop what was not finished."""
        self._file.close()
        if self._temporary:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = ""


class OciArchiveSink:
    """A tar of an OCI layout."""

    at_once = 1

    def __init__(self, path: str, tag: str) -> None:
        self._tag = tag
        self._top: dict[str, Any] = {}
        self._written: set[str] = set()
        self._archive = ArchiveFile(path)
        self._archive.tar.file("oci-layout", _LAYOUT)
        self._archive.tar.directory("blobs")
        self._archive.tar.directory("blobs/sha256")

    def put_blob(self, content: UploadContent, on_bytes: OnBytes) -> Placed:
        """Add a blob."""
        digest, size = str(content.digest), content.size or 0
        if digest in self._written:
            return Placed(digest, size, "there")
        checked = CheckedStream(content, on_bytes)
        try:
            self._archive.tar.stream(blob_path(digest), size, checked)
            checked.check()
        except EOFError as e:
            raise DigestMismatch(f"content of '{digest}' is shorter than its size of {size} bytes") from e
        finally:
            checked.close()
        self._written.add(digest)
        return Placed(digest, size, "sent")

    def put_config(self, content: UploadContent) -> Placed:
        """Add a config."""
        return self.put_blob(content, _unheard)

    def put_manifest(self, raw: bytes, media_type: str, *, is_top: bool) -> None:
        """Add the manifest."""
        digest = digest_of(raw)
        if digest not in self._written:
            self._written.add(digest)
            self._archive.tar.file(blob_path(digest), raw)
        if is_top:
            self._top = {"mediaType": media_type, "digest": digest, "size": len(raw)}

    def finish(self) -> None:
        """Add the index and end the archive."""
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [named(self._top, self._tag)]}
        self._archive.tar.file("index.json", json.dumps(index).encode())
        self._archive.finish()

    def close(self) -> None:
        """Drop an archive that was not finished."""
        self._archive.close()


class CheckedStream:
    """The bytes of a content, hashed while they are read."""

    __slots__ = ("_content", "_count", "_hash", "_on_bytes", "_reader")

    def __init__(self, content: UploadContent, on_bytes: OnBytes) -> None:
        self._content = content
        self._on_bytes = on_bytes
        self._hash = hashlib.new(check_digest(content.digest).partition(":")[0])
        self._count = 0
        self._reader = content.open(0)

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        piece = self._reader.read(size)
        self._hash.update(piece)
        self._count += len(piece)
        self._on_bytes(self._count)
        return piece

    def drain(self) -> None:
        """Read what is left."""
        while self.read(_PIECE):
            pass

    def check(self) -> None:
        """Compare when all was read. Raises DigestMismatch."""
        compare(self._content, self._hash.hexdigest(), self._count)

    def close(self) -> None:
        """Close what is read."""
        self._reader.close()


def compare(content: UploadContent, found: str, count: int) -> None:
    """Raise DigestMismatch unless these are digits and size of the content."""
    wanted = str(content.digest)
    if content.size is not None and count != content.size:
        raise DigestMismatch(f"content of '{wanted}' has {count} bytes instead of {content.size}")
    if found != wanted.partition(":")[2]:
        raise DigestMismatch(f"content has digest '{wanted.partition(':')[0]}:{found}' instead of '{wanted}'")


def put_file(path: str, content: UploadContent, on_bytes: OnBytes) -> Placed:
    """Write the content to `path`, which appears when it is whole and verified; go on where an earlier try ended."""
    part = f"{path}.part"
    with told(path):
        if os.path.exists(path):
            return Placed(str(content.digest), content.size or os.path.getsize(path), "there")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            count = _append(part, content, on_bytes)
        except DigestMismatch:
            # Nothing can be built on these bytes
            os.unlink(part)
            raise
        os.rename(part, path)
    return Placed(str(content.digest), count, "sent")


def _append(part: str, content: UploadContent, on_bytes: OnBytes) -> int:
    """Add to the file what it lacks of the content; all its bytes, verified."""
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
    compare(content, hasher.hexdigest(), count)
    return count


def named(descriptor: dict[str, Any], tag: str) -> dict[str, Any]:
    """The descriptor as an index.json has it."""
    return {**descriptor, "annotations": {REF_NAME: tag}} if tag else descriptor


def _unheard(count: int) -> None:
    """Progress of what is too small to show."""


@contextlib.contextmanager
def told(path: str) -> Any:
    """Errors of the disk, with the path that the user gave."""
    try:
        yield
    except OSError as e:
        raise HostLimit(f"cannot write '{path}': {e.strerror or e}") from e
