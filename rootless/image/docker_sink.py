"""A docker-archive that a copy writes: its layers are plain tars, so compressed ones are decompressed on the way."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

from rootless.errors import DigestMismatch, HostLimit, InvalidInput, UsageError
from rootless.image.decompress import HEAD, PlainBytes
from rootless.image.distribution.destination import Placed
from rootless.image.manifest import CONFIG_LIMIT, INDEX_TYPES, ImageConfig, Manifest, parse_manifest
from rootless.image.reference import parse_reference
from rootless.image.sinks import ArchiveFile, CheckedStream, told

if TYPE_CHECKING:
    from rootless.image.distribution.upload import UploadContent
    from rootless.image.sinks import OnBytes

_PIECE = 1 << 20


class DockerArchiveSink:
    """An archive of one image. name: what the image is called in it, "" = nothing."""

    at_once = 1

    def __init__(self, path: str, name: str) -> None:
        self._name = parse_reference(name).familiar() if name else ""
        self._diff_ids: dict[str, str] = {}  # by digest of the blob
        self._config = b""
        self._archive = ArchiveFile(path)

    def put_blob(self, content: UploadContent, on_bytes: OnBytes) -> Placed:
        """Add a layer. Its plain size stands before its bytes, so it is decompressed into a nameless file first."""
        digest = str(content.digest)
        directory = os.path.dirname(os.path.abspath(self._archive.path))
        try:
            fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise HostLimit(f"cannot write to '{directory}': {e.strerror}") from e
        plain_hash = hashlib.sha256()
        checked = CheckedStream(content, on_bytes)
        with os.fdopen(fd, "w+b") as spool:
            try:
                head = b""
                while len(head) < HEAD and (piece := checked.read(HEAD - len(head))):
                    head += piece
                plain = PlainBytes(head, checked)
                with told(self._archive.path):
                    while piece := plain.read(_PIECE):
                        plain_hash.update(piece)
                        spool.write(piece)
                checked.drain()  # what follows the end of the compressed stream is part of the blob
                checked.check()
            except InvalidInput:
                # Bytes that were changed break the decompressor first: then the digest is the better message
                checked.drain()
                checked.check()
                raise
            finally:
                checked.close()
            size = spool.tell()
            spool.seek(0)
            known = f"sha256:{plain_hash.hexdigest()}"
            if known not in self._diff_ids.values():
                self._archive.tar.stream(_layer_name(known), size, spool)
        self._diff_ids[digest] = known
        return Placed(digest, content.size or 0, "sent")

    def put_config(self, content: UploadContent) -> Placed:
        """Add the config."""
        checked = CheckedStream(content, lambda count: None)
        try:
            self._config = checked.read(CONFIG_LIMIT)
            checked.check()
        finally:
            checked.close()
        self._archive.tar.file(f"{str(content.digest).partition(':')[2]}.json", self._config)
        return Placed(str(content.digest), len(self._config), "sent")

    def put_manifest(self, raw: bytes, media_type: str, *, is_top: bool) -> None:
        """Write what the archive has instead of a manifest. Raises DigestMismatch, UsageError."""
        if media_type in INDEX_TYPES:
            raise UsageError("a docker-archive has no place for several platforms", hint="use oci-archive:")
        manifest = parse_manifest(raw, media_type)
        if not isinstance(manifest, Manifest):
            raise InvalidInput("a docker-archive takes images only")
        wanted = ImageConfig(self._config).diff_ids
        found = [self._diff_ids[layer.digest] for layer in manifest.layers]
        if found != wanted:
            raise DigestMismatch("the layers are not those of the image's config")
        entry = {
            "Config": f"{manifest.config.digest.partition(':')[2]}.json",
            "RepoTags": [self._name] if self._name else None,
            "Layers": [_layer_name(each) for each in found],
        }
        self._archive.tar.file("manifest.json", json.dumps([entry]).encode())

    def finish(self) -> None:
        """End the archive."""
        self._archive.finish()

    def close(self) -> None:
        """Drop an archive that was not finished."""
        self._archive.close()


def _layer_name(diff_id: str) -> str:
    return f"{diff_id.partition(':')[2]}.tar"
