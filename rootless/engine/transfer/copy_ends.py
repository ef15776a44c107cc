"""Opens the two ends of a copy. Registry, layout, archive, directory and store all have the same few methods then."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import Protocol

from rootless.engine.image.image_names import qualify, registries, registry_access, require
from rootless.engine.transfer import layer_bytes
from rootless.engine.transfer.blob_sources import skipped
from rootless.errors import InvalidInput, UsageError
from rootless.image import places
from rootless.image.content import Placed
from rootless.image.manifest import Descriptor, Index, Manifest, plan_layers
from rootless.image.reference import parse_reference
from rootless.storage.store.index import is_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rootless.engine.context import Engine
    from rootless.engine.image_types import RegistryOptions
    from rootless.image.content import BlobContent
    from rootless.image.distribution.destination import RegistryDestination
    from rootless.image.docker_archive import ArchiveSource
    from rootless.image.places import ImagePlace
    from rootless.image.platform import Platform
    from rootless.image.sinks import Listing, Sink
    from rootless.image.source import Reader


class CopySource(Protocol):
    """The end from which a copy reads: an image source that also shows what is at its top."""

    @property
    def names(self) -> tuple[str, ...]:
        """Full names that the place gives the image."""

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests of the indexes through which the manifest was found, and its own."""

    def top(self) -> tuple[bytes, str | None]:
        """The bytes of the manifest or index at the top, and the media type that the place gives it."""

    def fetch(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index below an index, compared with their digest. Raises DigestMismatch."""

    def manifest(self, platform: Platform) -> Manifest:
        """The manifest for `platform`."""

    def config(self, manifest: Manifest) -> bytes:
        """The config's bytes, verified."""

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Reader:
        """The content of `descriptor` from byte `offset` on."""

    def close(self) -> None:
        """Give back what is open."""


class StoreSource:
    """An image or index of the store, as the end from which a copy reads. Raises ImageNotFound, UsageError."""

    __slots__ = ("_diff_ids", "_document", "_engine", "digests", "names")

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        index = None
        try:
            index = engine.store.index.find_index(str(qualify(engine, name)[0]))
        except UsageError:
            pass  # an id
        self._document: Manifest | Index = index or require(engine, name).manifest
        self._diff_ids: dict[str, tuple[str, str]] = {}
        self.digests: tuple[str, ...] = ()
        self.names: tuple[str, ...] = ()
        if isinstance(self._document, Manifest):
            self._note(self._document)

    def top(self) -> tuple[bytes, str]:
        """The bytes of the manifest or index that the name means, and its media type."""
        return self._document.raw, self._document.media_type

    def fetch(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index below an index."""
        document = self._engine.store.index.document(descriptor.digest)
        if isinstance(document, Manifest):
            self._note(document)
        return document.raw

    def manifest(self, platform: Platform) -> Manifest:
        """The manifest for `platform`."""
        from rootless.image.source import resolve_manifest

        manifest, digests = resolve_manifest(*self.top(), platform, self.fetch)
        self.digests = tuple(digests)
        return manifest

    def config(self, manifest: Manifest) -> bytes:
        """The config's bytes, verified."""
        return self._engine.store.blobs.read(manifest.config.digest, manifest.config.size)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Reader:
        """The bytes of a blob, or of a layer as the manifest names it, from `offset` on.

        Raises NotFound when the compressed bytes of a layer are gone and cannot be had again.
        """
        if descriptor.digest in self._diff_ids:
            diff_id, chain_id = self._diff_ids[descriptor.digest]
            return skipped(layer_bytes.open_blob(self._engine, descriptor, diff_id, chain_id), offset)
        return skipped(self._engine.store.blobs.open(descriptor.digest), offset)

    def close(self) -> None:
        """Do nothing: each reader is closed by the code that reads it."""

    def _note(self, manifest: Manifest) -> None:
        if is_image(manifest):
            entry = self._engine.store.index.load(manifest.digest)
            for layer in plan_layers(manifest, entry.config):
                self._diff_ids[layer.descriptor.digest] = (layer.diff_id, layer.chain_id)


class RegistrySink:
    """A repository of a registry as the end to which a copy writes.

    origin: a repository of the same registry that has the blobs, "" where none is known.
    """

    at_once = 3

    def __init__(self, destination: RegistryDestination, origin: str) -> None:
        self._destination = destination
        self._origins = [origin] if origin else []

    def put_blob(self, content: BlobContent, on_bytes: Callable[[int], None]) -> Placed:
        """Send a blob, unless the repository has it already or can mount it from another one."""
        return self._destination.put_blob(content, origins=self._origins, on_bytes=on_bytes)

    def put_config(self, content: BlobContent) -> Placed:
        """Put a config as `put_blob` does: in a registry it is a blob like any other."""
        return self._destination.put_blob(content, origins=self._origins)

    def put_manifest(self, raw: bytes, media_type: str, *, listing: Listing | None) -> None:
        """Put a manifest by its digest; one with a listing by the tag of the destination."""
        tag = None if listing is None else self._destination.reference.tag
        self._destination.put_manifest(raw, media_type, tag=tag)

    def finish(self) -> None:
        """Do nothing: the tag, which came last, has made the image visible."""

    def close(self) -> None:
        """Close the connections to the registry."""
        self._destination.close()


@contextmanager
def open_source(engine: Engine, place: ImagePlace, options: RegistryOptions) -> Iterator[CopySource]:
    """The image at `place`, for as long as the block lasts.

    Raises ImageNotFound, InvalidInput, RegistryError, UsageError.
    """
    if place.transport in (places.LAYOUT, places.OCI_ARCHIVE, places.DOCKER_ARCHIVE):
        from rootless.engine.transfer.load import open_files
        from rootless.image.docker_archive import archive_sources

        with closing(open_files(engine.store, place.path)) as files:
            yield _chosen(archive_sources(files), place)
        return
    with closing(_source(engine, place, options)) as source:
        yield source


def _source(engine: Engine, place: ImagePlace, options: RegistryOptions) -> CopySource:
    if place.transport == places.REGISTRY:
        from rootless.image.distribution.registry import open_registry

        access = registry_access(options)
        return open_registry(parse_reference(place.name), registries(engine), access, warn=engine.warn)
    if place.transport == places.STORE:
        return StoreSource(engine, place.name)
    from rootless.image.directory import DirectorySource

    return DirectorySource(place.path)


def _chosen(sources: Sequence[ArchiveSource], place: ImagePlace) -> ArchiveSource:
    """The image of an archive or layout that `place` names, or its only one. Raises UsageError, InvalidInput."""
    if not place.name:
        if len(sources) > 1:
            names = [each.label or ", ".join(each.names) or "without a name" for each in sources]
            raise UsageError(
                f"'{place.path}' has {len(sources)} images: {', '.join(names)[:500]}",
                hint=f"name one: {place.transport}:{place.path}:NAME",
            )
        return sources[0]
    for source in sources:
        if place.name in source.labels:
            return source
    try:
        wanted = str(parse_reference(place.name))
    except UsageError:
        wanted = ""
    for source in sources:
        if wanted in source.names:
            return source
    raise InvalidInput(f"'{place.path}' has no image '{place.name}'")


def open_sink(engine: Engine, place: ImagePlace, options: RegistryOptions, source: ImagePlace) -> Sink:
    """The end to which a copy writes. source: the place it reads from. Raises UsageError, HostLimit, RegistryError."""
    if place.transport == places.REGISTRY:
        from rootless.image.distribution.destination import open_destination

        reference = parse_reference(place.name)
        if reference.digest:
            raise UsageError(f"cannot copy to '{place}'", hint="a copy goes to a tag, not to a digest")
        origin = ""
        if source.transport == places.REGISTRY:
            other = parse_reference(source.name)
            origin = other.repository if other.registry == reference.registry else ""
        return RegistrySink(
            open_destination(reference, registries(engine), registry_access(options), warn=engine.warn), origin
        )
    from rootless.image.sink_files import ArchiveFile

    if place.transport == places.DOCKER_ARCHIVE:
        from rootless.image.docker_sink import DockerArchiveSink

        if place.name:
            parse_reference(place.name)  # raises UsageError before anything is written
        return DockerArchiveSink(ArchiveFile(place.path))
    from rootless.image.sinks import DirectorySink, LayoutSink, OciArchiveSink

    if place.transport == places.DIRECTORY:
        return DirectorySink(place.path)
    return LayoutSink(place.path) if place.transport == places.LAYOUT else OciArchiveSink(ArchiveFile(place.path))
