"""The verbs `image attach` and `image referrers`: artifacts beside an image in its registry."""

from __future__ import annotations

import hashlib
import os

from rootless.engine.image.image_names import qualify, registries, registry_access
from rootless.engine.image_types import ArtifactOptions, Attached, RegistryOptions
from rootless.engine.transfer.blob_sources import bytes_content
from rootless.errors import UsageError
from rootless.image.content import BlobContent
from rootless.image.digest import digest_of
from rootless.image.distribution.referrers import EMPTY, Referrer, add_to_tag, artifact_manifest, list_referrers
from rootless.image.manifest import Descriptor, parse_manifest
from rootless.image.platform import parse_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from rootless.engine.context import Engine
    from rootless.image.distribution.registry import RegistrySource
    from rootless.image.reference import Reference

_TITLE = "org.opencontainers.image.title"
_DEFAULT_TYPE = "application/octet-stream"
_UNKNOWN = "application/vnd.unknown.artifact.v1"


def attach_artifact(
    engine: Engine,
    image: str,
    files: Sequence[str],
    options: ArtifactOptions | None = None,
) -> Attached:
    """Push files (`PATH[:MEDIATYPE]`) as an artifact whose subject is an image of a registry.

    The artifact is a manifest by the image specification's manifest.md ("Guidelines for Artifact Usage"); a registry
    without the referrers API gets the list of it under a tag (distribution-spec, "Referrers Tag Schema"). Raises
    UsageError, ImageNotFound, RegistryError.
    """
    from rootless.image.distribution.destination import open_destination

    found = [_file(text) for text in files]
    reference, _ = qualify(engine, image)
    options = options or ArtifactOptions()
    artifact_type = options.type or _UNKNOWN
    subject = _subject(engine, reference, options.platform, options.registry)
    raw = artifact_manifest(subject, artifact_type, [descriptor for _, descriptor in found], options.annotations)
    new = Referrer(digest_of(raw), artifact_type, "", len(raw), dict(options.annotations))
    access = registry_access(options.registry)
    destination = open_destination(reference, registries(engine), access, warn=engine.warn)
    try:
        for path, descriptor in found:
            destination.put_blob(_content(path, descriptor))
        destination.put_blob(bytes_content(EMPTY, digest_of(EMPTY)))
        media_type = parse_manifest(raw).media_type
        response = destination.put_manifest(raw, media_type)
        if not response.headers.get("OCI-Subject"):
            add_to_tag(destination, subject.digest, new._replace(media_type=media_type))
    finally:
        destination.close()
    return Attached(str(reference.with_digest(new.digest)), new.digest, subject.digest)


def image_referrers(
    engine: Engine,
    image: str,
    *,
    artifact_type: str = "",
    platform: str | None = None,
    registry: RegistryOptions | None = None,
) -> list[Referrer]:
    """The artifacts whose subject is an image of a registry (distribution-spec, "Listing Referrers").

    artifact_type: only those of this media type ("": all); platform: of an index, those of the image for this platform
    (None: those of the index itself). Raises UsageError, ImageNotFound, RegistryError.
    """
    reference, _ = qualify(engine, image)
    source = _open(engine, reference, registry or RegistryOptions())
    try:
        subject = _descriptor(source, platform)
        return list_referrers(source.session, source.repository, subject.digest, artifact_type)
    finally:
        source.close()


def _open(engine: Engine, reference: Reference, options: RegistryOptions) -> RegistrySource:
    """Open the registry itself and none of its mirrors, which may not have the artifacts of an image."""
    from rootless.image.distribution.registry import open_repository

    return open_repository(reference, registries(engine), registry_access(options), warn=engine.warn)


def _subject(engine: Engine, reference: Reference, platform: str | None, options: RegistryOptions) -> Descriptor:
    source = _open(engine, reference, options)
    try:
        return _descriptor(source, platform)
    finally:
        source.close()


def _descriptor(source: RegistrySource, platform: str | None) -> Descriptor:
    """The descriptor of the index or manifest that the name means; with a platform, that of its manifest."""
    if platform:
        return source.manifest(parse_platform(platform)).descriptor
    raw, media_type = source.top()
    document = parse_manifest(raw, media_type)
    return Descriptor(document.media_type, document.digest, len(raw))


def _file(text: str) -> tuple[str, Descriptor]:
    """The path in a text `PATH[:MEDIATYPE]`, and the descriptor of the layer that the file becomes.

    Raises UsageError for a file that cannot be read.
    """
    path, colon, media_type = text.rpartition(":")
    if not colon or "/" not in media_type or os.path.exists(text):
        path, media_type = text, _DEFAULT_TYPE
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as e:
        raise UsageError(f"cannot read '{path}': {e.strerror}") from e
    return path, Descriptor(media_type, f"sha256:{digest}", size, None, {_TITLE: os.path.basename(path)})


def _content(path: str, descriptor: Descriptor) -> BlobContent:
    def open_at(offset: int) -> BinaryIO:
        file = open(path, "rb")
        file.seek(offset)
        return file

    return BlobContent(open_at, descriptor.digest, descriptor.size)
