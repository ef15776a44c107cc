"""The verb `copy`: an image goes from one place to another, byte for byte.

Into the store it is unpacked, as by `pull`.
"""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

from rootless.engine.image.image_names import qualify
from rootless.engine.image_types import Copied, CopyOptions, PullEvent
from rootless.engine.transfer.bring_index import bring_all
from rootless.engine.transfer.copy_ends import open_sink, open_source
from rootless.engine.transfer.image_bring import bring
from rootless.engine.transfer.parallel import Control, run_all
from rootless.errors import InvalidInput, NotFound, UsageError
from rootless.image import places
from rootless.image.compress import NAMES
from rootless.image.content import BlobContent
from rootless.image.convert import FORMATS, format_of, layer_compression, layer_type, rebuild_index, rebuild_manifest
from rootless.image.decompress import compression_of, read_head
from rootless.image.digest import digest_of
from rootless.image.distribution.policy import check_policy
from rootless.image.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
    select_manifest,
)
from rootless.image.places import ImagePlace, parse_place
from rootless.image.platform import host_platform, parse_platform
from rootless.image.reference import parse_reference
from rootless.image.sinks import Listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.context import Engine
    from rootless.engine.transfer.copy_ends import CopySource
    from rootless.image.platform import Platform
    from rootless.image.sinks import Sink

_MAX_NESTING = 4


class _Copy(NamedTuple):
    """One copy while it runs. source: the open end of from_place; say: is called with each report of progress."""

    engine: Engine
    source: CopySource
    from_place: ImagePlace
    to_place: ImagePlace
    platform: Platform
    options: CopyOptions
    say: Callable[[PullEvent], None]


def copy_image(
    engine: Engine,
    source_text: str,
    destination_text: str,
    options: CopyOptions | None = None,
    *,
    progress: Callable[[PullEvent], None] | None = None,
) -> Copied:
    """Copy an image between two places: docker://, oci:, oci-archive:, docker-archive:, dir: or the store.

    Bytes stay as they are, except in a docker-archive, whose layers are plain tars, and with another format. progress
    is called from this thread only. Raises UsageError, ImageNotFound, InvalidInput, DigestMismatch, RegistryError,
    HostLimit.
    """
    options = options or CopyOptions()
    if options.format is not None and options.format not in FORMATS:
        raise UsageError(f"unknown format '{options.format}'", hint=f"use one of: {', '.join(FORMATS)}")
    from_place, to_place = _place(engine, source_text), _place(engine, destination_text)
    if from_place.transport != places.STORE:
        check_policy(from_place.transport, from_place.scope)
    say = progress or (lambda event: None)
    platform = parse_platform(options.platform) if options.platform else host_platform()
    with engine.store.using(), open_source(engine, from_place, options.source) as source:
        say(PullEvent("", f"Copying {from_place} to {to_place}"))
        copy = _Copy(engine, source, from_place, to_place, platform, options, say)
        digest = _into_store(copy) if to_place.transport == places.STORE else _into_sink(copy)
    say(PullEvent("", f"Digest: {digest}"))
    return Copied(digest, str(to_place))


def _place(engine: Engine, text: str) -> ImagePlace:
    """The place that `text` names, with the name of an image in a registry in full."""
    place = parse_place(text)
    if place.transport == places.REGISTRY:
        return place._replace(name=str(parse_reference(place.name)))
    return place


def _into_store(copy: _Copy) -> str:
    """Unpack the image and name it, as a pull does, and return the digest of its manifest or index."""
    engine, source = copy.engine, copy.source
    if copy.options.format is not None:
        raise UsageError("--format is for places other than the store")
    reference, _ = qualify(engine, copy.to_place.name)
    if reference.digest:
        raise UsageError(f"an image cannot be given the name '{copy.to_place.name}'", hint="leave out the digest")
    origin = None
    if copy.from_place.transport == places.REGISTRY:
        origin = parse_reference(copy.from_place.name).name
    document: Manifest | Index
    if copy.options.all:
        document = bring_all(engine, source, copy.say, origin=origin)
    else:
        document = source.manifest(copy.platform)
        if copy.from_place.transport != places.STORE:
            bring(engine, source, document, copy.say, origin=origin)
    engine.store.index.tag(str(reference), document.descriptor)
    return document.digest


def _into_sink(copy: _Copy) -> str:
    """Write the image to a place other than the store, and return the digest of its manifest or index there."""
    listing = Listing((copy.to_place.name,) if copy.to_place.name else ())
    sink = open_sink(copy.engine, copy.to_place, copy.options.destination, copy.from_place)
    try:
        digest = _copy_top(copy, sink, listing)
        sink.finish()
    finally:
        sink.close()
    return digest


def _copy_top(copy: _Copy, sink: Sink, listing: Listing) -> str:
    raw, media_type = copy.source.top()
    document = parse_manifest(raw, media_type)
    for _ in range(_MAX_NESTING):
        if isinstance(document, Manifest) or copy.options.all:
            break
        chosen = select_manifest(document, copy.platform)
        document = parse_manifest(copy.source.fetch(chosen), chosen.media_type)
    if isinstance(document, Index):
        if not copy.options.all:
            raise InvalidInput(f"indexes are nested more than {_MAX_NESTING} deep")
        return _copy_index(copy, sink, document, listing=listing).digest
    return _copy_manifest(copy, sink, document, listing=listing).digest


def _copy_index(copy: _Copy, sink: Sink, index: Index, *, listing: Listing | None, depth: int = 0) -> Descriptor:
    if depth > _MAX_NESTING:
        raise InvalidInput(f"indexes are nested more than {_MAX_NESTING} deep")
    replaced: dict[str, Descriptor] = {}
    for child in index.manifests:
        copy.say(PullEvent("", f"Copying {child.platform or child.digest[:19]}"))
        raw = copy.source.fetch(child)
        if child.media_type not in MANIFEST_TYPES + INDEX_TYPES:
            # A document of an unknown kind is copied as it is: an index may list anything (image-spec image-index.md)
            sink.put_manifest(raw, child.media_type, listing=None)
            continue
        document = parse_manifest(raw, child.media_type)
        replaced[child.digest] = (
            _copy_index(copy, sink, document, listing=None, depth=depth + 1)
            if isinstance(document, Index)
            else _copy_manifest(copy, sink, document, listing=None)
        )
    raw, media_type = rebuild_index(index, replaced, copy.options.format or format_of(index.media_type))
    sink.put_manifest(raw, media_type, listing=listing)
    return Descriptor(media_type, digest_of(raw), len(raw))


def _copy_manifest(copy: _Copy, sink: Sink, manifest: Manifest, *, listing: Listing | None) -> Descriptor:
    once = {layer.digest: layer for layer in manifest.layers if not layer.is_foreign}

    def job(layer: Descriptor) -> Callable[[Control], None]:
        return lambda control: _copy_blob(copy.source, sink, layer, control)

    run_all([job(layer) for layer in once.values()], copy.say, at_once=sink.at_once)
    sink.put_config(_content(copy.source, manifest.config))
    form, layers = copy.options.format, list(manifest.layers)
    raw, media_type = manifest.raw, manifest.media_type
    if form is not None:
        if form != format_of(manifest.media_type):
            layers = [
                each._replace(media_type=layer_type(each, _compression(copy.source, each), form)) for each in layers
            ]
        raw, media_type = rebuild_manifest(manifest, layers, form)
    sink.put_manifest(raw, media_type, listing=listing)
    return Descriptor(media_type, digest_of(raw), len(raw))


def _compression(source: CopySource, layer: Descriptor) -> str:
    """How the layer's bytes are compressed, by the bytes themselves: its media type may be wrong."""
    if not layer.is_foreign:  # The bytes of a foreign layer are at a URL outside, and are not copied
        with closing(source.open_blob(layer)) as reader:
            found = compression_of(read_head(reader)) or "none"
        if found in NAMES:
            return found
    return layer_compression(layer.media_type)


def _content(source: CopySource, descriptor: Descriptor) -> BlobContent:
    import io

    embedded = descriptor.data
    if embedded is not None:
        return BlobContent(lambda offset: io.BytesIO(embedded[offset:]), descriptor.digest, descriptor.size)
    return BlobContent(lambda offset: source.open_blob(descriptor, offset), descriptor.digest, descriptor.size)


def _copy_blob(source: CopySource, sink: Sink, layer: Descriptor, control: Control) -> None:
    short = layer.digest.partition(":")[2][:12]
    control.check()
    control.emit(PullEvent(short, "Copying", 0, layer.size))
    try:
        placed = sink.put_blob(_content(source, layer), control.meter(short, "Copying", layer.size))
    except NotFound as e:
        raise NotFound(e.message, hint="`rootless push` and `rootless save` compress such layers anew") from e
    status = {"there": "Already exists", "mounted": f"Mounted from {placed.origin}", "sent": "Copied"}
    control.emit(PullEvent(short, status[placed.how]))
