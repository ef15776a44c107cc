"""The verb `load`: all images of an archive or layout go into the store, under the names that they have there."""

from __future__ import annotations

import os
import stat
import sys

from rootless.engine import events
from rootless.engine.image.image_names import familiar
from rootless.engine.image_types import LoadedImage, PullEvent
from rootless.engine.transfer.image_bring import bring
from rootless.errors import HostLimit, InvalidInput, UsageError
from rootless.image.manifest import Descriptor
from rootless.image.platform import host_platform, parse_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from rootless.engine.context import Engine
    from rootless.image.file_sets import FileSet
    from rootless.image.platform import Platform
    from rootless.image.source import ImageSource
    from rootless.storage.store.store import Store


def load_images(
    engine: Engine,
    source: str | BinaryIO,
    *,
    platform: str | None = None,
    progress: Callable[[PullEvent], None] | None = None,
) -> list[LoadedImage]:
    """Bring every image of an archive or layout into the store.

    source: the path of a docker-archive, oci-archive or OCI layout, "-" for standard input, or a stream; platform: the
    one to choose from an index, None for the host's. progress is called from this thread only. Raises UsageError,
    InvalidInput, DigestMismatch, HostLimit.
    """
    from rootless.image.docker_archive import archive_sources

    wanted = parse_platform(platform) if platform else host_platform()
    store = engine.store
    with store.using():
        files = open_files(store, source)
        try:
            loaded = [_load(engine, each, wanted, progress) for each in archive_sources(files)]
        finally:
            files.close()
    for image in loaded:
        events.record_image(engine, "load", image.id, next(iter(image.names), ""))
    return loaded


def open_files(store: Store, source: str | BinaryIO) -> FileSet:
    """The files of a layout directory or of an archive, which may be compressed or come from a pipe.

    What cannot be read at random positions is first copied into a file without a name in the store's incoming
    directory, of which a kill leaves nothing. Raises UsageError, InvalidInput, HostLimit.
    """
    from rootless.image.file_sets import DirectoryFiles, TarFiles

    if isinstance(source, str) and source != "-":
        if os.path.isdir(source):
            return DirectoryFiles(source)
        stream = open_input(source)
    else:
        stream = sys.stdin.buffer if isinstance(source, str) else source
    try:
        archive = seekable(store, stream)
    except BaseException:
        if isinstance(source, str) and source != "-":
            stream.close()
        raise
    try:
        return TarFiles(archive)
    except BaseException:
        archive.close()
        raise


def open_input(path: str) -> BinaryIO:
    """Open the file that the user named. Raises UsageError."""
    try:
        return open(path, "rb")
    except OSError as e:
        raise UsageError(f"cannot read '{path}': {e.strerror}") from e


def seekable(store: Store, stream: BinaryIO) -> BinaryIO:
    """`stream` itself when it is an uncompressed file, else a copy of its decompressed bytes in a file without a name.

    Raises InvalidInput for damaged compressed bytes, HostLimit.
    """
    from rootless.image.decompress import HEAD, PlainBytes, compression_of

    head = stream.read(HEAD)
    if compression_of(head) is None:
        try:
            stream.seek(0)
            if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return stream
        except (OSError, ValueError):
            pass  # a pipe, or a stream in memory
        else:
            head = b""
    plain = PlainBytes(head, stream)
    incoming = store.path("incoming")
    try:
        fd = os.open(incoming, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise HostLimit(f"cannot write to '{incoming}': {e.strerror}") from e
    copy = os.fdopen(fd, "w+b", buffering=0)
    try:
        while piece := plain.read(1 << 20):
            copy.write(piece)
        copy.seek(0)
    except OSError as e:
        copy.close()
        raise HostLimit(f"cannot copy the archive into '{incoming}': {e.strerror or e}") from e
    return copy


def _load(
    engine: Engine, source: ImageSource, wanted: Platform, progress: Callable[[PullEvent], None] | None
) -> LoadedImage:
    store = engine.store
    manifest = source.manifest(wanted)
    bring(engine, source, manifest, progress)
    descriptor = Descriptor(manifest.media_type, manifest.digest, len(manifest.raw))
    replaced = []
    if not source.names:
        store.index.add(descriptor)
    for name in source.names:
        if "@" in name:
            raise InvalidInput(f"the archive claims to be '{familiar(name)}', which only a registry can say")
        previous = store.index.resolve(name)
        store.index.tag(name, descriptor)
        if previous is not None and previous.config_digest != manifest.config.digest:
            replaced.append((familiar(name), previous.config_digest))
            warn_of_lost_name(engine, name, previous.config_digest)
    return LoadedImage(manifest.config.digest, tuple(familiar(name) for name in source.names), tuple(replaced))


def warn_of_lost_name(engine: Engine, name: str, image_id: str) -> None:
    """Warn that `name` (in full) means another image than before, and that the image `image_id` has lost it.

    An archive that changes the meaning of a name silently makes the next `run` of that name start the program of the
    archive's author (CVE-2026-50195).
    """
    engine.warn(f"The image {familiar(name)} already exists, renaming the old one with ID {image_id} to empty string")
