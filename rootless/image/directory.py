"""Images in skopeo's `dir:` form: `manifest.json`, and each blob in a file of its digest's digits. Reading only."""

from __future__ import annotations

from rootless.errors import InvalidInput
from rootless.image.digest import check_digest, verify_content
from rootless.image.file_sets import DirectoryFiles, read_file
from rootless.image.manifest import CONFIG_LIMIT, MANIFEST_LIMIT, Descriptor, Manifest
from rootless.image.source import Reader, read_verified, resolve_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.image.platform import Platform

VERSION = b"Directory Transport Version: 1.1\n"


class DirectorySource:
    """The one image of a directory. Raises InvalidInput for a directory that has no manifest.json."""

    __slots__ = ("_files", "digests", "names")

    def __init__(self, path: str) -> None:
        self._files = DirectoryFiles(path)
        self.digests: tuple[str, ...] = ()
        self.names: tuple[str, ...] = ()
        if not self._files.has("manifest.json"):
            self.close()
            raise InvalidInput(f"directory '{path}' has no manifest.json", hint="is it an OCI layout? then use oci:")

    def top(self) -> tuple[bytes, str | None]:
        """The manifest or index; the directory does not say its media type."""
        return read_file(self._files, "manifest.json", MANIFEST_LIMIT), None

    def manifest(self, platform: Platform) -> Manifest:
        """The manifest for `platform`. Raises InvalidInput when there is none, DigestMismatch."""
        manifest, digests = resolve_manifest(*self.top(), platform, self.fetch)
        self.digests = tuple(digests)
        return manifest

    def fetch(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest below an index, verified. Raises InvalidInput, DigestMismatch."""
        name = f"{file_name(descriptor.digest)}.manifest.json"
        return verify_content(read_file(self._files, name, MANIFEST_LIMIT), descriptor.digest, descriptor.size)

    def config(self, manifest: Manifest) -> bytes:
        """The image config's bytes, verified."""
        return read_verified(self.open_blob(manifest.config), manifest.config, CONFIG_LIMIT)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Reader:
        """The content of `descriptor` from byte `offset` on."""
        return self._files.open(file_name(descriptor.digest), offset)

    def close(self) -> None:
        """Close the directory that was opened to read in."""
        self._files.close()


def file_name(digest: str) -> str:
    """The name of the blob's file: the digits of a sha256 digest alone, those of others after their algorithm."""
    algorithm, _, encoded = check_digest(digest).partition(":")
    return encoded if algorithm == "sha256" else f"{algorithm}-{encoded}"
