"""Places on disk that `save`, `copy` and `build` write images to: OCI layout, `dir:` and OCI archive.

Bytes are hashed on the way in and never recoded; manifests and configs are written byte for byte. Directories take
blobs in any order and keep half ones for the next try; an archive takes one blob after the other.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple, Protocol

from rootless.errors import DigestMismatch, InvalidInput, UsageError
from rootless.image.content import Placed
from rootless.image.digest import digest_of
from rootless.image.directory import VERSION, file_name
from rootless.image.fields import load_json
from rootless.image.layout import REF_NAME, blob_path
from rootless.image.manifest import MANIFEST_LIMIT, OCI_INDEX
from rootless.image.sink_files import CheckedStream, disk_errors, ignore_progress, put_file
from rootless.image.tarwriter import TarWriter
from rootless.paths import atomic_write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rootless.image.content import BlobContent
    from rootless.image.platform import Platform
    from rootless.image.sink_files import ArchiveOutput, OnBytes

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Listing(NamedTuple):
    """How a place lists an image.

    names: what the image is called there, in the words of the place (tags of a layout, references of a docker-archive).
    platform: what the image runs on, None where the place need not say so.
    """

    names: tuple[str, ...] = ()
    platform: Platform | None = None


class Sink(Protocol):
    """A place that images are written to. at_once: how many blobs may be put at the same time, by several threads."""

    at_once: int

    def put_blob(self, content: BlobContent, on_bytes: OnBytes) -> Placed:
        """Let the place have these bytes, unless it has them. on_bytes: called with the bytes written so far."""

    def put_config(self, content: BlobContent) -> Placed:
        """Let the place have an image's config. A registry must have the layers before."""

    def put_manifest(self, raw: bytes, media_type: str, *, listing: Listing | None) -> None:
        """Put a manifest or index, whose blobs and children came before. listing: None for a child of an index."""

    def finish(self) -> None:
        """List the images that were put, and so make them visible."""

    def close(self) -> None:
        """Give back what is open; without `finish` before, an archive leaves nothing."""


class LayoutSink:
    """A directory with an OCI layout (image-spec image-layout.md), new or with other images in it."""

    at_once = 3

    def __init__(self, path: str) -> None:
        self._path = path
        self._entries: list[dict[str, object]] = []
        with disk_errors(path):
            os.makedirs(f"{path}/blobs/sha256", exist_ok=True)
            if set(os.listdir(path)) - {"blobs"} and not os.path.exists(f"{path}/index.json"):
                raise UsageError(f"directory '{path}' is not empty and no OCI layout", hint="give another one")

    def put_blob(self, content: BlobContent, on_bytes: OnBytes) -> Placed:
        """Write a blob, from where an earlier try ended."""
        path = f"{self._path}/{blob_path(str(content.digest))}"
        return put_file(path, content, on_bytes)

    def put_config(self, content: BlobContent) -> Placed:
        """Write a config as any other blob."""
        return self.put_blob(content, ignore_progress)

    def put_manifest(self, raw: bytes, media_type: str, *, listing: Listing | None) -> None:
        """Write the manifest; one with a listing goes into the layout's index at the end."""
        with disk_errors(self._path):
            atomic_write(f"{self._path}/{blob_path(digest_of(raw))}", raw, mode=0o644)
        if listing is not None:
            self._entries += list_image(raw, media_type, listing)

    def finish(self) -> None:
        """List the images in index.json; a name that another image has there goes over to the new one.

        index.json is written last, as a whole: who reads the layout meanwhile sees it as it was, and a copy that was
        interrupted leaves blobs that nothing names.
        """
        with disk_errors(self._path):
            try:
                with open(f"{self._path}/index.json", "rb") as file:
                    index = load_json(file.read(MANIFEST_LIMIT), "index.json")
            except FileNotFoundError:
                index = _empty_index()
            manifests = index.get("manifests")
            if not isinstance(manifests, list):
                raise InvalidInput(f"index.json of '{self._path}' is not an index")
            index["manifests"] = [each for each in manifests if not self._is_replaced(each)] + self._entries
            atomic_write(f"{self._path}/oci-layout", _LAYOUT, mode=0o644)
            atomic_write(f"{self._path}/index.json", json.dumps(index).encode(), mode=0o644)

    def _is_replaced(self, old: object) -> bool:
        """Whether an entry that was in index.json before gives way to a new one.

        It does when both have the same name, or when neither has a name and both are the same image.
        """
        if not isinstance(old, dict):
            return False
        name = _name_in(old)
        return any(name == _name_in(new) and (name or old.get("digest") == new["digest"]) for new in self._entries)

    def close(self) -> None:
        """Do nothing: each file was closed when it was whole."""


class DirectorySink:
    """A directory in skopeo's `dir:` form: one image without a name."""

    at_once = 3

    def __init__(self, path: str) -> None:
        self._path = path
        with disk_errors(path):
            os.makedirs(path, exist_ok=True)
            if os.listdir(path) and not os.path.exists(f"{path}/version"):
                raise UsageError(f"directory '{path}' is not empty and no image's", hint="give another one")
            atomic_write(f"{path}/version", VERSION, mode=0o644)

    def put_blob(self, content: BlobContent, on_bytes: OnBytes) -> Placed:
        """Write a blob, from where an earlier try ended."""
        return put_file(f"{self._path}/{file_name(str(content.digest))}", content, on_bytes)

    def put_config(self, content: BlobContent) -> Placed:
        """Write a config as any other blob."""
        return self.put_blob(content, ignore_progress)

    def put_manifest(self, raw: bytes, media_type: str, *, listing: Listing | None) -> None:
        """Write the manifest: the top one is `manifest.json`, children are named by their digests."""
        name = "manifest.json" if listing is not None else f"{file_name(digest_of(raw))}.manifest.json"
        with disk_errors(self._path):
            atomic_write(f"{self._path}/{name}", raw, mode=0o644)

    def finish(self) -> None:
        """Do nothing: every file is there already."""

    def close(self) -> None:
        """Do nothing: each file was closed when it was whole."""


class OciArchiveSink:
    """A tar of an OCI layout.

    index: the entries of index.json (see `list_image`) where they are known before the blobs. Then index.json stands
    first, so that who reads the archive from a pipe knows what comes; else it stands last.
    """

    at_once = 1  # a tar takes one file after the other

    def __init__(self, output: ArchiveOutput, index: Sequence[dict[str, object]] = ()) -> None:
        self._output = output
        self._tar = TarWriter(output.write)
        self._entries: list[dict[str, object]] = []
        self._written: set[str] = set()
        self._is_listed = bool(index)
        self._tar.file("oci-layout", _LAYOUT)
        if index:
            self._write_index(index)
        self._tar.directory("blobs")
        self._tar.directory("blobs/sha256")

    def put_blob(self, content: BlobContent, on_bytes: OnBytes) -> Placed:
        """Add a blob, once."""
        digest, size = str(content.digest), content.size or 0
        if digest in self._written:
            return Placed(digest, size, "there")
        checked = CheckedStream(content, on_bytes)
        try:
            self._tar.stream(blob_path(digest), size, checked)
            checked.check()
        except EOFError as e:
            raise DigestMismatch(f"content of '{digest}' is shorter than its size of {size} bytes") from e
        finally:
            checked.close()
        self._written.add(digest)
        return Placed(digest, size, "sent")

    def put_config(self, content: BlobContent) -> Placed:
        """Add a config as any other blob."""
        return self.put_blob(content, ignore_progress)

    def put_manifest(self, raw: bytes, media_type: str, *, listing: Listing | None) -> None:
        """Add the manifest, once."""
        digest = digest_of(raw)
        if digest not in self._written:
            self._written.add(digest)
            self._tar.file(blob_path(digest), raw)
        if listing is not None:
            self._entries += list_image(raw, media_type, listing)

    def finish(self) -> None:
        """Add the index, unless it stands first, and end the archive."""
        if not self._is_listed:
            self._write_index(self._entries)
        self._tar.finish()
        self._output.finish()

    def _write_index(self, entries: Iterable[dict[str, object]]) -> None:
        self._tar.file("index.json", json.dumps({**_empty_index(), "manifests": list(entries)}).encode())

    def close(self) -> None:
        """Drop an archive that was not finished."""
        self._output.close()


def list_image(raw: bytes, media_type: str, listing: Listing) -> list[dict[str, object]]:
    """The entries that index.json has for a manifest: one for each name, or one without."""
    descriptor: dict[str, object] = {"mediaType": media_type, "digest": digest_of(raw), "size": len(raw)}
    if listing.platform is not None:
        platform = {"architecture": listing.platform.architecture, "os": listing.platform.os}
        if listing.platform.variant:
            platform["variant"] = listing.platform.variant
        descriptor["platform"] = platform
    named: list[dict[str, object]] = [{**descriptor, "annotations": {REF_NAME: name}} for name in listing.names]
    return named or [descriptor]


def _empty_index() -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}


def _name_in(entry: dict[str, object]) -> object:
    """The name that an entry of index.json gives its image, "" for none."""
    annotations = entry.get("annotations")
    return annotations.get(REF_NAME, "") if isinstance(annotations, dict) else ""
