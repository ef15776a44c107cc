"""Manifests in another form: other compression of layers, OCI or docker media types. Pure; configs stay as they are."""

from __future__ import annotations

import json

from rootless.errors import UsageError
from rootless.image.attestation import REFERENCE_DIGEST
from rootless.image.fields import as_mapping, as_sequence, as_strings, load_json
from rootless.image.manifest import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootless.image.fields import Fields

FORMATS = ("oci", "v2s2")
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER_SUFFIX = {"none": "", "gzip": ".gzip"}
_OCI_SUFFIX = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}


def format_of(media_type: str) -> str:
    """`v2s2` for docker's manifests and lists, else `oci`."""
    return "v2s2" if media_type in (DOCKER_MANIFEST, DOCKER_LIST) else "oci"


def layer_compression(media_type: str) -> str:
    """`gzip`, `zstd` or `none`, by the layer's media type."""
    return next((name for name in ("gzip", "zstd") if media_type.endswith((f"+{name}", f".{name}"))), "none")


def layer_type(descriptor: Descriptor, compression: str, form: str) -> str:
    """The media type of the layer when it has that compression, in that format ("oci" or "v2s2").

    Raises UsageError for zstd in v2s2, whose media types have no name for it.
    """
    if form == "oci":
        return (_OCI_FOREIGN if descriptor.is_foreign else _OCI_LAYER) + _OCI_SUFFIX[compression]
    if compression not in _DOCKER_SUFFIX:
        raise UsageError(
            f"docker's manifest (v2s2) knows no layers compressed with {compression}",
            hint="use --format oci, or --compression gzip",
        )
    return (_DOCKER_FOREIGN if descriptor.is_foreign else _DOCKER_LAYER) + _DOCKER_SUFFIX[compression]


def in_form(layer: Descriptor, form: str, compression: str | None = None) -> Descriptor:
    """The layer with its media type translated into `form` ("oci" or "v2s2").

    A type that belongs to `form` already, or to neither format, stays. compression: of the layer's bytes, where it is
    known to differ from what the media type says. Raises UsageError as `layer_type` does.
    """
    other = (_DOCKER_LAYER, _DOCKER_FOREIGN) if form == "oci" else (_OCI_LAYER, _OCI_FOREIGN)
    if not layer.media_type.startswith(other):
        return layer
    if compression not in _OCI_SUFFIX:
        compression = layer_compression(layer.media_type)
    return layer._replace(media_type=layer_type(layer, compression, form))


def rebuild_manifest(manifest: Manifest, layers: Sequence[Descriptor], form: str) -> tuple[bytes, str]:
    """The manifest with these layers (media type, digest, size) in that format: bytes and media type.

    Layers and config whose media type is the other format's get this one's: some tools accept no mixture. The bytes
    stay the very same when nothing is different. Other fields are kept; docker's format has no annotations.
    """
    layers = [in_form(each, form) for each in layers]
    other_config = DOCKER_CONFIG if form == "oci" else OCI_CONFIG
    same = [(each.media_type, each.digest, each.size) for each in layers] == [
        (each.media_type, each.digest, each.size) for each in manifest.layers
    ]
    if same and manifest.config.media_type != other_config and form == format_of(manifest.media_type):
        return manifest.raw, manifest.media_type
    document = load_json(manifest.raw, "manifest")
    media_type = OCI_MANIFEST if form == "oci" else DOCKER_MANIFEST
    config = as_mapping(document["config"], "config")
    if config.get("mediaType") == other_config:
        config = {**config, "mediaType": OCI_CONFIG if form == "oci" else DOCKER_CONFIG}
    new = []
    for old, layer in zip(as_sequence(document.get("layers"), "layers"), layers, strict=True):
        before = as_mapping(old, "layers")
        kept: Fields = {**before, "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
        if layer.digest != before.get("digest"):
            # Both are about the bytes of before: the embedded content, and addresses to fetch it from
            kept.pop("data", None)
            kept.pop("urls", None)
        if form != "oci":
            kept.pop("annotations", None)
        new.append(kept)
    document |= {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": new}
    if form != "oci":
        document.pop("annotations", None)
    return _bytes(document), media_type


def rebuild_index(index: Index, replaced: Mapping[str, Descriptor], form: str) -> tuple[bytes, str]:
    """The index in that format with other manifests in place of some: its bytes and its media type.

    replaced: the new descriptors by the old digests. The bytes stay the very same when nothing is different. An
    attestation that was replaced itself is then about the new manifest of its image.
    """
    media_type = OCI_INDEX if form == "oci" else DOCKER_LIST
    is_same = all(
        digest == each.digest or digest not in {child.digest for child in index.manifests}
        for digest, each in replaced.items()
    )
    if is_same and form == format_of(index.media_type):
        return index.raw, index.media_type
    document = load_json(index.raw, "index")
    children = []
    for each in as_sequence(document["manifests"], "manifests"):
        old = as_mapping(each, "manifests")
        new = replaced.get(str(old["digest"]))
        child = (
            dict(old) if new is None else {**old, "mediaType": new.media_type, "digest": new.digest, "size": new.size}
        )
        if new is not None and new.digest != old["digest"] and "annotations" in old:
            annotations = as_strings(old["annotations"], "annotations")
            about = replaced.get(annotations.get(REFERENCE_DIGEST, ""))
            if about is not None:
                child["annotations"] = {**annotations, REFERENCE_DIGEST: about.digest}
        if form != "oci":
            child.pop("annotations", None)
        children.append(child)
    document |= {"schemaVersion": 2, "mediaType": media_type, "manifests": children}
    if form != "oci":
        document.pop("annotations", None)
    return _bytes(document), media_type


def _bytes(document: Fields) -> bytes:
    first = {key: document[key] for key in ("schemaVersion", "mediaType")}
    return json.dumps({**first, **document}, separators=(",", ":"), ensure_ascii=False).encode()
