"""For push and copy: readers of the bytes of a local image's blobs, and the repositories known to have them already."""

from __future__ import annotations

from rootless.engine.transfer import layer_bytes
from rootless.errors import RootlessError, UsageError
from rootless.image.compress import Compressed, Compression
from rootless.image.content import BlobContent
from rootless.image.reference import parse_reference
from rootless.storage.store.layer_forms import read_forms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.engine.context import Engine
    from rootless.image.manifest import Descriptor, PlannedLayer
    from rootless.image.source import Reader

_PIECE = 1 << 20


def skipped(reader: Reader, offset: int) -> Reader:
    """The same reader, after `offset` bytes have been read from it and dropped."""
    while offset > 0:
        piece = reader.read(min(offset, _PIECE))
        if not piece:
            break
        offset -= len(piece)
    return reader


def exact_content(engine: Engine, layer: PlannedLayer) -> BlobContent:
    """The layer's bytes with the digest that the manifest names.

    Opening raises NotFound when they are neither in the store nor can be made or fetched again.
    """
    descriptor = layer.descriptor

    def open_at(offset: int) -> Reader:
        return skipped(layer_bytes.open_blob(engine, descriptor, layer.diff_id, layer.chain_id), offset)

    return BlobContent(open_at, descriptor.digest, descriptor.size)


def compressed_content(
    engine: Engine, layer: PlannedLayer, compression: Compression, digest: str | None = None, size: int | None = None
) -> BlobContent:
    """The layer's tar, compressed while it is read.

    digest, size: those of an earlier compression, None where they are not known. The reader begins anew for an upload
    that goes on at an offset, as compressed bytes cannot be had from the middle.
    """

    def open_at(offset: int) -> Reader:
        return skipped(Compressed(layer_bytes.open_tar(engine, layer.diff_id, layer.chain_id), compression), offset)

    return BlobContent(open_at, digest, size)


def blob_content(engine: Engine, descriptor: Descriptor) -> BlobContent:
    """A blob of the store that is no layer of an image."""
    blobs = engine.store.blobs
    return BlobContent(
        lambda offset: skipped(blobs.open(descriptor.digest), offset), descriptor.digest, descriptor.size
    )


def bytes_content(raw: bytes, digest: str) -> BlobContent:
    """The content of a small blob that is in memory."""
    import io

    return BlobContent(lambda offset: io.BytesIO(raw[offset:]), digest, len(raw))


def origins(engine: Engine, registry: str, layers: Iterable[PlannedLayer]) -> dict[str, list[str]]:
    """The repositories of `registry` that have a layer's blob, by the blob's digest, as far as the store knows.

    The store knows where local images were pulled from or pushed to, and where it sent compressed layers. The registry
    can mount a blob from there, which saves its upload (distribution-spec, "Mounting a blob from another repository").
    """
    wanted = {layer.descriptor.digest: layer.chain_id for layer in layers}
    found: dict[str, list[str]] = {}
    for entry in engine.store.index.entries():
        repositories = [_repository(name, registry) for name in entry.names if "@" in name]
        for descriptor in entry.manifest.layers:
            if descriptor.digest in wanted:
                found.setdefault(descriptor.digest, []).extend(filter(None, repositories))
    for chain_id in wanted.values():
        for form in read_forms(engine.store, chain_id).values():
            places = [name.partition("/") for name in form.repositories]
            found.setdefault(form.digest, []).extend(path for host, _, path in places if host == registry)
    return {digest: list(dict.fromkeys(places)) for digest, places in found.items()}


def _repository(name: str, registry: str) -> str | None:
    try:
        reference = parse_reference(name)
    except (UsageError, RootlessError):
        return None
    return reference.repository if reference.registry == registry else None
