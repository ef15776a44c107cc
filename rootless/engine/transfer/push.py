"""The verb `push`: a local image goes into a registry. Layers in parallel, then the config, the manifest, the tag.

In this order nobody can pull an image that is only half there.
"""

from __future__ import annotations

from typing import NamedTuple

from rootless.engine import events
from rootless.engine.image.image_names import (
    find_index,
    qualify,
    registries,
    registry_access,
    require,
    require_platform,
)
from rootless.engine.image_types import PullEvent, Pushed, PushOptions
from rootless.engine.transfer import layer_bytes
from rootless.engine.transfer.blob_sources import (
    blob_content,
    bytes_content,
    compressed_content,
    exact_content,
    origins,
)
from rootless.engine.transfer.parallel import Control, run_all
from rootless.errors import DigestMismatch, ImageNotFound, NotFound, UsageError
from rootless.image.attestation import REFERENCE_DIGEST, moved_attestation
from rootless.image.compress import Compression, parse_compression
from rootless.image.convert import (
    FORMATS,
    format_of,
    in_form,
    layer_compression,
    layer_type,
    rebuild_index,
    rebuild_manifest,
)
from rootless.image.digest import digest_of
from rootless.image.manifest import MANIFEST_LIMIT, Descriptor, Index, Manifest, plan_layers
from rootless.image.reference import parse_reference
from rootless.storage.store.index import is_image
from rootless.storage.store.layer_forms import Form, read_forms, remember_form

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.engine.context import Engine
    from rootless.engine.image_types import RegistryOptions
    from rootless.image.content import BlobContent, Placed
    from rootless.image.distribution.destination import RegistryDestination
    from rootless.image.manifest import PlannedLayer
    from rootless.image.reference import Reference
    from rootless.storage.store.index import ImageEntry

_AT_ONCE = 3


class _Push(NamedTuple):
    """One push while it runs.

    form: the manifest format that is wanted ("oci", "v2s2"), None for the image's own; compression: the one that the
    user asked for, None to send layers as they are; chunk_size: bytes of one request of an upload, None for all in one.
    """

    engine: Engine
    destination: RegistryDestination
    registry: str
    form: str | None
    compression: Compression | None
    chunk_size: int | None
    say: Callable[[PullEvent], None]


def push_image(
    engine: Engine,
    text: str,
    target: str | None = None,
    options: PushOptions | None = None,
    *,
    progress: Callable[[PullEvent], None] | None = None,
) -> Pushed:
    """Copy a local image into a registry: to `target`, or without it to the repository and tag that its name says.

    progress is called from this thread only. Raises ImageNotFound, RegistryError, AuthenticationError, UsageError.
    """
    options = options or PushOptions()
    if options.format is not None and options.format not in FORMATS:
        raise UsageError(f"unknown format '{options.format}'", hint=f"use one of: {', '.join(FORMATS)}")
    if options.all and options.platform:
        raise UsageError("--platform and --all do not go together")
    compression = parse_compression(options.compression or "gzip", options.compression_level)
    explicit = compression if options.compression or options.compression_level is not None else None
    if options.format == "v2s2" and compression.name == "zstd":
        layer_type(Descriptor("", "", 0), "zstd", "v2s2")  # It raises, as there is no such type: before bytes are sent
    reference = destination_name(engine, target or text)
    say = progress or (lambda event: None)
    store = engine.store
    with store.using():
        index = store.index.find_index(str(qualify(engine, text)[0])) if options.all else None
        entry = None if index is not None else _chosen(engine, text, options.platform)
        destination = _open(engine, reference, options.registry)
        try:
            running = _Push(engine, destination, reference.registry, options.format, explicit, options.chunk_size, say)
            say(PullEvent("", f"The push refers to repository [{reference.familiar_name}]"))
            if index is not None:
                digest, size = _push_index(running, index, reference.tag)
                local = Descriptor(index.media_type, index.digest, len(index.raw))
            else:
                assert entry is not None
                sent = push_entry(running, entry, reference.tag)
                digest, size = sent.digest, sent.size
                local = entry.manifest.descriptor
        finally:
            destination.close()
        # As with docker the image gets the further name `repository@digest`, by which the registry knows it. One image
        # of an index has no names here: it would be listed as another image
        if options.platform is None or find_index(engine, text) is None:
            store.index.tag(str(reference.with_digest(digest)), local)
    say(PullEvent("", f"{reference.tag}: digest: {digest} size: {size}"))
    events.record_image(engine, "push", text, target or text)
    return Pushed(str(reference), digest, size)


def _chosen(engine: Engine, text: str, platform: str | None) -> ImageEntry:
    """The image to push. platform: see PushOptions."""
    return require(engine, text) if platform is None else require_platform(engine, text, platform)


def destination_name(engine: Engine, text: str) -> Reference:
    """The reference to which a push goes. Raises UsageError for a digest, to which nothing can be pushed."""
    reference, _ = qualify(engine, text.removeprefix("docker://"))
    if reference.digest:
        raise UsageError(f"cannot push to '{text}'", hint="a push goes to a tag, not to a digest")
    return reference


def repository_tags(engine: Engine, text: str) -> list[str]:
    """All local names in the repository of `text`, with their tags. Raises UsageError, ImageNotFound."""
    repository = qualify(engine, text)[0].name
    index = engine.store.index
    named = [entry.names for entry in index.entries()] + [entry.names for entry in index.indexes()]
    names = {name for some in named for name in some if "@" not in name}
    found = sorted(name for name in names if parse_reference(name).name == repository)
    if not found:
        raise ImageNotFound(f"no image of repository '{text}' is here", hint="`rootless images` lists what is here")
    return found


def _open(engine: Engine, reference: Reference, options: RegistryOptions) -> RegistryDestination:
    from rootless.image.distribution.destination import open_destination

    return open_destination(reference, registries(engine), registry_access(options), warn=engine.warn)


def push_entry(push: _Push, entry: ImageEntry, tag: str | None) -> Descriptor:
    """Send the layers, config and manifest of one image, and return the manifest's descriptor in the registry.

    tag: None for an image of an index, which has a digest only.
    """
    layers = plan_layers(entry.manifest, entry.config)
    known = origins(push.engine, push.registry, layers)
    # An image may have one layer several times (empty ones mostly), but it is sent once
    once = {layer.descriptor.digest: layer for layer in layers}
    if tag is not None and (there := _is_pushed(push, entry, layers, tag)) is not None:
        for layer in once.values():
            push.say(PullEvent(layer.short, "Layer already exists"))
        return there

    def job(layer: PlannedLayer) -> Callable[[Control], Descriptor]:
        return lambda control: _push_layer(push, layer, known, control)

    sent = dict(zip(once, run_all([job(layer) for layer in once.values()], push.say, at_once=_AT_ONCE), strict=True))
    raw, media_type = _manifest_of(push, entry, layers, [sent[layer.descriptor.digest] for layer in layers])
    push.destination.put_blob(bytes_content(entry.config.raw, entry.config_digest))
    push.destination.put_manifest(raw, media_type, tag=tag)
    return Descriptor(media_type, digest_of(raw), len(raw))


def _manifest_of(
    push: _Push, entry: ImageEntry, layers: Sequence[PlannedLayer], sent: Sequence[Descriptor]
) -> tuple[bytes, str]:
    """The manifest with the layers as they were sent, and its media type.

    Its format is the one that is wanted, or the image's own; OCI's where a layer is compressed by zstd, for which
    docker's has no media type.
    """
    compressions = [
        _compression(push, layer) if new == layer.descriptor else layer_compression(new.media_type)
        for layer, new in zip(layers, sent, strict=True)
    ]
    form = push.form or ("oci" if "zstd" in compressions else format_of(entry.manifest.media_type))
    typed = [in_form(new, form, compression) for new, compression in zip(sent, compressions, strict=True)]
    if push.compression is not None:  # The user asked for a compression, and media types are corrected to what is true
        typed = [
            each if each.is_foreign else each._replace(media_type=layer_type(each, compression, form))
            for each, compression in zip(typed, compressions, strict=True)
        ]
    return rebuild_manifest(entry.manifest, typed, form)


def _is_pushed(push: _Push, entry: ImageEntry, layers: Sequence[PlannedLayer], tag: str) -> Descriptor | None:
    """The manifest's descriptor if the tag in the registry means already what this push would send; else None.

    Then no layer needs to be asked for or compressed. The prediction is made from layers as they are, and from layers
    compressed anew; a wrong one costs nothing but this look.
    """
    told = push.destination.digest_of_tag(tag)
    if told is None:
        return None
    for anew in (False, True):
        predicted = [_predicted(push, layer, anew=anew) for layer in layers]
        if None in predicted:
            continue
        raw, media_type = _manifest_of(push, entry, layers, [each for each in predicted if each is not None])
        if digest_of(raw) == told:
            return Descriptor(media_type, told, len(raw))
    return None


def _predicted(push: _Push, layer: PlannedLayer, *, anew: bool) -> Descriptor | None:
    """The layer's descriptor after a push; None where it cannot be known before.

    anew: as if its blob could not be had and the layer were compressed again.
    """
    descriptor = layer.descriptor
    wanted = _wanted(push, layer)
    if descriptor.is_foreign or (wanted is None and not anew):
        return descriptor
    wanted = wanted or Compression(_compression(push, layer))
    form = read_forms(push.engine.store, layer.chain_id).get(wanted.key)
    return None if form is None else _compressed_descriptor(form.digest, form.size, wanted)


def _compression(push: _Push, layer: PlannedLayer) -> str:
    """How a layer's blob is compressed. Of a foreign layer, whose bytes are elsewhere, only its media type is known."""
    if layer.descriptor.is_foreign:
        return layer_compression(layer.descriptor.media_type)
    return layer_bytes.compression(push.engine, layer)


def _wanted(push: _Push, layer: PlannedLayer) -> Compression | None:
    """How the layer is to be compressed; None where it is sent as it is.

    Without a wish of the user a layer is sent as it is if manifests have a media type for its compression.
    """
    have = _compression(push, layer)
    wanted = push.compression or (None if have in ("gzip", "zstd") else Compression())
    return None if wanted is not None and wanted.name == have and wanted.level is None else wanted


def _compressed_descriptor(digest: str, size: int, compression: Compression) -> Descriptor:
    plain = Descriptor("", digest, size)
    return plain._replace(media_type=layer_type(plain, compression.name, "oci"))


def _push_layer(push: _Push, layer: PlannedLayer, known: dict[str, list[str]], control: Control) -> Descriptor:
    """Send one layer, and return its descriptor in the registry."""
    descriptor = layer.descriptor
    if descriptor.is_foreign:
        control.emit(PullEvent(layer.short, "Skipped foreign layer"))
        return descriptor
    wanted = _wanted(push, layer)
    if wanted is None:
        wanted = Compression(_compression(push, layer))
        if not _is_made_anew(push, layer, wanted):
            try:
                _put(push, layer, exact_content(push.engine, layer), known, control)
                return descriptor
            except NotFound:
                pass  # The compressed bytes are gone and cannot be made again: the same files get a new digest below
    return _push_compressed(push, layer, wanted, known, control)


def _is_made_anew(push: _Push, layer: PlannedLayer, compression: Compression) -> bool:
    """Whether the repository has the layer only as it was compressed anew for an earlier push.

    Compressing it the same way once more gives the same digest, and then nothing has to be uploaded.
    """
    store, destination = push.engine.store, push.destination
    form = read_forms(store, layer.chain_id).get(compression.key)
    return (
        form is not None
        and form.digest != layer.descriptor.digest
        and not store.blobs.has(layer.descriptor.digest)
        and not destination.has_blob(layer.descriptor.digest, layer.descriptor.size)
        and destination.has_blob(form.digest, form.size)
    )


def _push_compressed(
    push: _Push, layer: PlannedLayer, wanted: Compression, known: dict[str, list[str]], control: Control
) -> Descriptor:
    store, key = push.engine.store, wanted.key
    form = read_forms(store, layer.chain_id).get(key)
    placed = None
    if form is not None:
        try:
            content = compressed_content(push.engine, layer, wanted, form.digest, form.size)
            placed = _put(push, layer, content, known, control)
        except DigestMismatch:
            push.engine.warn(f"layer '{layer.diff_id}' is compressed to other bytes than before: it is sent anew")
    if placed is None:
        placed = _put(push, layer, compressed_content(push.engine, layer, wanted), known, control)
    repository = f"{push.registry}/{push.destination.reference.repository}"
    remember_form(store, layer.chain_id, key, Form(placed.digest, placed.size, (repository,)))
    return _compressed_descriptor(placed.digest, placed.size, wanted)


def _put(
    push: _Push, layer: PlannedLayer, content: BlobContent, known: dict[str, list[str]], control: Control
) -> Placed:
    control.check()
    control.emit(PullEvent(layer.short, "Preparing"))
    placed = push.destination.put_blob(
        content,
        origins=known.get(content.digest or "", ()),
        chunk_size=push.chunk_size,
        on_bytes=control.meter(layer.short, "Pushing", content.size or 0),
    )
    status = {"there": "Layer already exists", "mounted": f"Mounted from {placed.origin}", "sent": "Pushed"}
    control.emit(PullEvent(layer.short, status[placed.how]))
    return placed


def _push_index(push: _Push, index: Index, tag: str | None, depth: int = 0) -> tuple[str, int]:
    """Send all images of an index, then the index, and return its digest and size in bytes.

    Raises ImageNotFound when the store lacks one of them.
    """
    store = push.engine.store
    if depth > 3:
        raise UsageError(f"indexes are nested more than {depth} deep")
    replaced: dict[str, Descriptor] = {}
    for child in index.manifests:
        if not store.blobs.has(child.digest):
            raise ImageNotFound(
                f"the image for platform '{child.platform or child.digest[:19]}' is not here",
                hint="bring it with `rootless pull --all-platforms`, or push without --all",
            )
        document = store.index.document(child.digest)
        if isinstance(document, Index):
            digest, size = _push_index(push, document, None, depth + 1)
            media_type = child.media_type
            replaced[child.digest] = Descriptor(media_type, digest, size)
            continue
        push.say(PullEvent("", f"Pushing {child.platform or child.digest[:19]}"))
        replaced[child.digest] = (
            push_entry(push, store.index.load(child.digest), None)
            if is_image(document)
            else _push_artifact(push, document, child.annotations.get(REFERENCE_DIGEST, ""), replaced)
        )
    became_oci = any(
        format_of(replaced[child.digest].media_type) != format_of(child.media_type) == "v2s2"
        for child in index.manifests
    )
    if became_oci and push.form is None:
        # Docker's list cannot name a manifest of OCI's format. So all is sent in that format; the registry has the
        # layers already
        return _push_index(push._replace(form="oci"), index, tag, depth)
    form = push.form or format_of(index.media_type)
    raw, media_type = rebuild_index(index, replaced, form)
    push.destination.put_manifest(raw, media_type, tag=tag)
    return digest_of(raw), len(raw)


def _push_artifact(push: _Push, manifest: Manifest, about: str, replaced: dict[str, Descriptor]) -> Descriptor:
    """Send a manifest that is no image (an attestation, a chart), and return its descriptor.

    It is sent byte for byte, but for the provenance of a build of rootless whose image got another digest because its
    layers were compressed. about: the digest of that image, "" for none; replaced: what was sent, by the old digests.
    """
    image = replaced.get(about)
    if image is not None and image.digest != about:
        blobs = push.engine.store.blobs
        moved = moved_attestation(manifest, lambda each: blobs.read(each.digest, MANIFEST_LIMIT), about, image.digest)
        if moved is not None:
            for content in (moved.statement, moved.config):
                push.destination.put_blob(bytes_content(content, digest_of(content)))
            push.destination.put_manifest(moved.manifest, moved.descriptor.media_type)
            return moved.descriptor
    for blob in (*manifest.layers, manifest.config):
        push.destination.put_blob(blob_content(push.engine, blob))
    push.destination.put_manifest(manifest.raw, manifest.media_type)
    return manifest.descriptor
