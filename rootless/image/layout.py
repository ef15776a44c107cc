"""Images in an OCI image layout (image-layout.md): a directory, or the same files in a tar. Reading only."""

from __future__ import annotations

from rootless.errors import InvalidInput, RootlessError, UsageError
from rootless.image.digest import check_digest
from rootless.image.fields import load_json
from rootless.image.file_sets import FileSet, read_file
from rootless.image.manifest import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    OCI_INDEX,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
)
from rootless.image.reference import is_short, parse_reference
from rootless.image.source import Reader, read_verified, resolve_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.image.platform import Platform

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


class LayoutSource:
    """One image of a layout: what one descriptor of index.json leads to.

    labels: the image's annotations org.opencontainers.image.ref.name as they stand in index.json, one for each entry
    that leads to the image. label: the first entry's, "" when it has none.
    """

    __slots__ = ("_descriptor", "_digests", "_files", "label", "labels", "names")

    def __init__(
        self, files: FileSet, descriptor: Descriptor, names: tuple[str, ...], labels: tuple[str, ...] = ()
    ) -> None:
        self.label = descriptor.annotations.get(REF_NAME, "")
        self.labels = labels
        self._files = files
        self._descriptor = descriptor
        self._digests: tuple[str, ...] = ()
        self.names = names

    @property
    def digests(self) -> tuple[str, ...]:
        """After `manifest`: the digests of all documents on the way to the manifest, the outermost first."""
        return self._digests

    def manifest(self, platform: Platform) -> Manifest:
        """The manifest for `platform`. Where index.json leads to a manifest itself, its platform is not compared."""
        manifest, digests = resolve_manifest(
            self.fetch(self._descriptor), self._descriptor.media_type, platform, self.fetch
        )
        self._digests = tuple(digests)
        return manifest

    def config(self, manifest: Manifest) -> bytes:
        """The image config's bytes, verified."""
        return read_verified(self.open_blob(manifest.config), manifest.config, CONFIG_LIMIT)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Reader:
        """The content of `descriptor` from byte `offset` on."""
        return self._files.open(blob_path(descriptor.digest), offset)

    def close(self) -> None:
        """Nothing of its own is open: who opened the files closes them."""

    def top(self) -> tuple[bytes, str]:
        """The manifest or index that the layout's own index names, and its media type."""
        return self.fetch(self._descriptor), self._descriptor.media_type

    def fetch(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index that `descriptor` names, verified. Raises InvalidInput, DigestMismatch."""
        if descriptor.data is not None:
            return descriptor.data
        return read_verified(self.open_blob(descriptor), descriptor, MANIFEST_LIMIT)


def is_layout(files: FileSet) -> bool:
    """Whether these files are an OCI layout, by the two files that every layout must have (image-layout.md)."""
    return files.has("oci-layout") and files.has("index.json")


def layout_sources(files: FileSet, tags_by_config: dict[str, list[str]] | None = None) -> list[LayoutSource]:
    """The images of a layout, in the order of its index.json; several names of one manifest make one image.

    tags_by_config: names that a manifest.json beside index.json gives (docker ≥ 25 writes both, and full names only
    there). Raises InvalidInput.
    """
    version = load_json(read_file(files, "oci-layout", 1 << 16), "oci-layout").get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise InvalidInput(f"OCI layout has version '{str(version)[:20]}', only 1.x is known")
    index = parse_manifest(read_file(files, "index.json", MANIFEST_LIMIT), OCI_INDEX)
    assert isinstance(index, Index)
    found: dict[str, tuple[Descriptor, list[str], list[str]]] = {}
    for descriptor in index.manifests:
        if descriptor.is_attestation:
            continue
        _, names, labels = found.setdefault(descriptor.digest, (descriptor, [], []))
        if label := descriptor.annotations.get(REF_NAME):
            labels.append(label)
        name = _name(descriptor)
        if name and name not in names:
            names.append(name)
    sources = []
    for descriptor, names, labels in found.values():
        extra = [] if names else (tags_by_config or {}).get(_config_digest(files, descriptor), [])
        sources.append(LayoutSource(files, descriptor, tuple(names or extra), tuple(labels)))
    if not sources:
        raise InvalidInput("the OCI layout has no image")
    return sources


def blob_path(digest: str) -> str:
    """Where a layout keeps the content of `digest`. Raises InvalidInput, so that no `..` gets into the path."""
    algorithm, _, encoded = check_digest(digest).partition(":")
    return f"blobs/{algorithm}/{encoded}"


def _name(descriptor: Descriptor) -> str | None:
    """The full name in a descriptor's annotations; a bare tag ("latest") names no image."""
    for key in (CONTAINERD_NAME, REF_NAME):
        text = descriptor.annotations.get(key, "")
        try:
            reference = parse_reference(text) if text else None
        except UsageError:
            continue
        if reference is not None and (key == CONTAINERD_NAME or not is_short(text) or ":" in text or "/" in text):
            return str(reference)
    return None


def _config_digest(files: FileSet, descriptor: Descriptor) -> str:
    """The digest of the config of a manifest in the layout; "" for an index, and for a manifest that is not there."""
    try:
        document = parse_manifest(read_file(files, blob_path(descriptor.digest), MANIFEST_LIMIT), descriptor.media_type)
    except RootlessError:
        return ""
    return document.config.digest if isinstance(document, Manifest) else ""
