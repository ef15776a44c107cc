"""Writes images where other tools read them: OCI layout directory, oci-archive, docker-archive. Blobs are not recoded.

Blobs come from a callable, so that this room knows no store. Manifests and configs are copied byte for byte.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

from rootless.errors import HostLimit, UsageError
from rootless.image.layout import REF_NAME, blob_path
from rootless.image.manifest import OCI_INDEX, Descriptor, ImageConfig, Manifest
from rootless.image.reference import parse_reference
from rootless.image.tarwriter import TarWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.image.source import Reader

    OpenBlob = Callable[[str], Reader]

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class SavedImage(NamedTuple):
    """An image to write. names: full references."""

    manifest: Manifest
    config: ImageConfig
    names: tuple[str, ...]


def write_oci_archive(images: Sequence[SavedImage], open_blob: OpenBlob, write: Callable[[bytes], object]) -> None:
    """A tar of an OCI layout."""
    tar = TarWriter(write)
    tar.file("oci-layout", _LAYOUT)
    tar.file("index.json", _index(images))
    tar.directory("blobs")
    tar.directory("blobs/sha256")
    for digest, size in _blobs(images).items():
        reader = open_blob(digest)
        try:
            tar.stream(blob_path(digest), size, reader)
        finally:
            reader.close()
    tar.finish()


def write_layout(images: Sequence[SavedImage], open_blob: OpenBlob, directory: str) -> None:
    """An OCI layout directory, which must be absent or empty. Raises UsageError, HostLimit."""
    try:
        os.makedirs(f"{directory}/blobs/sha256", exist_ok=True)
        if set(os.listdir(directory)) - {"blobs"} or os.listdir(f"{directory}/blobs/sha256"):
            raise UsageError(f"directory '{directory}' is not empty", hint="give one that does not exist yet")
        for digest in _blobs(images):
            reader = open_blob(digest)
            try:
                with open(f"{directory}/{blob_path(digest)}", "xb") as file:
                    while piece := reader.read(1 << 20):
                        file.write(piece)
            finally:
                reader.close()
        for name, content in (("index.json", _index(images)), ("oci-layout", _LAYOUT)):
            with open(f"{directory}/{name}", "xb") as file:
                file.write(content)
    except OSError as e:
        raise HostLimit(f"cannot write OCI layout '{directory}': {e.strerror}") from e


def write_docker_archive(
    images: Sequence[SavedImage],
    open_layer: Callable[[Descriptor, str], tuple[int, Reader]],
    write: Callable[[bytes], object],
) -> None:
    """What `docker load` reads. open_layer: size and bytes of a layer's uncompressed tar."""
    tar = TarWriter(write)
    entries = []
    written: set[str] = set()
    for image in images:
        config_name = f"{image.config.digest.partition(':')[2]}.json"
        if config_name not in written:
            written.add(config_name)
            tar.file(config_name, image.config.raw)
        layer_names = []
        for descriptor, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
            name = f"{diff_id.partition(':')[2]}.tar"
            layer_names.append(name)
            if name in written:
                continue
            written.add(name)
            size, reader = open_layer(descriptor, diff_id)
            try:
                tar.stream(name, size, reader)
            finally:
                reader.close()
        tags = [parse_reference(name).familiar() for name in image.names]
        entries.append({"Config": config_name, "RepoTags": tags or None, "Layers": layer_names})
    tar.file("manifest.json", json.dumps(entries).encode())
    tar.file("repositories", json.dumps(_repositories(images)).encode())
    tar.finish()


def _repositories(images: Sequence[SavedImage]) -> dict[str, dict[str, str]]:
    """The names as docker before 1.10 wanted them; some tools still ask for the file."""
    repositories: dict[str, dict[str, str]] = {}
    for image in images:
        top = image.config.diff_ids[-1].partition(":")[2] if image.config.diff_ids else ""
        for name in image.names:
            reference = parse_reference(name)
            repositories.setdefault(reference.familiar_name, {})[reference.tag or "latest"] = top
    return repositories


def _index(images: Sequence[SavedImage]) -> bytes:
    manifests = []
    for image in images:
        platform = {"architecture": image.config.architecture, "os": image.config.os or "linux"}
        if image.config.variant:
            platform["variant"] = image.config.variant
        descriptor = {
            "mediaType": image.manifest.media_type,
            "digest": image.manifest.digest,
            "size": len(image.manifest.raw),
            "platform": platform,
        }
        named = [{**descriptor, "annotations": {REF_NAME: name}} for name in image.names]
        manifests.extend(named or [descriptor])
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()


def _blobs(images: Sequence[SavedImage]) -> dict[str, int]:
    """Every blob once, with its size."""
    blobs: dict[str, int] = {}
    for image in images:
        for layer in image.manifest.layers:
            blobs[layer.digest] = layer.size
        blobs[image.manifest.config.digest] = image.manifest.config.size
        blobs[image.manifest.digest] = len(image.manifest.raw)
    return blobs
