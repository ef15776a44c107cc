"""The bytes of a layer as an archive: its tar, and the compressed blob that a manifest names.

A layer lies in the store as a tree and a recipe (how its tar was written); its compressed blob is usually not kept.
Readers have `read(size)` and `close()`. Bytes are compared with their digest on the way, and the last `read` raises
DigestMismatch if they differ: a damaged tree must not be sent out under the name of the whole one.
"""

from __future__ import annotations

import hashlib

from rootless.errors import DigestMismatch, NotFound, RootlessError
from rootless.image.convert import layer_compression
from rootless.image.manifest import OCI_LAYER, Descriptor
from rootless.storage.store.layer_forms import read_forms
from rootless.storage.tar import recipe
from rootless.units import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from rootless.engine.context import Engine
    from rootless.image.compress import Compression
    from rootless.image.decompress import PlainBytes
    from rootless.image.manifest import PlannedLayer
    from rootless.image.source import ImageSource, Reader
    from rootless.storage.layers.worker_client import Rebuilt
    from rootless.storage.store.index import ImageEntry
    from rootless.storage.store.store import Store

_FIRST = 1 << 16  # bytes that are read at once, as only then it is known that a registry really has the blob


def open_tar(engine: Engine, diff_id: str, chain_id: str | None = None) -> Reader:
    """The uncompressed tar of a layer, to the byte (its digest is `diff_id`).

    chain_id: the layer's, if the caller knows it; else any layer with this diff_id serves. Raises NotFound with a hint.
    """
    return recovered_tar(engine, diff_id, chain_id, ())


def recovered_tar(engine: Engine, diff_id: str, chain_id: str | None, bad: Container[str]) -> Reader:
    """The tar of a layer as of `open_tar`, but not from the trees of the layers `bad`, which are damaged.

    bad: chain ids. Raises NotFound with a hint.
    """
    store = engine.store
    chains = list(_chains(store, diff_id, chain_id))
    for chain in chains:
        if chain not in bad and recipe.find_recipe(store.layers.path(chain)) is not None:
            from rootless.storage.layers.worker_client import Rebuilt

            tar = Rebuilt([store.layers.path(chain)], store.id_map)
            return CheckedReader(tar, diff_id, store.layers.record(chain).content.tar_size, damaged=_DAMAGED_TREE)
    # A layer that an early version made, without a recipe, has its blob in the store
    descriptors = list(_descriptors(store, diff_id, chains))
    for descriptor in descriptors:
        if store.blobs.has(descriptor.digest):
            return _decompressed(store.blobs.open(descriptor.digest), diff_id)
    for descriptor in descriptors:
        reader = _fetched(engine, descriptor, chains)
        if reader is not None:
            return _decompressed(reader, diff_id)
    raise NotFound(
        f"layer '{diff_id}' is nowhere whole: not here, and in no registry that is known",
        hint="pull or load the image again, or build it again",
    )


class Tars:
    """The tars of several layers, all of which one process makes. Use it in a `with`.

    layers: diff_id → chain id. The tars must be opened in this order, each after the one before was read to its end,
    as that process writes one after the other.
    """

    __slots__ = ("_engine", "_layers", "_made", "_rebuilt")

    def __init__(self, engine: Engine, layers: Mapping[str, str]) -> None:
        self._engine = engine
        self._layers = dict(layers)
        paths = {diff_id: engine.store.layers.path(chain) for diff_id, chain in layers.items()}
        self._made = {diff_id: path for diff_id, path in paths.items() if recipe.find_recipe(path) is not None}
        self._rebuilt: Rebuilt | None = None

    def open(self, diff_id: str) -> tuple[int, Reader]:
        """The size and a reader of a layer's tar. Raises as `open_tar` does."""
        chain = self._layers[diff_id]
        size = tar_size(self._engine, diff_id, chain)
        if diff_id not in self._made:
            return size, open_tar(self._engine, diff_id, chain)
        if self._rebuilt is None:
            from rootless.storage.layers.worker_client import Rebuilt

            self._rebuilt = Rebuilt(list(self._made.values()), self._engine.store.id_map)
        return size, CheckedReader(_Part(self._rebuilt, size), diff_id, size, damaged=_DAMAGED_TREE)

    def __enter__(self) -> Tars:
        return self

    def __exit__(self, *unused: object) -> None:
        if self._rebuilt is not None:
            self._rebuilt.close()


def tar_size(engine: Engine, diff_id: str, chain_id: str | None = None) -> int:
    """The size of a layer's tar in bytes. A layer without a recipe is decompressed for that. Raises NotFound."""
    store = engine.store
    for chain in _chains(store, diff_id, chain_id):
        if recipe.find_recipe(store.layers.path(chain)) is not None:
            return store.layers.record(chain).content.tar_size
    if store.blobs.has(diff_id):
        return store.blobs.size(diff_id)
    reader = open_tar(engine, diff_id, chain_id)
    size = 0
    try:
        while piece := reader.read(1 << 20):
            size += len(piece)
    finally:
        reader.close()
    return size


def open_blob(engine: Engine, descriptor: Descriptor, diff_id: str, chain_id: str | None = None) -> Reader:
    """The bytes that `descriptor`, of a layer in a manifest, names: the store's blob, or made again, or fetched again.

    Raises NotFound with a hint when none of these can be. A caller may compress the tar anew then, which gives other
    bytes and needs another descriptor.
    """
    store = engine.store
    digest, size = descriptor.digest, descriptor.size
    if store.blobs.has(digest):
        return CheckedReader(store.blobs.open(digest), digest, size)
    if digest == diff_id:
        return open_tar(engine, diff_id, chain_id)
    chains = list(_chains(store, diff_id, chain_id))
    for chain in chains:
        for key, form in read_forms(store, chain).items():
            compression = _compression(key) if form.digest == digest else None
            if compression is not None:
                from rootless.image.compress import Compressed

                return CheckedReader(Compressed(open_tar(engine, diff_id, chain), compression), digest, size)
    reader = _fetched(engine, descriptor, chains)
    if reader is None:
        raise NotFound(
            f"the compressed bytes of layer '{digest}' are neither here nor in a registry that is known",
            hint="pull the image again with ROOTLESS_KEEP_LAYER_BLOBS=1, or let it be compressed anew (--compression)",
        )
    return reader


def has_blob(engine: Engine, descriptor: Descriptor, diff_id: str, chain_id: str | None = None) -> bool:
    """Whether `open_blob` would succeed. Where only a registry can have the bytes, it is asked."""
    if descriptor.digest == diff_id or engine.store.blobs.has(descriptor.digest):
        return True
    try:
        open_blob(engine, descriptor, diff_id, chain_id).close()
    except NotFound:
        return False
    return True


def compression(engine: Engine, layer: PlannedLayer) -> str:
    """How the blob of a layer is compressed: `none`, `gzip`, `zstd`, or another name that image.decompress has.

    The blob itself and what was noted of it are asked before its media type, which may be wrong.
    """
    digest = layer.descriptor.digest
    if digest == layer.diff_id:
        return "none"
    if engine.store.blobs.has(digest):
        from rootless.image.decompress import compression_of, read_head

        blob = engine.store.blobs.open(digest)
        try:
            return compression_of(read_head(blob)) or "none"
        finally:
            blob.close()
    for key, form in read_forms(engine.store, layer.chain_id).items():
        if form.digest == digest:
            return key.partition(":")[0]
    told = layer_compression(layer.descriptor.media_type)
    return "gzip" if told == "none" else told  # The digest is not that of the tar, so it is compressed in some way


def _chains(store: Store, diff_id: str, chain_id: str | None) -> Iterator[str]:
    """The chain ids of the unpacked layers with this diff_id, the wanted one first."""
    if chain_id is not None and store.layers.has(chain_id):
        yield chain_id
    if diff_id != chain_id and store.layers.has(diff_id):
        yield diff_id
    for other in store.layers.list():
        if other in (chain_id, diff_id):
            continue
        try:
            if store.layers.record(other).content.diff_id == diff_id:
                yield other
        except RootlessError:
            continue  # the layer is being removed, or is damaged


def _descriptors(store: Store, diff_id: str, chains: list[str]) -> Iterator[Descriptor]:
    """The blobs that hold a layer: those of earlier pushes and pulls, and those in the manifests of the store."""
    seen = set()
    for chain in chains:
        for form in read_forms(store, chain).values():
            if form.digest not in seen:
                seen.add(form.digest)
                yield Descriptor(OCI_LAYER, form.digest, form.size)
    for entry in (*store.index.entries(), *_of_indexes(store)):
        for descriptor, other in zip(entry.manifest.layers, entry.config.diff_ids, strict=False):
            if other == diff_id and descriptor.digest not in seen:
                seen.add(descriptor.digest)
                yield descriptor


def _of_indexes(store: Store) -> Iterator[ImageEntry]:
    """The images for other platforms in the store: their layers are not unpacked, and only blobs hold them."""
    for named in store.index.indexes():
        for child in named.document.manifests:
            try:
                if store.blobs.has(child.digest):
                    yield store.index.load(child.digest)
            except RootlessError:
                continue  # it is no image, or damaged


def _compression(key: str) -> Compression | None:
    """The compression that layer_forms remembers under `key`; None where it would give other bytes now.

    That is so for a way or level that we do not have, and for another version of the library.
    """
    from rootless.image.compress import NAMES, Compression

    name, _, rest = key.partition(":")
    level = whole_number(rest.rpartition(":")[2])
    if name not in NAMES or level is None:
        return None
    found = Compression(name, level)
    return found if found.key == key else None


def _fetched(engine: Engine, descriptor: Descriptor, chains: list[str]) -> Reader | None:
    """A reader of the blob in a registry that is known to have it; None when no registry sends it."""
    from rootless.engine.image.image_names import registries
    from rootless.image.distribution.http_session import Access
    from rootless.image.distribution.registry import open_repository
    from rootless.image.reference import parse_reference

    for name in _repositories(engine.store, descriptor.digest, chains):
        try:
            source = open_repository(parse_reference(name), registries(engine), Access(), warn=engine.warn)
        except RootlessError:
            continue
        reader: Reader | None = None
        try:
            reader = source.open_blob(descriptor)
            first = reader.read(_FIRST)
        except RootlessError:
            if reader is not None:
                reader.close()
            source.close()
            continue
        return CheckedReader(_Begun(first, reader, source), descriptor.digest, descriptor.size)
    return None


def _repositories(store: Store, digest: str, chains: list[str]) -> list[str]:
    """The repositories from which the blob was pulled, or to which it was pushed."""
    names = [
        repository
        for chain in chains
        for form in read_forms(store, chain).values()
        if form.digest == digest
        for repository in form.repositories
    ]
    for entry in store.index.entries():
        if any(layer.digest == digest for layer in entry.manifest.layers):
            names += [name.partition("@")[0] for name in entry.names if "@" in name]
    return list(dict.fromkeys(names))


def _decompressed(blob: Reader, diff_id: str) -> Reader:
    from rootless.image.decompress import PlainBytes, read_head

    return CheckedReader(_Closing(PlainBytes(read_head(blob), blob), blob), diff_id, None)


_DAMAGED_TREE = "`rootless system check --repair` looks for the damage"


class CheckedReader:
    """A reader that compares all bytes with their digest when the last ones are read.

    size: how many there should be, None where that is not known; damaged: the hint of an error.
    """

    __slots__ = ("_damaged", "_digest", "_hash", "_left", "_reader")

    def __init__(self, reader: Reader, digest: str, size: int | None, *, damaged: str | None = None) -> None:
        self._reader = reader
        self._digest = digest
        self._hash = hashlib.sha256()
        self._left = size
        self._damaged = damaged

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes. The read of the last ones raises DigestMismatch when the digest of all is another."""
        piece = self._reader.read(size)
        self._hash.update(piece)
        if self._left is not None:
            self._left -= len(piece)
        is_end = self._left == 0 if piece and self._left is not None else not piece and size != 0
        if is_end or (self._left is not None and self._left < 0):
            self._compare()
        return piece

    def close(self) -> None:
        """Give back what the stream holds."""
        self._reader.close()

    def _compare(self) -> None:
        if (self._left is not None and self._left != 0) or f"sha256:{self._hash.hexdigest()}" != self._digest:
            raise DigestMismatch(
                f"layer '{self._digest}' is damaged: its bytes have another digest",
                hint=self._damaged or "pull the image again",
            )


class _Part:
    """The next `size` bytes of a reader, from which the parts after them are read later."""

    __slots__ = ("_left", "_reader")

    def __init__(self, reader: Rebuilt, size: int) -> None:
        self._reader = reader
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        wanted = self._left if size < 0 else min(size, self._left)
        piece = self._reader.read(min(wanted, 1 << 20)) if wanted else b""
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Do nothing: `Tars` closes the reader that all parts share."""


class _Closing:
    """A reader of decompressed bytes that closes the compressed source, too."""

    __slots__ = ("_plain", "_source")

    def __init__(self, plain: PlainBytes, source: Reader) -> None:
        self._plain = plain
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        return self._plain.read(size)

    def close(self) -> None:
        """Close the source, and with it the compressed bytes."""
        self._source.close()


class _Begun:
    """A reader of a registry's blob whose first bytes were read already, as the proof that it has the blob."""

    __slots__ = ("_first", "_reader", "_source")

    def __init__(self, first: bytes, reader: Reader, source: ImageSource) -> None:
        self._first = first
        self._reader = reader
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        if not self._first:
            return self._reader.read(size)
        piece = self._first if size < 0 else self._first[:size]
        self._first = self._first[len(piece) :]
        return piece

    def close(self) -> None:
        """Close the blob and its connection."""
        self._reader.close()
        self._source.close()
