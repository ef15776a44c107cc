"""Brings one image from any source into the store: layers in parallel, each read once. It gives no names.

A layer that is here by its chain id is not read again, whatever its compressed form: what runs is known by its diff_id.
The caller holds `store.using()` until the image has its name, so that garbage collection leaves the layers alone.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, NamedTuple

from rootless.engine.image_types import PullEvent
from rootless.engine.transfer.space import check_layers as check_space
from rootless.errors import InvalidInput, RootlessError
from rootless.image.manifest import ImageConfig, chain_ids
from rootless.paths import Lock
from rootless.storage.store.layer_forms import remember

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.image.manifest import Descriptor, Manifest
    from rootless.image.source import ImageSource, Reader
    from rootless.storage.store.blobs import BlobCheck, BlobWriter
    from rootless.storage.store.store import Store

PARALLEL = 3
_STEP = 1 << 19  # bytes between two progress events of a layer
_FAREWELL = 3.0  # seconds for threads to notice that they are not needed


class Layer(NamedTuple):
    """One layer to bring: its blob, and what it unpacks to."""

    descriptor: Descriptor
    diff_id: str
    chain_id: str
    parent: str | None

    @property
    def short(self) -> str:
        """What progress calls it."""
        return self.descriptor.digest.partition(":")[2][:12]


class Cancelled(Exception):
    """Raised inside a layer's stream when another layer failed: it ends the thread and is never seen outside."""


def bring(
    store: Store,
    source: ImageSource,
    manifest: Manifest,
    progress: Callable[[PullEvent], None] | None,
    *,
    origin: str | None = None,
    keep_blobs: bool = False,
) -> ImageConfig:
    """Store manifest, config and layers, unpacked. Returns the config.

    origin: `registry/repository` where the layers may be fetched again. keep_blobs: keep their compressed bytes too.
    progress is called from this thread. Raises InvalidInput, DigestMismatch, HostLimit, RegistryError.
    """
    raw = source.config(manifest)
    config = ImageConfig(raw)
    layers = plan(manifest, config)
    _bring_layers(store, source, layers, progress or (lambda event: None), keep_blobs)
    if origin is not None:
        for layer in layers:
            remember(
                store, layer.chain_id, f"pulled:{layer.short}", layer.descriptor.digest, layer.descriptor.size, origin
            )
    # After the layers: an interrupted pull leaves layers only, which the next pull uses
    for content, digest in ((raw, manifest.config.digest), (manifest.raw, manifest.digest)):
        if not store.blobs.has(digest):
            with store.blobs.writer(digest, len(content)) as writer:
                writer.write(content)
                writer.commit()
    return config


def plan(manifest: Manifest, config: ImageConfig) -> list[Layer]:
    """The layers, bottom first. Raises InvalidInput when manifest and config do not belong together."""
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidInput(
            f"manifest '{manifest.digest}' has {len(manifest.layers)} layers, its config {len(config.diff_ids)}"
        )
    chain = chain_ids(config.diff_ids)
    parents: list[str | None] = [None, *chain]
    return [Layer(*each) for each in zip(manifest.layers, config.diff_ids, chain, parents[: len(chain)], strict=True)]


def _bring_layers(
    store: Store,
    source: ImageSource,
    layers: Sequence[Layer],
    progress: Callable[[PullEvent], None],
    keep_blobs: bool,
) -> None:
    waiting: queue.SimpleQueue[Layer] = queue.SimpleQueue()
    missing = 0
    check_space(store, [layer for layer in layers if not _is_here(store, layer, keep_blobs)], keep_blobs)
    for layer in layers:
        if _is_here(store, layer, keep_blobs):
            progress(PullEvent(layer.short, "Already exists"))
        else:
            progress(PullEvent(layer.short, "Pulling fs layer"))
            waiting.put(layer)
            missing += 1
    if not missing:
        return
    store.id_map  # noqa: B018 - read /etc/subuid once, before the threads
    events: queue.SimpleQueue[PullEvent | BaseException | None] = queue.SimpleQueue()
    cancelled = threading.Event()

    def work() -> None:
        try:
            while not cancelled.is_set():
                try:
                    layer = waiting.get_nowait()
                except queue.Empty:
                    break
                _bring_layer(store, source, layer, events.put, cancelled, keep_blobs)
            events.put(None)
        except BaseException as e:  # handed to the caller's thread, which raises it
            events.put(e)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(PARALLEL, missing))]
    for thread in threads:
        thread.start()
    try:
        _follow(events, len(threads), progress, cancelled)
    finally:
        cancelled.set()
        for thread in threads:
            thread.join(_FAREWELL)


def _follow(
    events: queue.SimpleQueue[PullEvent | BaseException | None],
    running: int,
    progress: Callable[[PullEvent], None],
    cancelled: threading.Event,
) -> None:
    """Show events until every thread has ended; then raise the first error."""
    failure: BaseException | None = None
    while running:
        event = events.get()
        if isinstance(event, PullEvent):
            if failure is None:
                progress(event)
            continue
        running -= 1
        if event is not None:
            cancelled.set()
            if failure is None or isinstance(failure, Cancelled):
                failure = event
            if not isinstance(event, (RootlessError, Cancelled)):
                break  # a bug or an interrupt: do not wait for the others
    if failure is not None:
        raise failure


def _bring_layer(
    store: Store,
    source: ImageSource,
    layer: Layer,
    emit: Callable[[PullEvent], None],
    cancelled: threading.Event,
    keep_blobs: bool,
) -> None:
    blobs, digest = store.blobs, layer.descriptor.digest
    # By chain id, as storage locks the unpacking: waits then only ever lead to lower layers, so they cannot form a ring
    lock = Lock(store.path("locks", f"layer-blob-{layer.chain_id.partition(':')[2]}"))
    if not lock.acquire(blocking=False):
        # Another process brings it: wait, then use what it brought
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
            # An uncompressed layer is the tree and its recipe: there is nothing that a blob would add
            keep = keep_blobs and digest != layer.diff_id
            writer = blobs.writer(digest, size) if keep else blobs.check(digest, size, trusted=digest == layer.diff_id)
        stream = LayerStream(reader, writer, layer, status, emit, cancelled)
        try:
            if has_layer:
                stream.drain()
            else:
                _unpack(store, layer, stream)
        finally:
            stream.close()
    emit(PullEvent(layer.short, "Pull complete"))


def _is_here(store: Store, layer: Layer, keep_blobs: bool) -> bool:
    if not store.layers.has(layer.chain_id):
        return False
    return not keep_blobs or layer.descriptor.digest == layer.diff_id or store.blobs.has(layer.descriptor.digest)


def _unpack(store: Store, layer: Layer, stream: LayerStream) -> None:
    try:
        store.layers.unpack(
            layer.chain_id, layer.parent, layer.diff_id, layer.descriptor.media_type, stream, store.id_map
        )
        # A worker may end before the last bytes (padding after the archive's end): the digest is of all of them
        stream.drain()
    except InvalidInput:
        # Bytes that were changed on the way break the decompressor first: then the digest is the better message
        stream.drain()
        raise


class LayerStream:
    """The bytes of a layer: what the unpacker reads is hashed, and kept as a blob where that is wanted, on the way."""

    __slots__ = ("_cancelled", "_emit", "_layer", "_next", "_read", "_reader", "_status", "_writer")

    def __init__(
        self,
        reader: Reader,
        writer: BlobWriter | BlobCheck | None,
        layer: Layer,
        status: str,
        emit: Callable[[PullEvent], None],
        cancelled: threading.Event,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._layer = layer
        self._status = status
        self._emit = emit
        self._cancelled = cancelled
        self._read = 0
        self._next = _STEP

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes. At the end the digest is verified. Raises DigestMismatch."""
        if self._cancelled.is_set():
            raise Cancelled
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
            self._emit(PullEvent(self._layer.short, status, self._read, self._layer.descriptor.size))
        return piece

    def drain(self) -> None:
        """Read to the end."""
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
