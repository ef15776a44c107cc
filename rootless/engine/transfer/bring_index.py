"""Brings all images of an index into the store: that for this host is unpacked, those for others are kept as blobs."""

from __future__ import annotations

from typing import NamedTuple

from rootless.engine.image_types import PullEvent
from rootless.engine.transfer.image_bring import bring
from rootless.engine.transfer.parallel import Control, run_all
from rootless.errors import InvalidInput
from rootless.image.digest import verify_content
from rootless.image.manifest import MANIFEST_LIMIT, Descriptor, Index, Manifest, parse_manifest, select_manifest
from rootless.image.platform import host_platform
from rootless.storage.store.index import is_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.context import Engine
    from rootless.engine.transfer.copy_ends import CopySource
    from rootless.storage.store.store import Store

_PIECE = 1 << 20
_MAX_NESTING = 4


class _Bringing(NamedTuple):
    """One index on its way into the store.

    origin: `registry/repository` where its layers may be fetched again, None where there is none.
    """

    engine: Engine
    source: CopySource
    say: Callable[[PullEvent], None]
    origin: str | None

    def bring(self, manifest: Manifest, *, unpacked: bool) -> None:
        """Bring one manifest with its config and layers, unpacked or as blobs."""
        if unpacked:
            bring(self.engine, self.source, manifest, self.say, origin=self.origin)
        else:
            bring_packed(self.engine.store, self.source, manifest, self.say)


def bring_all(
    engine: Engine, source: CopySource, say: Callable[[PullEvent], None], *, origin: str | None = None
) -> Manifest | Index:
    """Bring what the source has at its top, with all below it, and return the manifest or index at the top.

    The caller holds `store.using()`, or garbage collection would remove it all, and gives it a name. say: is called
    with each report of progress; origin: `registry/repository` where its layers may be fetched again. Raises
    InvalidInput, DigestMismatch, HostLimit, RegistryError.
    """
    raw, media_type = source.top()
    document = parse_manifest(raw, media_type)
    bringing = _Bringing(engine, source, say, origin)
    if isinstance(document, Manifest):
        bringing.bring(document, unpacked=is_image(document))
    else:
        _bring_children(bringing, document, 0)
    return document


def _bring_children(bringing: _Bringing, index: Index, depth: int) -> None:
    # An index is hostile input: one that lists others, which list others, multiplies the work at each level
    if depth > _MAX_NESTING:
        raise InvalidInput(f"indexes are nested more than {_MAX_NESTING} deep")
    try:
        ours = select_manifest(index, host_platform()).digest
    except InvalidInput:
        ours = ""
    for child in index.manifests:
        if child.size > MANIFEST_LIMIT:
            raise InvalidInput(f"manifest of {child.size} bytes is larger than {MANIFEST_LIMIT}")
        raw = bringing.source.fetch(child)
        document = parse_manifest(raw, child.media_type)
        if isinstance(document, Index):
            _bring_children(bringing, document, depth + 1)
            continue
        bringing.say(PullEvent("", f"{child.platform or child.digest[:19]}: {child.digest}"))
        bringing.bring(document, unpacked=child.digest == ours and is_image(document))
    _keep(bringing.engine.store, index.raw, index.digest)


def bring_packed(store: Store, source: CopySource, manifest: Manifest, say: Callable[[PullEvent], None]) -> None:
    """Keep a manifest, its config and its layers as blobs.

    So are kept an image for another platform, and a manifest that is no image (an attestation, a chart).
    """
    wanted = {each.digest: each for each in (*manifest.layers, manifest.config) if not store.blobs.has(each.digest)}

    def job(descriptor: Descriptor) -> Callable[[Control], None]:
        return lambda control: _bring_blob(store, source, descriptor, control)

    run_all([job(each) for each in wanted.values()], say)
    _keep(store, manifest.raw, manifest.digest)


def _bring_blob(store: Store, source: CopySource, descriptor: Descriptor, control: Control) -> None:
    short = descriptor.digest.partition(":")[2][:12]
    control.emit(PullEvent(short, "Downloading", 0, descriptor.size))
    if descriptor.data is not None:
        _keep(store, descriptor.data, descriptor.digest)
        return
    reader = source.open_blob(descriptor)
    try:
        with store.blobs.writer(descriptor.digest, descriptor.size) as writer:
            on_bytes = control.meter(short, "Downloading", descriptor.size)
            while piece := reader.read(_PIECE):
                writer.write(piece)
                on_bytes(writer.offset)
            writer.commit()
    finally:
        reader.close()
    control.emit(PullEvent(short, "Download complete"))


def _keep(store: Store, raw: bytes, digest: str) -> None:
    verify_content(raw, digest)
    if not store.blobs.has(digest):
        store.blobs.put(raw)
