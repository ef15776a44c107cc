"""Brings one image from any source into the store: layers in parallel, each read once. It gives no names.

A layer whose chain id is in the store is not read again, however it is compressed: the chain id is of the uncompressed
content. The caller holds `store.using()` until the image has its name, so that garbage collection leaves it alone.
"""

from __future__ import annotations

from rootless.engine.image_types import PullEvent
from rootless.engine.transfer.parallel import run_all
from rootless.engine.transfer.space import check_layers as check_space
from rootless.errors import InvalidInput
from rootless.image.manifest import ImageConfig, PlannedLayer, plan_layers
from rootless.paths import Lock
from rootless.storage.layers.layer_store import LayerArchive
from rootless.storage.store.layer_forms import Form, remember_form

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.engine.context import Engine
    from rootless.engine.transfer.parallel import Control
    from rootless.image.manifest import Manifest
    from rootless.image.source import ImageSource, Reader
    from rootless.storage.store.blobs import BlobCheck, BlobWriter
    from rootless.storage.store.store import Store

_STEP = 1 << 19  # bytes between two progress events of a layer


def bring(
    engine: Engine,
    source: ImageSource,
    manifest: Manifest,
    progress: Callable[[PullEvent], None] | None,
    *,
    origin: str | None = None,
) -> ImageConfig:
    """Store an image's manifest, config and unpacked layers, and return the config.

    origin: `registry/repository` where the layers may be fetched again. Their compressed bytes are kept too where the
    settings say so. progress is called from this thread only. Raises InvalidInput, DigestMismatch, HostLimit,
    RegistryError.
    """
    store = engine.store
    raw = source.config(manifest)
    config = ImageConfig(raw)
    layers = plan_layers(manifest, config)
    _bring_layers(store, source, layers, progress or (lambda event: None), engine.settings.keep_layer_blobs)
    if origin is not None:
        for layer in layers:
            form = Form(layer.descriptor.digest, layer.descriptor.size, (origin,))
            remember_form(store, layer.chain_id, f"pulled:{layer.short}", form)
    # After the layers: an interrupted pull leaves layers only, which the next pull uses
    for content, digest in ((raw, manifest.config.digest), (manifest.raw, manifest.digest)):
        if not store.blobs.has(digest):
            with store.blobs.writer(digest, len(content)) as writer:
                writer.write(content)
                writer.commit()
    return config


def _bring_layers(
    store: Store,
    source: ImageSource,
    layers: Sequence[PlannedLayer],
    progress: Callable[[PullEvent], None],
    keep_blobs: bool,
) -> None:
    missing = [layer for layer in layers if not _is_here(store, layer, keep_blobs)]
    check_space(store, missing, keep_blobs)
    for layer in layers:
        progress(PullEvent(layer.short, "Pulling fs layer" if layer in missing else "Already exists"))
    if not missing:
        return
    store.id_map  # noqa: B018 - read /etc/subuid once, before the threads

    def job(layer: PlannedLayer) -> Callable[[Control], None]:
        return lambda control: _bring_layer(store, source, layer, control, keep_blobs)

    run_all([job(layer) for layer in missing], progress)


def _bring_layer(
    store: Store,
    source: ImageSource,
    layer: PlannedLayer,
    control: Control,
    keep_blobs: bool,
) -> None:
    emit = control.emit
    blobs, digest = store.blobs, layer.descriptor.digest
    # The lock's name has the chain id, like that of storage for unpacking. A holder only ever waits for a lower layer
    # of its chain, so that no ring of commands that wait for each other can form
    lock = Lock(store.path("locks", f"layer-blob-{layer.chain_id.partition(':')[2]}"))
    if not lock.acquire(blocking=False):
        # Another process brings this layer: wait for it, then use what it has brought
        emit(PullEvent(layer.short, "Waiting"))
        lock.acquire()
    with _Held(lock):
        has_blob, has_layer = blobs.has(digest), store.layers.has(layer.chain_id)
        if _is_here(store, layer, keep_blobs):
            emit(PullEvent(layer.short, "Already exists"))
            return
        status = "Extracting" if has_blob else "Downloading"
        emit(PullEvent(layer.short, status, 0, layer.descriptor.size))
        reader = blobs.open(digest) if has_blob else source.open_blob(layer.descriptor)
        writer: BlobWriter | BlobCheck | None = None
        if not has_blob:
            size = layer.descriptor.size
            # Of an uncompressed layer no blob is kept: its bytes can be made again from the tree and its recipe
            keep = keep_blobs and digest != layer.diff_id
            writer = blobs.writer(digest, size) if keep else blobs.check(digest, size, trusted=digest == layer.diff_id)
        stream = LayerStream(reader, writer, layer, status, control)
        try:
            if has_layer:
                stream.drain()
            else:
                _unpack(store, layer, stream)
        finally:
            stream.close()
    emit(PullEvent(layer.short, "Pull complete"))


def _is_here(store: Store, layer: PlannedLayer, keep_blobs: bool) -> bool:
    if not store.layers.has(layer.chain_id):
        return False
    return not keep_blobs or layer.descriptor.digest == layer.diff_id or store.blobs.has(layer.descriptor.digest)


def _unpack(store: Store, layer: PlannedLayer, stream: LayerStream) -> None:
    try:
        archive = LayerArchive(layer.parent, layer.diff_id, stream)
        store.layers.unpack(layer.chain_id, archive)
        # The worker may stop before the last bytes (padding after the archive's end), but the digest is that of all
        stream.drain()
    except InvalidInput:
        # Bytes that were changed on the way mostly break the decompressor first. If the digest is wrong, `drain` raises
        # DigestMismatch, which tells the user more
        stream.drain()
        raise


class LayerStream:
    """The bytes of a layer on their way to the unpacker: they are hashed, and kept as a blob where that is wanted."""

    __slots__ = ("_control", "_layer", "_next", "_read", "_reader", "_status", "_writer")

    def __init__(
        self,
        reader: Reader,
        writer: BlobWriter | BlobCheck | None,
        layer: PlannedLayer,
        status: str,
        control: Control,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._layer = layer
        self._status = status
        self._control = control
        self._read = 0
        self._next = _STEP

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, empty at the end, where the digest is compared. Raises DigestMismatch, Cancelled."""
        self._control.check()
        piece = self._reader.read(size)
        if self._writer is not None:
            if piece:
                self._writer.write(piece)
            else:
                self._writer.commit()
                self._writer = None
        self._read += len(piece)
        if self._read >= self._next or not piece:
            self._next = self._read + _STEP
            status = self._status if piece else "Extracting"
            self._control.emit(PullEvent(self._layer.short, status, self._read, self._layer.descriptor.size))
        return piece

    def drain(self) -> None:
        """Read to the end, so that the digest is compared. Raises DigestMismatch, Cancelled."""
        while self._writer is not None and self.read(1 << 20):
            pass

    def close(self) -> None:
        """Drop a blob that did not come to its end, and give the connection back."""
        if self._writer is not None:
            self._writer.abort()
        self._reader.close()


class _Held:
    """Releases a lock that was acquired by hand."""

    __slots__ = ("_lock",)

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        return None

    def __exit__(self, *unused: object) -> None:
        self._lock.release()
