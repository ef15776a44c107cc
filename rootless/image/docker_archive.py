"""Images in a docker-archive, as `docker save` and `podman save` write it: manifest.json, configs and layer tars.

Reading only. The archive has no manifests, so each image gets an OCI manifest made here; its layers' digests are
computed from their bytes, which are checked against the config's diff_ids when they are unpacked.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import NamedTuple

from rootless.errors import InvalidInput, UsageError
from rootless.image.decompress import compression_of, read_head
from rootless.image.digest import digest_of
from rootless.image.file_sets import FileSet, read_file
from rootless.image.layout import is_layout, layout_sources
from rootless.image.manifest import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Manifest,
    parse_manifest,
)
from rootless.image.platform import host_platform
from rootless.image.reference import parse_reference
from rootless.image.source import Reader
from rootless.records.fields import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from rootless.image.layout import LayoutSource
    from rootless.image.platform import Platform

    ArchiveSource: TypeAlias = "LayoutSource | DockerArchiveSource"

_SUFFIXES = {"gzip": "+gzip", "zstd": "+zstd"}  # the compressions that the image specification has names for
_MAX_IMAGES = 1000


class DockerArchiveSource:
    """One image of a docker-archive.

    `manifest` must be called first: it reads the config, and finds out which file has which digest.
    """

    label = ""  # only a layout has labels beside names
    labels: tuple[str, ...] = ()
    __slots__ = ("_config", "_config_path", "_files", "_layer_paths", "_paths", "digests", "names")

    def __init__(self, files: FileSet, config_path: str, layer_paths: list[str], names: tuple[str, ...]) -> None:
        self._files = files
        self._config_path = config_path
        self._layer_paths = layer_paths
        self._paths: dict[str, str] = {}
        self._config = b""
        self.digests: tuple[str, ...] = ()
        self.names = names

    def manifest(self, platform: Platform) -> Manifest:
        """A manifest made for this image. An archive has one platform only, so `platform` is not asked.

        Raises InvalidInput when layers or config are missing or do not belong together.
        """
        self._config = read_file(self._files, self._config_path, CONFIG_LIMIT)
        config = ImageConfig(self._config)
        if len(config.diff_ids) != len(self._layer_paths):
            raise InvalidInput(
                f"the archive lists {len(self._layer_paths)} layers for '{self._config_path}',"
                f" whose config has {len(config.diff_ids)}"
            )
        layers = [self._layer(path, diff_id) for path, diff_id in zip(self._layer_paths, config.diff_ids, strict=True)]
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(self._config), "size": len(self._config)},
            "layers": layers,
        }
        manifest = parse_manifest(json.dumps(document, separators=(",", ":")).encode(), OCI_MANIFEST)
        assert isinstance(manifest, Manifest)
        return manifest

    def config(self, manifest: Manifest) -> bytes:
        """The image config's bytes, which `manifest` has read."""
        return self._config

    def top(self) -> tuple[bytes, str]:
        """The manifest made for this image, and its media type."""
        manifest = self.manifest(host_platform())
        return manifest.raw, manifest.media_type

    def fetch(self, descriptor: Descriptor) -> bytes:
        """Raise InvalidInput: a docker-archive has no indexes, so nothing lies below one."""
        raise InvalidInput(f"the archive has no manifest '{descriptor.digest}'")

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Reader:
        """The bytes of a layer or of the config from byte `offset` on, not verified."""
        if descriptor.digest not in self._paths and descriptor.digest == digest_of(self._config):
            return io.BytesIO(self._config[offset:])
        return self._files.open(self._paths[descriptor.digest], offset)

    def close(self) -> None:
        """Nothing of its own is open: who opened the files closes them."""

    def _layer(self, path: str, diff_id: str) -> dict[str, object]:
        """The descriptor of a layer file: a plain tar is named by its diff_id, a compressed one must be hashed."""
        reader = self._files.open(path)
        try:
            head = read_head(reader)
            compression = compression_of(head)
            digest = diff_id
            if compression is not None:
                hasher = hashlib.sha256(head)
                while piece := reader.read(1 << 20):
                    hasher.update(piece)
                digest = f"sha256:{hasher.hexdigest()}"
        finally:
            reader.close()
        self._paths[digest] = path
        return {
            "mediaType": OCI_LAYER + _SUFFIXES.get(compression or "", ""),
            "digest": digest,
            "size": self._files.size(path),
        }


class _Entry(NamedTuple):
    """One image as manifest.json lists it: paths in the archive, and full references."""

    config: str
    layers: list[str]
    names: tuple[str, ...]


def archive_sources(files: FileSet) -> Sequence[ArchiveSource]:
    """The images of an archive or layout of any kind that we read.

    Files that are both, as docker 25 and later write them, are read as a layout, with the names of manifest.json.
    Raises InvalidInput when they are neither an OCI layout nor a docker-archive.
    """
    entries = _manifest_json(files) if files.has("manifest.json") else []
    if is_layout(files):
        by_config = {
            f"sha256:{each.config.rpartition('/')[2].removesuffix('.json')}": list(each.names) for each in entries
        }
        return layout_sources(files, by_config)
    if not entries:
        raise InvalidInput(
            "neither an OCI layout nor a docker-archive: no index.json and no manifest.json",
            hint="`image import` takes the tar of a root file system",
        )
    return [DockerArchiveSource(files, each.config, each.layers, each.names) for each in entries]


def _manifest_json(files: FileSet) -> list[_Entry]:
    try:
        entries = parse_json(read_file(files, "manifest.json", MANIFEST_LIMIT))
    except ValueError as e:
        raise InvalidInput(f"manifest.json of the archive is not JSON: {str(e)[:200]}") from e
    if not isinstance(entries, list) or len(entries) > _MAX_IMAGES:
        raise InvalidInput("manifest.json of the archive is not a list of images")
    return [_entry(each) for each in entries]


def _entry(document: object) -> _Entry:
    config = document.get("Config") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(config, str):
        raise InvalidInput("manifest.json of the archive has an image without 'Config'")
    layers = document.get("Layers") or []
    if not isinstance(layers, list) or not all(isinstance(each, str) for each in layers):
        raise InvalidInput("manifest.json of the archive has 'Layers' that are not a list of names")
    tags = document.get("RepoTags") or []
    if not isinstance(tags, list):
        raise InvalidInput("manifest.json of the archive has 'RepoTags' that are not a list")
    try:
        names = tuple(str(parse_reference(tag)) for tag in tags if isinstance(tag, str))
    except UsageError as e:
        raise InvalidInput(f"manifest.json of the archive names an image badly: {e.message}") from e
    return _Entry(config, layers, names)
