"""Manifests, indexes and image configs as the image specification defines them, read from hostile bytes.

Raw bytes are kept, since they are what the digest is of. Unknown fields are never an error, null means absent. No I/O.
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

from rootless.errors import InvalidInput
from rootless.image.digest import check_digest, digest_of, verify_content
from rootless.image.fields import as_mapping, as_sequence, as_strings, load_json, text_member, texts_member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.image.fields import Fields
    from rootless.image.platform import Platform

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"

MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
CONFIG_TYPES = (OCI_CONFIG, DOCKER_CONFIG)
REFERENCE_TYPE = "vnd.docker.reference.type"  # on a descriptor in an index: what the manifest is to another one there
_NONDISTRIBUTABLE = ("nondistributable", "foreign")

# Bounds on hostile documents, in bytes and in entries, each of which becomes objects in memory. A manifest of 4 MB
# should be possible (distribution-spec, "Pushing Manifests")
MANIFEST_LIMIT = 4 << 20
CONFIG_LIMIT = 8 << 20
MAX_LAYERS = 1000
MAX_HISTORY = 10000
MAX_MANIFESTS = 10000


class Descriptor(NamedTuple):
    """What some content is (image-spec descriptor.md): its media type, digest and exact size in bytes.

    platform: what an image runs on, in an index. urls: where the content may be had outside of the registry. data: the
    content itself, verified, where the descriptor carries it.
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = {}
    urls: tuple[str, ...] = ()
    data: bytes | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether it is a layer that its maker does not let registries distribute (fetched from `urls`)."""
        return any(word in self.media_type for word in _NONDISTRIBUTABLE)

    @property
    def is_attestation(self) -> bool:
        """Whether it is, in an index, what BuildKit says about another image there (an attestation), and no image."""
        return REFERENCE_TYPE in self.annotations


class Manifest:
    """The manifest of one image for one platform (image-spec manifest.md). Raises InvalidInput."""

    __slots__ = ("annotations", "config", "digest", "layers", "media_type", "raw")

    def __init__(self, raw: bytes, media_type: str, document: Fields) -> None:
        self.raw = raw
        self.media_type = media_type
        self.digest = digest_of(raw)
        self.config = _descriptor(document.get("config"), "config")
        layers = as_sequence(document.get("layers"), "layers")
        if len(layers) > MAX_LAYERS:
            raise InvalidInput(f"manifest has {len(layers)} layers, more than {MAX_LAYERS}")
        self.layers = tuple(_descriptor(layer, "layers") for layer in layers)
        self.annotations = as_strings(document.get("annotations"), "annotations")

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of this manifest."""
        return Descriptor(self.media_type, self.digest, len(self.raw))


class Index:
    """A list of manifests, usually one per platform (image-spec image-index.md). Raises InvalidInput."""

    __slots__ = ("annotations", "digest", "manifests", "media_type", "raw")

    def __init__(self, raw: bytes, media_type: str, document: Fields) -> None:
        self.raw = raw
        self.media_type = media_type
        self.digest = digest_of(raw)
        manifests = as_sequence(document.get("manifests"), "manifests")
        if len(manifests) > MAX_MANIFESTS:
            raise InvalidInput(f"index has {len(manifests)} manifests, more than {MAX_MANIFESTS}")
        self.manifests = tuple(_descriptor(each, "manifests") for each in manifests)
        self.annotations = as_strings(document.get("annotations"), "annotations")

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of this index."""
        return Descriptor(self.media_type, self.digest, len(self.raw))


class ImageConfig:
    """The config of an image (image-spec config.md): what `docker inspect` shows and `run` starts from.

    Every field's type is checked here, once: InvalidInput. cmd, entrypoint, healthcheck, shell: None = not set, which
    is not the same as empty. created: RFC 3339 text, "" when absent.
    """

    __slots__ = (
        "architecture",
        "author",
        "cmd",
        "config",
        "created",
        "diff_ids",
        "digest",
        "document",
        "entrypoint",
        "env",
        "exposed_ports",
        "healthcheck",
        "history",
        "labels",
        "os",
        "raw",
        "shell",
        "stop_signal",
        "user",
        "variant",
        "volumes",
        "working_dir",
    )

    def __init__(self, raw: bytes) -> None:
        if len(raw) > CONFIG_LIMIT:
            raise InvalidInput(f"image config is larger than {CONFIG_LIMIT} bytes")
        document = load_json(raw, "image config")
        self.raw = raw
        self.digest = digest_of(raw)
        self.document = document
        self.architecture = text_member(document, "architecture")
        self.os = text_member(document, "os")
        self.variant = text_member(document, "variant")
        self.author = text_member(document, "author")
        self.created = text_member(document, "created")
        rootfs = as_mapping(document.get("rootfs"), "rootfs")
        if rootfs.get("type") not in (None, "layers"):
            raise InvalidInput(f"image config has rootfs of type '{str(rootfs['type'])[:40]}', only 'layers' is known")
        diff_ids, history = as_sequence(rootfs.get("diff_ids"), "rootfs.diff_ids"), document.get("history")
        if len(diff_ids) > MAX_LAYERS:
            raise InvalidInput(f"image config has {len(diff_ids)} layers, more than {MAX_LAYERS}")
        self.diff_ids = [check_digest(each) for each in diff_ids]
        self.history = [as_mapping(each, "history") for each in as_sequence(history, "history")]
        if len(self.history) > MAX_HISTORY:
            raise InvalidInput(f"image config has a history of {len(self.history)} steps, more than {MAX_HISTORY}")
        config = as_mapping(document.get("config"), "config")
        self.config = config
        self.env = texts_member(config, "Env") or []
        self.cmd = texts_member(config, "Cmd")
        self.entrypoint = texts_member(config, "Entrypoint")
        self.shell = texts_member(config, "Shell")
        self.user = text_member(config, "User")
        self.working_dir = text_member(config, "WorkingDir")
        self.stop_signal = text_member(config, "StopSignal")
        self.volumes = list(as_mapping(config.get("Volumes"), "config.Volumes"))
        self.exposed_ports = list(as_mapping(config.get("ExposedPorts"), "config.ExposedPorts"))
        self.labels = as_strings(config.get("Labels"), "config.Labels")
        healthcheck = config.get("Healthcheck")
        self.healthcheck = None if healthcheck is None else as_mapping(healthcheck, "config.Healthcheck")

    @property
    def platform(self) -> Platform:
        """The platform that the config names; an image that names no system is for linux."""
        from rootless.image.platform import Platform

        return Platform(self.os or "linux", self.architecture, self.variant)

    @property
    def created_time(self) -> float:
        """`created` as seconds since the epoch; 0.0 when absent or malformed."""
        from rootless.units import parse_image_time

        return parse_image_time(self.created)


def parse_manifest(raw: bytes, media_type: str | None = None) -> Manifest | Index:
    """The manifest or index in `raw`. media_type: what the carrier (Content-Type, descriptor) calls it, if it says.

    Raises InvalidInput: too large, not what its type says, both manifest and index (CVE-2021-41190), bad descriptors.
    """
    if len(raw) > MANIFEST_LIMIT:
        raise InvalidInput(f"manifest is larger than {MANIFEST_LIMIT} bytes")
    document = load_json(raw, "manifest")
    kind = _media_type(document, media_type)
    if document.get("layers") is not None and document.get("manifests") is not None:
        raise InvalidInput("manifest has both 'layers' and 'manifests': it means two things")
    if document.get("schemaVersion") not in (None, 2):
        raise InvalidInput(f"manifest has schema version {str(document.get('schemaVersion'))[:20]}, only 2 is known")
    if kind in INDEX_TYPES:
        if document.get("manifests") is None:
            raise InvalidInput("index has no 'manifests'")
        return Index(raw, kind, document)
    if kind in MANIFEST_TYPES:
        if document.get("manifests") is not None:
            raise InvalidInput("manifest of one image has 'manifests'")
        return Manifest(raw, kind, document)
    raise InvalidInput(f"manifest has the unknown media type '{kind[:100]}'")


def _media_type(document: Fields, carrier: str | None) -> str:
    """The media type that document and carrier agree on; guessed from the shape when neither names one.

    Raises InvalidInput when they do not agree: bytes that one program takes for an index and another one for a manifest
    are two images under one digest (CVE-2021-41190).
    """
    carrier = (carrier or "").partition(";")[0].strip().lower()
    said = document.get("mediaType")
    if said is not None and not isinstance(said, str):
        raise InvalidInput("manifest has a 'mediaType' that is not text")
    if document.get("schemaVersion") == 1 or carrier.startswith(DOCKER_SCHEMA1):
        raise InvalidInput(
            "the image has a manifest of docker's schema 1, which is no longer supported",
            hint="push the image again with a docker of 2017 or later",
        )
    known = carrier in MANIFEST_TYPES + INDEX_TYPES
    if said:
        if known and said != carrier:
            raise InvalidInput(f"manifest says it is '{said[:100]}' but was delivered as '{carrier[:100]}'")
        return said
    if known:
        return carrier
    return OCI_INDEX if document.get("manifests") is not None else OCI_MANIFEST


def select_manifest(index: Index, platform: Platform) -> Descriptor:
    """The manifest of `index` for `platform`: the best variant, then the first (image-spec: SHOULD).

    Raises InvalidInput, naming the platforms that there are.
    """
    from rootless.image.platform import best_match

    position = best_match([each.platform for each in index.manifests], platform)
    if position is None and not any(each.platform for each in index.manifests):
        # Some tools write indexes without platforms: then the first image is taken, whose config names its platform
        images = [each for each in index.manifests if each.media_type in MANIFEST_TYPES + INDEX_TYPES]
        if images:
            return images[0]
    if position is None:
        there = sorted({str(p) for each in index.manifests if (p := each.platform) and p.architecture != "unknown"})
        raise InvalidInput(
            f"the image has no variant for platform '{platform}'",
            hint=f"use --platform with one of: {', '.join(there[:20]) or 'none'}",
        )
    return index.manifests[position]


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The chain id of each layer, the lowest first (image-spec config.md, "Layer ChainID").

    It names a layer together with all layers below it, which is what an unpacked layer must be known by.
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain


class PlannedLayer(NamedTuple):
    """One layer of an image: its blob (descriptor, from the manifest) and what that unpacks to (from the config).

    diff_id: the digest of the plain tar. chain_id: names the layer together with all layers below it. parent: the chain
    id of the layer below, None for the lowest.
    """

    descriptor: Descriptor
    diff_id: str
    chain_id: str
    parent: str | None

    @property
    def short(self) -> str:
        """The first 12 digits of the blob's digest, by which progress tells of the layer."""
        return self.descriptor.digest.partition(":")[2][:12]


def plan_layers(manifest: Manifest, config: ImageConfig) -> list[PlannedLayer]:
    """The layers, lowest first. Raises InvalidInput when manifest and config do not belong together."""
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidInput(
            f"manifest '{manifest.digest}' has {len(manifest.layers)} layers, its config {len(config.diff_ids)}"
        )
    chain = chain_ids(config.diff_ids)
    parents: list[str | None] = [None, *chain]
    return [
        PlannedLayer(*each) for each in zip(manifest.layers, config.diff_ids, chain, parents[: len(chain)], strict=True)
    ]


def _descriptor(document: object, where: str) -> Descriptor:
    fields = as_mapping(document, where)
    size = fields.get("size")
    # To Python JSON's true is the number 1; and other tools keep a size in 63 bits
    if isinstance(size, bool) or not isinstance(size, int) or size < 0 or size >= 1 << 63:
        raise InvalidInput(f"descriptor in '{where}' has no valid size")
    media_type = fields.get("mediaType")
    if media_type is not None and not isinstance(media_type, str):
        raise InvalidInput(f"descriptor in '{where}' has a 'mediaType' that is not text")
    digest = check_digest(fields.get("digest"))
    platform = fields.get("platform")
    return Descriptor(
        media_type or "",
        digest,
        size,
        None if platform is None else _platform(as_mapping(platform, f"{where}.platform")),
        as_strings(fields.get("annotations"), f"{where}.annotations"),
        tuple(url for url in as_sequence(fields.get("urls"), f"{where}.urls") if isinstance(url, str)),
        _embedded(fields.get("data"), digest, size),
    )


def _embedded(encoded: object, digest: str, size: int) -> bytes | None:
    """The content that a descriptor carries in itself (image-spec descriptor.md, "Embedded Content"), verified.

    Raises InvalidInput, DigestMismatch: content that was not compared could be put in place of what was signed.
    """
    if encoded is None:
        return None
    if not isinstance(encoded, str):
        raise InvalidInput("descriptor has 'data' that is not text")
    try:
        return verify_content(base64.b64decode(encoded, validate=True), digest, size)
    except binascii.Error as e:
        raise InvalidInput("descriptor has 'data' that is not base64") from e


def _platform(fields: Fields) -> Platform:
    from rootless.image.platform import Platform

    features = tuple(each for each in as_sequence(fields.get("os.features"), "os.features") if isinstance(each, str))
    return Platform(
        text_member(fields, "os").lower(),
        text_member(fields, "architecture").lower(),
        text_member(fields, "variant").lower(),
        features,
    )
