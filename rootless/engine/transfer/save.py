"""The verb `save`: images out of the store into an archive or a layout."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from rootless.engine.image.image_names import familiar, qualify, require, tags
from rootless.engine.transfer import layer_bytes
from rootless.engine.transfer.image_bring import LayerToBring, plan
from rootless.errors import UsageError
from rootless.image.compress import Compressed, Compression, encoder
from rootless.image.convert import format_of, layer_compression, layer_type, rebuild
from rootless.image.manifest import Descriptor, Manifest, parse_manifest
from rootless.image.writers import SavedImage, write_docker_archive, write_layout, write_oci_archive
from rootless.storage.tar.full import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from rootless.engine.context import Engine
    from rootless.image.source import Reader

    Open = Callable[[], Reader]

FORMATS = ("docker-archive", "oci-archive", "oci-dir")
_PIECE = 1 << 20


def save(
    engine: Engine,
    names: Sequence[str],
    output: str | BinaryIO,
    *,
    format: str = "docker-archive",
    compression: Compression | None = None,
) -> None:
    """See engine.image.images.Images.save."""
    if format not in FORMATS:
        raise UsageError(f"unknown format '{format}'", hint=f"use one of: {', '.join(FORMATS)}")
    if not names:
        raise UsageError("no image to save")
    with engine.store.using():
        images = _chosen(engine, names)
        if format == "oci-dir":
            if not isinstance(output, str) or output == "-":
                raise UsageError("an OCI layout needs the name of a directory", hint="give --output DIRECTORY")
            converted, blobs = _exact(engine, images, compression)
            with blobs:
                write_layout(converted, blobs.open, output)
        elif isinstance(output, str) and output != "-":
            _to_file(engine, images, output, format, compression)
        else:
            stream = sys.stdout.buffer if isinstance(output, str) else output
            _write(engine, images, stream.write, format, compression)
            stream.flush()


def _chosen(engine: Engine, names: Sequence[str]) -> list[SavedImage]:
    """The images with the names they are to have: those asked for, or all its tags when asked for by id."""
    chosen: dict[str, SavedImage] = {}
    for text in names:
        entry = require(engine, text)
        full: tuple[str, ...] = ()
        if not text.startswith("sha256:"):
            try:
                name = str(qualify(engine, text)[0])
                full = (name,) if name in tags(entry) else ()
            except UsageError:
                full = ()
        before = chosen.get(entry.manifest_digest)
        merged = dict.fromkeys([*(before.names if before else ()), *full])
        chosen[entry.manifest_digest] = SavedImage(entry.manifest, entry.config, tuple(merged))
    return list(chosen.values())


def _to_file(
    engine: Engine, images: Sequence[SavedImage], path: str, format: str, compression: Compression | None
) -> None:
    """Write beside `path` and rename, so that a broken save leaves no half archive; devices and pipes directly."""
    is_special = os.path.exists(path) and not os.path.isfile(path)
    temporary = path if is_special else f"{path}.{os.getpid()}.part"
    try:
        with open(temporary, "wb" if is_special else "xb") as file:
            _write(engine, images, file.write, format, compression)
        if not is_special:
            os.rename(temporary, path)
    except OSError as e:
        raise refused(f"cannot write '{path}'", e, os.path.dirname(os.path.abspath(path))) from e
    finally:
        if not is_special and os.path.exists(temporary):
            os.unlink(temporary)


def _write(
    engine: Engine,
    images: Sequence[SavedImage],
    write: Callable[[bytes], object],
    format: str,
    compression: Compression | None,
) -> None:
    if format == "oci-archive":
        converted, blobs = _exact(engine, images, compression)
        with blobs:
            write_oci_archive(converted, blobs.open, write)
        return
    # A docker-archive has plain layers: what may be compressed is the whole
    whole = None if compression is None else _Whole(write, compression)
    layers = {layer.diff_id: layer.chain_id for image in images for layer in plan(image.manifest, image.config)}
    with layer_bytes.Tars(engine, layers) as tars:
        write_docker_archive(images, lambda layer, diff_id: tars.open(diff_id), whole.write if whole else write)
    if whole is not None:
        whole.finish()


def _tar_opener(engine: Engine, layer: LayerToBring) -> Open:
    return lambda: layer_bytes.open_tar(engine, layer.diff_id, layer.chain_id)


def _exact(
    engine: Engine, images: Sequence[SavedImage], compression: Compression | None
) -> tuple[list[SavedImage], _Ahead]:
    """The images as they can be written, and their blobs: the very bytes where they can be had, and where compression
    is None; else layers compressed anew, under a new manifest."""
    blobs: dict[str, Open] = {}
    made: dict[tuple[str, str], Descriptor] = {}
    converted = []
    for image in images:
        layers = []
        for layer in plan(image.manifest, image.config):
            key = (layer.diff_id, layer.descriptor.digest)
            if key not in made:
                made[key], opener = _layer(engine, image, layer, compression)
                blobs.setdefault(made[key].digest, opener)
            layers.append(made[key])
        raw, media_type = rebuild(image.manifest, layers, format_of(image.manifest.media_type))
        manifest = image.manifest
        if raw != manifest.raw:
            found = parse_manifest(raw, media_type)
            assert isinstance(found, Manifest)
            manifest = found
            if compression is None:
                name = familiar(image.names[0]) if image.names else image.config.digest
                engine.warn(
                    f"the compressed layers of '{name}' cannot be had any more: they were compressed anew, and the "
                    f"manifest is '{manifest.digest}' instead of '{image.manifest.digest}'"
                )
        converted.append(SavedImage(manifest, image.config, image.names))
        blobs[image.config.digest] = _small(image.config.raw)
        blobs[manifest.digest] = _small(manifest.raw)
    return converted, _Ahead(blobs)


def _layer(
    engine: Engine, image: SavedImage, layer: LayerToBring, compression: Compression | None
) -> tuple[Descriptor, Open]:
    """A layer's descriptor in the archive, and what opens its bytes."""
    form = format_of(image.manifest.media_type)
    chosen = compression or Compression(layer_compression(layer.descriptor.media_type))
    is_kept = compression is None or compression.name == layer_compression(layer.descriptor.media_type)
    if is_kept and layer_bytes.has_blob(engine, layer.descriptor, layer.diff_id, layer.chain_id):
        return layer.descriptor, lambda: layer_bytes.open_blob(engine, layer.descriptor, layer.diff_id, layer.chain_id)
    if chosen.name == "none":
        size = layer_bytes.tar_size(engine, layer.diff_id, layer.chain_id)
        descriptor = layer.descriptor._replace(
            media_type=layer_type(layer.descriptor, "none", form), digest=layer.diff_id, size=size
        )
        return descriptor, _tar_opener(engine, layer)
    return _compress(engine, layer, chosen, form)


def _compress(engine: Engine, layer: LayerToBring, compression: Compression, form: str) -> tuple[Descriptor, Open]:
    """Compress a layer into a nameless file: its size and digest come before its bytes in an archive."""
    import hashlib

    incoming = engine.store.path("incoming")
    try:
        file = os.fdopen(os.open(incoming, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "w+b", buffering=0)
    except OSError as e:
        raise refused(f"cannot write to '{incoming}'", e, incoming) from e
    reader = Compressed(layer_bytes.open_tar(engine, layer.diff_id, layer.chain_id), compression)
    hasher, size = hashlib.sha256(), 0
    try:
        while piece := reader.read(_PIECE):
            hasher.update(piece)
            size += len(piece)
            file.write(piece)
    except OSError as e:
        raise refused(f"cannot write to '{incoming}'", e, incoming) from e
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


def _small(content: bytes) -> Open:
    return lambda: io.BytesIO(content)


class _Ahead:
    """Blobs by digest, to be opened once each, mostly in this order: the one after it is opened too, so that the
    process that makes it starts while this one is written."""

    __slots__ = ("_blobs", "_opened", "_order")

    def __init__(self, blobs: dict[str, Open]) -> None:
        self._blobs = blobs
        self._order = list(blobs)
        self._opened: dict[str, Reader] = {}

    def open(self, digest: str) -> Reader:
        """The blob."""
        reader = self._opened.pop(digest, None) or self._blobs[digest]()
        at = self._order.index(digest) + 1
        if at < len(self._order) and self._order[at] not in self._opened:
            self._opened[self._order[at]] = self._blobs[self._order[at]]()
        return reader

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *unused: object) -> None:
        for reader in self._opened.values():
            reader.close()
        self._opened.clear()


class _Whole:
    """Compresses what is written to it."""

    __slots__ = ("_pipe", "_write")

    def __init__(self, write: Callable[[bytes], object], compression: Compression) -> None:
        self._pipe = encoder(compression)
        self._write = write

    def write(self, piece: bytes) -> None:
        """Add bytes."""
        self._write(self._pipe.feed(piece))

    def finish(self) -> None:
        """Write what is left."""
        self._write(self._pipe.finish())
