"""What every place where images live looks like to a pull: one small protocol that registry and archives follow."""

from __future__ import annotations

from typing import Protocol

from rootless.errors import InvalidInput
from rootless.image.digest import verify_content
from rootless.image.manifest import CONFIG_LIMIT, CONFIG_TYPES, Descriptor, Manifest, parse_manifest, select_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.image.platform import Platform

_MAX_NESTING = 4  # each level may cost a request, and a hostile registry could nest its indexes for ever


class Reader(Protocol):
    """A stream of bytes that must be closed."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, empty at the end."""

    def close(self) -> None:
        """Give back what the stream holds; harmless twice."""


class ImageSource(Protocol):
    """One image in one place. Manifests and configs come back verified; blobs must be hashed by who reads them."""

    @property
    def names(self) -> tuple[str, ...]:
        """Full names that the place gives this image."""

    @property
    def digests(self) -> tuple[str, ...]:
        """After `manifest`: the digests under which the place knows it, of the manifest and of the index above it."""

    def manifest(self, platform: Platform) -> Manifest:
        """The manifest for `platform`. Raises InvalidInput when there is none, DigestMismatch."""

    def config(self, manifest: Manifest) -> bytes:
        """The image config's bytes, verified."""

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Reader:
        """The content of `descriptor` from byte `offset` on, not verified."""

    def close(self) -> None:
        """Give back connections and files."""


def resolve_manifest(
    raw: bytes, media_type: str | None, platform: Platform, fetch: Callable[[Descriptor], bytes]
) -> tuple[Manifest, list[str]]:
    """Follow indexes (nested ones too) to the manifest for `platform`.

    fetch: gives the bytes that a descriptor names, verified. Returns the manifest and the digests of all documents on
    the way, the outermost first. Raises InvalidInput, also for an artifact that is no container image.
    """
    digests = []
    for _ in range(_MAX_NESTING):
        document = parse_manifest(raw, media_type)
        digests.append(document.digest)
        if isinstance(document, Manifest):
            return check_image(document), digests
        chosen = select_manifest(document, platform)
        raw, media_type = fetch(chosen), chosen.media_type
    raise InvalidInput(f"indexes are nested more than {_MAX_NESTING} deep")


def check_image(manifest: Manifest) -> Manifest:
    """`manifest` when it is of a container image; an artifact (Helm chart, signature, ...) raises InvalidInput."""
    if manifest.config.media_type not in CONFIG_TYPES:
        raise InvalidInput(
            f"'{manifest.digest}' is not a container image: its config has type '{manifest.config.media_type[:100]}'"
        )
    if manifest.config.size > CONFIG_LIMIT:
        raise InvalidInput(f"image config of {manifest.config.size} bytes is larger than {CONFIG_LIMIT}")
    return manifest


def read_verified(reader: Reader, descriptor: Descriptor, limit: int) -> bytes:
    """All bytes of a small blob, verified; the reader is closed.

    Raises InvalidInput when the blob is larger than `limit` bytes, DigestMismatch.
    """
    if descriptor.size > limit:
        raise InvalidInput(f"blob '{descriptor.digest}' of {descriptor.size} bytes is larger than {limit}")
    pieces = []
    left = descriptor.size + 1  # the byte too many shows content that is too long, of which no more is held in memory
    try:
        while left > 0 and (piece := reader.read(left)):
            pieces.append(piece)
            left -= len(piece)
    finally:
        reader.close()
    return verify_content(b"".join(pieces), descriptor.digest, descriptor.size)
