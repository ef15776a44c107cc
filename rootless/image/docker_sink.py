"""A docker-archive, as `docker load` reads it. Its layers are plain tars: compressed ones are decompressed first."""

from __future__ import annotations

import hashlib
import json
import os

from rootless.errors import DigestMismatch, HostLimit, InvalidInput, UsageError
from rootless.image.content import Placed
from rootless.image.decompress import PlainBytes, compression_of, read_head
from rootless.image.manifest import CONFIG_LIMIT, INDEX_TYPES, ImageConfig, Manifest, parse_manifest
from rootless.image.reference import parse_reference
from rootless.image.sink_files import CheckedStream, disk_errors, ignore_progress
from rootless.image.tarwriter import TarWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.image.content import BlobContent
    from rootless.image.sink_files import ArchiveOutput, OnBytes
    from rootless.image.sinks import Listing

_PIECE = 1 << 20


class DockerArchiveSink:
    """An archive of several images. The names of a listing are image references."""

    at_once = 1  # a tar takes one file after the other

    def __init__(self, output: ArchiveOutput) -> None:
        self._output = output
        self._tar = TarWriter(output.write)
        self._diff_ids: dict[str, str] = {}  # by digest of the blob
        self._configs: dict[str, bytes] = {}  # by digest
        self._entries: list[dict[str, object]] = []
        self._repositories: dict[str, dict[str, str]] = {}

    def put_blob(self, content: BlobContent, on_bytes: OnBytes) -> Placed:
        """Add a layer, once. Raises DigestMismatch, InvalidInput, HostLimit."""
        digest = str(content.digest)
        if digest in self._diff_ids:
            return Placed(digest, content.size or 0, "there")
        checked = CheckedStream(content, on_bytes)
        try:
            head = read_head(checked)
            plain = PlainBytes(head, checked)
            # A layer that is a plain tar is passed through: its digest is its diff_id, which gives the file its name
            if compression_of(head) is None and content.size is not None and digest.startswith("sha256:"):
                self._diff_ids[digest] = self._add_tar(digest, content.size, plain, checked)
            else:
                self._diff_ids[digest] = self._add_decompressed(plain, checked)
        finally:
            checked.close()
        return Placed(digest, content.size or 0, "sent")

    def _add_tar(self, digest: str, size: int, plain: PlainBytes, checked: CheckedStream) -> str:
        """Add a layer that is a plain tar, and return its diff_id, which is its digest."""
        if digest in self._diff_ids.values():
            checked.drain()
        else:
            try:
                self._tar.stream(_layer_name(digest), size, plain)
            except EOFError as e:
                raise DigestMismatch(f"content of '{digest}' is shorter than its size of {size} bytes") from e
        checked.check()
        return digest

    def _add_decompressed(self, plain: PlainBytes, checked: CheckedStream) -> str:
        """Add a compressed layer, and return its diff_id.

        The header of a file in a tar gives the file's size, which is known only when the layer was decompressed: it
        goes into a file without a name first, of which nothing is left however this process ends.
        """
        directory = self._output.directory
        try:
            fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise HostLimit(f"cannot write to '{directory}': {e.strerror}") from e
        plain_hash = hashlib.sha256()
        with os.fdopen(fd, "w+b") as spool:
            try:
                with disk_errors(directory):
                    while piece := plain.read(_PIECE):
                        plain_hash.update(piece)
                        spool.write(piece)
                checked.drain()  # what follows the end of the compressed stream is part of the blob
                checked.check()
            except InvalidInput:
                # Bytes that were changed on the way break the decompressor before their end is reached. Comparing the
                # digest of all of them says so; only bytes that are what was promised are called a broken archive
                checked.drain()
                checked.check()
                raise
            size = spool.tell()
            spool.seek(0)
            diff_id = f"sha256:{plain_hash.hexdigest()}"
            if diff_id not in self._diff_ids.values():
                self._tar.stream(_layer_name(diff_id), size, spool)
        return diff_id

    def put_config(self, content: BlobContent) -> Placed:
        """Add the config, once, and keep it for `put_manifest`. Raises DigestMismatch, InvalidInput, HostLimit."""
        digest = str(content.digest)
        if digest not in self._configs:
            checked = CheckedStream(content, ignore_progress)
            try:
                self._configs[digest] = checked.read(CONFIG_LIMIT)
                checked.check()
            finally:
                checked.close()
            self._tar.file(_config_name(digest), self._configs[digest])
        return Placed(digest, len(self._configs[digest]), "sent")

    def put_manifest(self, raw: bytes, media_type: str, *, listing: Listing | None) -> None:
        """Note the image for manifest.json, which the archive has instead of manifests.

        Raises UsageError for an index, DigestMismatch for layers that are not those of the config, InvalidInput.
        """
        if media_type in INDEX_TYPES or listing is None:
            raise UsageError("a docker-archive has no place for several platforms", hint="use oci-archive:")
        manifest = parse_manifest(raw, media_type)
        if not isinstance(manifest, Manifest):
            raise InvalidInput("a docker-archive takes images only")
        diff_ids = ImageConfig(self._configs[manifest.config.digest]).diff_ids
        if [self._diff_ids[layer.digest] for layer in manifest.layers] != diff_ids:
            raise DigestMismatch("the layers are not those of the image's config")
        references = [parse_reference(name) for name in listing.names]
        entry: dict[str, object] = {
            "Config": _config_name(manifest.config.digest),
            "RepoTags": [each.familiar() for each in references] or None,
            "Layers": [_layer_name(each) for each in diff_ids],
        }
        self._entries.append(entry)
        # The file `repositories` has the names as docker before 1.10 wanted them; some tools still read it
        top = diff_ids[-1].partition(":")[2] if diff_ids else ""
        for each in references:
            self._repositories.setdefault(each.familiar_name, {})[each.tag or "latest"] = top

    def finish(self) -> None:
        """Add the lists of images and names, and end the archive."""
        self._tar.file("manifest.json", json.dumps(self._entries).encode())
        self._tar.file("repositories", json.dumps(self._repositories).encode())
        self._tar.finish()
        self._output.finish()

    def close(self) -> None:
        """Drop an archive that was not finished."""
        self._output.close()


def _layer_name(diff_id: str) -> str:
    return f"{diff_id.partition(':')[2]}.tar"


def _config_name(digest: str) -> str:
    return f"{digest.partition(':')[2]}.json"
