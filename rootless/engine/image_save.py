"""The verb `save`: images out of the store into an archive or a layout."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rootless.engine.image_names import qualify, require, tags
from rootless.errors import DigestMismatch, HostLimit, UsageError
from rootless.image.decompress import HEAD, Plain
from rootless.image.writers import SavedImage, write_docker_archive, write_layout, write_oci_archive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from rootless.engine.context import Engine
    from rootless.image.manifest import Descriptor
    from rootless.image.source import Reader
    from rootless.storage.store import Store

FORMATS = ("docker-archive", "oci-archive", "oci-dir")


def save(engine: Engine, names: Sequence[str], output: str | BinaryIO, *, format: str = "docker-archive") -> None:
    """See engine.images.Images.save."""
    if format not in FORMATS:
        raise UsageError(f"unknown format '{format}'", hint=f"use one of: {', '.join(FORMATS)}")
    if not names:
        raise UsageError("no image to save")
    store = engine.store
    with store.using():
        images = _chosen(engine, names)
        if format == "oci-dir":
            if not isinstance(output, str) or output == "-":
                raise UsageError("an OCI layout needs the name of a directory", hint="give --output DIRECTORY")
            write_layout(images, _verified(store), output)
        elif isinstance(output, str) and output != "-":
            _to_file(store, images, output, format)
        else:
            stream = sys.stdout.buffer if isinstance(output, str) else output
            _write(store, images, stream.write, format)
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


def _to_file(store: Store, images: Sequence[SavedImage], path: str, format: str) -> None:
    """Write beside `path` and rename, so that a broken save leaves no half archive; devices and pipes directly."""
    is_special = os.path.exists(path) and not os.path.isfile(path)
    temporary = path if is_special else f"{path}.{os.getpid()}.part"
    try:
        with open(temporary, "wb" if is_special else "xb") as file:
            _write(store, images, file.write, format)
        if not is_special:
            os.rename(temporary, path)
    except OSError as e:
        raise HostLimit(f"cannot write '{path}': {e.strerror}") from e
    finally:
        if not is_special and os.path.exists(temporary):
            os.unlink(temporary)


def _write(store: Store, images: Sequence[SavedImage], write: Callable[[bytes], object], format: str) -> None:
    if format == "oci-archive":
        write_oci_archive(images, _verified(store), write)
    else:
        write_docker_archive(images, lambda layer, diff_id: _open_layer(store, layer, diff_id), write)


def _verified(store: Store) -> Callable[[str], Reader]:
    """Opens blobs whose bytes are checked while they go out: a damaged store must not make a damaged archive."""
    return lambda digest: Checked(store.blobs.open(digest), digest)


class Checked:
    """A reader that compares all bytes with their digest at the end."""

    __slots__ = ("_digest", "_hash", "_reader")

    def __init__(self, reader: Reader, digest: str) -> None:
        import hashlib

        self._reader = reader
        self._digest = digest
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        piece = self._reader.read(size)
        self._hash.update(piece)
        return piece

    def close(self) -> None:
        """Compare and close. Raises DigestMismatch when everything was read and is not what it should be."""
        is_end = not self._reader.read(1)
        self._reader.close()
        if is_end and f"sha256:{self._hash.hexdigest()}" != self._digest:
            raise DigestMismatch(
                f"blob '{self._digest}' is damaged: its bytes have another digest", hint="pull the image again"
            )


def _open_layer(store: Store, layer: Descriptor, diff_id: str) -> tuple[int, Reader]:
    """Size and bytes of a layer's tar. A compressed one is read twice: a tar header comes before the content."""
    if layer.digest == diff_id:
        return layer.size, Checked(store.blobs.open(diff_id), diff_id)
    size = 0
    with store.blobs.open(layer.digest) as blob:
        plain = Plain(blob.read(HEAD), blob)
        while piece := plain.read(1 << 20):
            size += len(piece)
    blob = store.blobs.open(layer.digest)
    return size, Checked(_Closing(Plain(blob.read(HEAD), blob), blob), diff_id)


class _Closing:
    """Decompressed bytes whose file is closed with them."""

    __slots__ = ("_file", "_plain")

    def __init__(self, plain: Plain, file: BinaryIO) -> None:
        self._plain = plain
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        return self._plain.read(size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
