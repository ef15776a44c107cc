"""The verb `save`: images out of the store into an archive or a layout."""

from __future__ import annotations

import io
import os
import sys
from functools import partial
from typing import NamedTuple

from rootless.engine import events
from rootless.engine.image.image_names import familiar, qualify, require, require_platform, tags
from rootless.engine.image_types import SaveOptions
from rootless.engine.transfer import layer_bytes
from rootless.engine.transfer.blob_sources import skipped
from rootless.errors import HostLimit, UsageError
from rootless.host.full import full_error
from rootless.image.attestation import REFERENCE_DIGEST, moved_attestation
from rootless.image.compress import NAMES, Compressed, Compression, make_encoder, parse_compression
from rootless.image.content import BlobContent
from rootless.image.convert import format_of, in_form, layer_type, rebuild_index, rebuild_manifest
from rootless.image.digest import digest_of
from rootless.image.docker_sink import DockerArchiveSink
from rootless.image.manifest import (
    MANIFEST_LIMIT,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    PlannedLayer,
    parse_manifest,
    plan_layers,
)
from rootless.image.sink_files import ArchiveFile, ArchiveStream, ignore_progress
from rootless.image.sinks import LayoutSink, Listing, OciArchiveSink, list_image
from rootless.storage.store.index import is_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

    from rootless.engine.context import Engine
    from rootless.image.sink_files import ArchiveOutput
    from rootless.image.sinks import Sink
    from rootless.image.source import Reader

    Open = Callable[[], Reader]

FORMATS = ("docker-archive", "oci-archive", "oci-dir")
_PIECE = 1 << 20


class SavedImage(NamedTuple):
    """An image to write. names: full references."""

    manifest: Manifest
    config: ImageConfig
    names: tuple[str, ...]


def save_images(
    engine: Engine,
    names: Sequence[str],
    output: str | BinaryIO,
    *,
    options: SaveOptions | None = None,
) -> None:
    """Write images to `output`: a path, "-" for standard output, or a stream; a directory for oci-dir.

    options: the archive's format and compression. Raises UsageError, ImageNotFound before anything is written;
    HostLimit, and DigestMismatch for a damaged layer.
    """
    options = options or SaveOptions()
    format = options.format
    compression = parse_compression(options.compression, options.level) if options.compression else None
    if format not in FORMATS:
        raise UsageError(f"unknown format '{format}'", hint=f"use one of: {', '.join(FORMATS)}")
    if not names:
        raise UsageError("no image to save")
    with engine.store.using():
        images = _chosen(engine, names, options.platform)
        if format == "docker-archive":
            _save_docker(engine, images, output, compression)
        else:
            converted, blobs = _exact(engine, images, compression)
            if options.tag:
                converted = [each._replace(names=(options.tag,)) for each in converted]
            tops = [_Top(each.manifest.raw, each.manifest.media_type, _listing(each)) for each in converted]
            with blobs:
                manifests = [each.manifest for each in converted]
                _put(_oci_sink(engine, output, options, tops), manifests, blobs.content, tops)
    for name in names:
        events.record_image(engine, "save", name, name)


def save_index(
    engine: Engine, digest: str, names: Sequence[str], output: str | BinaryIO, *, options: SaveOptions
) -> None:
    """Write the index `digest` of the store, with all its images, as an OCI archive or an OCI layout.

    names: full references that it gets there. Raises UsageError, NotFound (an image of the index is not here),
    HostLimit, and DigestMismatch for a damaged layer.
    """
    if options.format not in ("oci-archive", "oci-dir"):
        raise UsageError(f"an archive of the format '{options.format}' cannot hold images for several platforms")
    compression = parse_compression(options.compression, options.level) if options.compression else None
    with engine.store.using():
        index = engine.store.index.document(digest)
        assert isinstance(index, Index)
        images, artifacts = _children(engine, index)
        converted, blobs = _exact(engine, images, compression)
        replaced = {
            image.manifest.digest: new.manifest.descriptor for image, new in zip(images, converted, strict=True)
        }
        manifests = [each.manifest for each in converted]
        for about, artifact in artifacts:
            manifests.append(_artifact(engine, artifact, about, replaced, blobs))
            replaced[artifact.digest] = manifests[-1].descriptor
        top = _Top(*rebuild_index(index, replaced, "oci"), Listing(tuple(names)))
        with blobs:
            _put(_oci_sink(engine, output, options, [top]), manifests, blobs.content, [top])


def _children(engine: Engine, index: Index) -> tuple[list[SavedImage], list[tuple[str, Manifest]]]:
    """The images of an index; and its other manifests, each with the digest of the image that it is about, or ""."""
    images, artifacts = [], []
    for child in index.manifests:
        document = engine.store.index.document(child.digest)
        if isinstance(document, Manifest) and not is_image(document):
            artifacts.append((child.annotations.get(REFERENCE_DIGEST, ""), document))
        else:
            entry = engine.store.index.load(child.digest)
            images.append(SavedImage(entry.manifest, entry.config, ()))
    return images, artifacts


def _artifact(
    engine: Engine, manifest: Manifest, about: str, replaced: Mapping[str, Descriptor], blobs: _Ahead
) -> Manifest:
    """A manifest that is no image as it is written, whose blobs are put into `blobs`.

    The provenance of a build of rootless is made anew where its image, with the digest `about`, has another one in the
    archive because its layers were compressed. replaced: what is written, by the old digests.
    """
    store = engine.store.blobs
    image = replaced.get(about)
    moved = None
    if image is not None and image.digest != about:
        moved = moved_attestation(manifest, lambda each: store.read(each.digest, MANIFEST_LIMIT), about, image.digest)
    if moved is None:
        for blob in (*manifest.layers, manifest.config):
            blobs.add(blob.digest, partial(store.open, blob.digest))
        return manifest
    for content in (moved.statement, moved.config):
        blobs.add(digest_of(content), partial(io.BytesIO, content))
    made = parse_manifest(moved.manifest)
    assert isinstance(made, Manifest)
    return made


class _Top(NamedTuple):
    """A manifest or an index that index.json lists."""

    raw: bytes
    media_type: str
    listing: Listing


def _oci_sink(engine: Engine, output: str | BinaryIO, options: SaveOptions, tops: Sequence[_Top]) -> Sink:
    """The OCI archive or the OCI layout at `output`. Raises UsageError for a place that cannot be one."""
    if options.format == "oci-dir":
        if not isinstance(output, str) or output == "-":
            raise UsageError("an OCI layout needs the name of a directory", hint="give --output DIRECTORY")
        if not options.tag:
            _refuse_full(output)
        return LayoutSink(output)
    return OciArchiveSink(_output(engine, output), [entry for top in tops for entry in list_image(*top)])


def _save_docker(
    engine: Engine, images: Sequence[SavedImage], output: str | BinaryIO, compression: Compression | None
) -> None:
    """Write a docker-archive. Its layers are plain tars, so that a compression is that of the whole archive."""
    layers = {layer.diff_id: layer.chain_id for image in images for layer in plan_layers(image.manifest, image.config)}
    with layer_bytes.Tars(engine, layers) as tars:
        opened = _output(engine, output)
        sink = DockerArchiveSink(opened if compression is None else _Whole(opened, compression))
        try:
            for image in images:
                sink.put_config(_small(image.config.raw, image.config.digest))
                form = format_of(image.manifest.media_type)
                tar_layers = [
                    _tar_descriptor(engine, layer, form) for layer in plan_layers(image.manifest, image.config)
                ]
                for each in tar_layers:
                    sink.put_blob(BlobContent(_tar_at(tars, each.digest), each.digest, each.size), ignore_progress)
                # A docker-archive holds no OCI manifest. This one only tells the sink which config and layers belong
                # together
                raw, media_type = rebuild_manifest(image.manifest, tar_layers, form)
                sink.put_manifest(raw, media_type, listing=_listing(image))
            sink.finish()
        finally:
            sink.close()


def _put(
    sink: Sink,
    manifests: Sequence[Manifest],
    content: Callable[[Descriptor], BlobContent],
    tops: Sequence[_Top],
) -> None:
    """Put the manifests with their blobs, one after the other, then what index.json lists, and finish."""
    try:
        for manifest in manifests:
            for layer in manifest.layers:
                sink.put_blob(content(layer), ignore_progress)
            sink.put_config(content(manifest.config))
            sink.put_manifest(manifest.raw, manifest.media_type, listing=None)
        for top in tops:
            sink.put_manifest(top.raw, top.media_type, listing=top.listing)
        sink.finish()
    finally:
        sink.close()


def _listing(image: SavedImage) -> Listing:
    return Listing(image.names, image.config.platform)


def _output(engine: Engine, output: str | BinaryIO) -> ArchiveOutput:
    """The output for an archive: a stream, or a file that gets its name when it is whole, so that no half one does."""
    if isinstance(output, str) and output != "-":
        return ArchiveFile(output, may_replace=True)
    return ArchiveStream(sys.stdout.buffer if isinstance(output, str) else output, engine.store.path("incoming"))


def _refuse_full(directory: str) -> None:
    """Raise UsageError unless the directory is absent, or empty but for a layout's empty directories."""
    try:
        blobs = os.listdir(f"{directory}/blobs/sha256") if os.path.isdir(f"{directory}/blobs/sha256") else []
        is_full = bool(blobs) or bool(set(os.listdir(directory)) - {"blobs"})
    except FileNotFoundError:
        return
    except OSError as e:
        raise HostLimit(f"cannot write OCI layout '{directory}': {e.strerror}") from e
    if is_full:
        raise UsageError(f"directory '{directory}' is not empty", hint="give one that does not exist yet")


def _chosen(engine: Engine, names: Sequence[str], platform: str | None) -> list[SavedImage]:
    """The images to save, each with the names by which it was asked for; an image asked for by id has none.

    platform: the one to take of an index, and that other images must have; None for this host's.
    """
    chosen: dict[str, SavedImage] = {}
    for text in names:
        entry = require(engine, text) if platform is None else require_platform(engine, text, platform)
        named = (
            tags(entry) if platform is None else [each for some in engine.store.index.names().values() for each in some]
        )
        full: tuple[str, ...] = ()
        if not text.startswith("sha256:"):
            try:
                name = str(qualify(engine, text)[0])
                full = (name,) if name in named else ()
            except UsageError:
                full = ()
        before = chosen.get(entry.manifest_digest)
        merged = dict.fromkeys([*(before.names if before else ()), *full])
        chosen[entry.manifest_digest] = SavedImage(entry.manifest, entry.config, tuple(merged))
    return list(chosen.values())


def _tar_opener(engine: Engine, layer: PlannedLayer) -> Open:
    return lambda: layer_bytes.open_tar(engine, layer.diff_id, layer.chain_id)


def _exact(
    engine: Engine, images: Sequence[SavedImage], compression: Compression | None
) -> tuple[list[SavedImage], _Ahead]:
    """The images as they can be written to an OCI layout, and their blobs.

    Layers are the bytes that the manifest names where these can be had and `compression` is None; else they are
    compressed anew, and the manifest gets their new digests. The manifest of an image in docker's format is rewritten
    in OCI's.
    """
    blobs: dict[str, Open] = {}
    made: dict[tuple[str, str], Descriptor] = {}
    converted = []
    for image in images:
        layers = []
        for layer in plan_layers(image.manifest, image.config):
            key = (layer.diff_id, layer.descriptor.digest)
            if key not in made:
                made[key], opener = _layer(engine, layer, compression)
                blobs.setdefault(made[key].digest, opener)
            layers.append(made[key])
        raw, media_type = rebuild_manifest(image.manifest, layers, "oci")
        manifest = image.manifest
        if raw != manifest.raw:
            found = parse_manifest(raw, media_type)
            assert isinstance(found, Manifest)
            manifest = found
            if compression is None and [each.digest for each in layers] != [e.digest for e in image.manifest.layers]:
                name = familiar(image.names[0]) if image.names else image.config.digest
                engine.warn(
                    f"the compressed layers of '{name}' cannot be had any more: they were compressed anew, and the "
                    f"manifest is '{manifest.digest}' instead of '{image.manifest.digest}'"
                )
        converted.append(SavedImage(manifest, image.config, image.names))
        blobs[image.config.digest] = _config_opener(image.config)
    return converted, _Ahead(blobs)


def _layer(engine: Engine, layer: PlannedLayer, compression: Compression | None) -> tuple[Descriptor, Open]:
    """A layer's descriptor in the archive, and a function that opens its bytes."""
    have = layer_bytes.compression(engine, layer)
    is_kept = compression is None or compression.name == have
    if is_kept and layer_bytes.has_blob(engine, layer.descriptor, layer.diff_id, layer.chain_id):
        kept = in_form(layer.descriptor, "oci", have)
        if compression is not None:  # The user asked for a compression, and the media type is corrected to what is true
            kept = kept._replace(media_type=layer_type(kept, have, "oci"))
        return kept, lambda: layer_bytes.open_blob(engine, layer.descriptor, layer.diff_id, layer.chain_id)
    chosen = compression or (Compression(have) if have in NAMES else Compression())
    if chosen.name == "none":
        return _tar_descriptor(engine, layer, "oci"), _tar_opener(engine, layer)
    return _compress(engine, layer, chosen, "oci")


def _compress(engine: Engine, layer: PlannedLayer, compression: Compression, form: str) -> tuple[Descriptor, Open]:
    """Compress a layer into a file without a name. Returns its descriptor, and a function that opens it.

    In an archive a file's size, and here its digest as the file's name, stand before its bytes: both must be known
    before the first byte is written. A kill leaves nothing of a file without a name (O_TMPFILE). Raises HostLimit.
    """
    import hashlib

    incoming = engine.store.path("incoming")
    try:
        file = os.fdopen(os.open(incoming, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "w+b", buffering=0)
    except OSError as e:
        raise full_error(f"cannot write to '{incoming}'", e, incoming) from e
    reader = Compressed(layer_bytes.open_tar(engine, layer.diff_id, layer.chain_id), compression)
    hasher, size = hashlib.sha256(), 0
    try:
        while piece := reader.read(_PIECE):
            hasher.update(piece)
            size += len(piece)
            file.write(piece)
    except OSError as e:
        raise full_error(f"cannot write to '{incoming}'", e, incoming) from e
    finally:
        reader.close()
    descriptor = layer.descriptor._replace(
        media_type=layer_type(layer.descriptor, compression.name, form),
        digest=f"sha256:{hasher.hexdigest()}",
        size=size,
    )

    def again() -> Reader:
        file.seek(0)
        return file

    return descriptor, again


def _tar_descriptor(engine: Engine, layer: PlannedLayer, form: str) -> Descriptor:
    """The layer as a plain tar, under the media type that its manifest's format has for one."""
    return layer.descriptor._replace(
        media_type=layer_type(layer.descriptor, "none", form),
        digest=layer.diff_id,
        size=layer_bytes.tar_size(engine, layer.diff_id, layer.chain_id),
    )


def _tar_at(tars: layer_bytes.Tars, diff_id: str) -> Callable[[int], Reader]:
    return lambda offset: skipped(tars.open(diff_id)[1], offset)


def _config_opener(config: ImageConfig) -> Open:
    return lambda: io.BytesIO(config.raw)


def _small(content: bytes, digest: str) -> BlobContent:
    return BlobContent(lambda offset: io.BytesIO(content[offset:]), digest, len(content))


class _Ahead:
    """Blobs by digest, each to be opened once, mostly in the order in which they are given.

    When one is opened the next one is, too, so that the process which makes its tar starts while this one is written.
    """

    __slots__ = ("_blobs", "_opened", "_order")

    def __init__(self, blobs: dict[str, Open]) -> None:
        self._blobs = blobs
        self._order = list(blobs)
        self._opened: dict[str, Reader] = {}

    def add(self, digest: str, opener: Open) -> None:
        """Add a blob, which comes last, unless there is one with this digest."""
        if digest not in self._blobs:
            self._blobs[digest] = opener
            self._order.append(digest)

    def open(self, digest: str) -> Reader:
        """A reader of the blob from its first byte."""
        reader = self._opened.pop(digest, None) or self._blobs[digest]()
        at = self._order.index(digest) + 1
        if at < len(self._order) and self._order[at] not in self._opened:
            self._opened[self._order[at]] = self._blobs[self._order[at]]()
        return reader

    def content(self, descriptor: Descriptor) -> BlobContent:
        """The blob in the form in which a sink takes it."""
        return BlobContent(
            lambda offset: skipped(self.open(descriptor.digest), offset), descriptor.digest, descriptor.size
        )

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *unused: object) -> None:
        for reader in self._opened.values():
            reader.close()
        self._opened.clear()


class _Whole:
    """An output that compresses all that is written to it."""

    __slots__ = ("_output", "_pipe", "directory")

    def __init__(self, output: ArchiveOutput, compression: Compression) -> None:
        self._output = output
        self._pipe = make_encoder(compression)
        self.directory = output.directory

    def write(self, piece: bytes, /) -> None:
        """Compress bytes and write them to the output."""
        self._output.write(self._pipe.feed(piece))

    def finish(self) -> None:
        """Write what the compression holds back, and finish the output."""
        self._output.write(self._pipe.finish())
        self._output.finish()

    def close(self) -> None:
        """Close the output; without `finish` before, it drops what was written."""
        self._output.close()
