"""What of elsewhere a build used, for its provenance: images, repositories and downloads, each with its digest."""

from __future__ import annotations

import threading
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.image.platform import Platform
    from rootless.image.reference import Reference


class Material(NamedTuple):
    """One thing that a build used. uri: its address, or the package URL of an image; algorithm, digits: its digest."""

    uri: str
    algorithm: str
    digits: str

    def to_json(self) -> dict[str, object]:
        """The material as SLSA's provenance has it."""
        return {"uri": self.uri, "digest": {self.algorithm: self.digits}}


class Materials:
    """All that one build used. Several threads may add to it.

    context: the main context where it is a repository or a download, None for a local one; entry_point: the Dockerfile,
    "" where it has no name; locals: the contexts of the user's own files, of which no digest is known; is_complete:
    nothing else came in without a digest.
    """

    def __init__(self) -> None:
        self.context: Material | None = None
        self.entry_point = ""
        self.locals: set[str] = set()
        self.is_complete = True
        self._images: dict[Material, None] = {}
        self._others: dict[Material, None] = {}
        self._lock = threading.Lock()

    @property
    def found(self) -> list[Material]:
        """The images, then the rest, both sorted by their addresses."""
        with self._lock:
            return sorted(self._images) + sorted(self._others)

    def add_image(self, uri: str, digest: str) -> None:
        """Add an image by its package URL. digest: of its manifest or index."""
        algorithm, _, digits = digest.partition(":")
        with self._lock:
            self._images[Material(uri, algorithm, digits)] = None

    def add_fetched(self, text: str, identity: str) -> Material:
        """Add what was fetched from the address `text`, and return it. identity: as in `Fetched`."""
        algorithm, _, rest = identity.partition(":")
        digits = rest
        if algorithm == "git":
            digits = rest.partition(":")[0]
            algorithm = "sha1" if len(digits) == 40 else "sha256"
        material = Material(without_password(text), algorithm, digits)
        with self._lock:
            self._others[material] = None
        return material

    def copy(self) -> Materials:
        """The same, to which can be added without a change to this one."""
        new = Materials()
        new.context, new.entry_point, new.is_complete = self.context, self.entry_point, self.is_complete
        new.locals = set(self.locals)
        new._images, new._others = dict(self._images), dict(self._others)
        return new


def image_uri(reference: Reference, platform: Platform) -> str:
    """The package URL of an image, as BuildKit writes it: `pkg:docker/alpine@3.20?platform=linux%2Famd64`."""
    version = f"@{reference.tag}" if reference.tag else ""
    digest = f"digest={reference.digest}&" if reference.digest else ""
    return f"pkg:docker/{reference.familiar_name}{version}?{digest}{_platform(platform)}"


def layout_uri(name: str, digest: str, platform: Platform) -> str:
    """The package URL of an image of an OCI layout, which the build calls `name`. digest: of its manifest."""
    from urllib.parse import quote

    return f"pkg:oci/{quote(name, safe='')}?digest={digest}&{_platform(platform)}"


def _platform(platform: Platform) -> str:
    return f"platform={str(platform).replace('/', '%2F')}"


def without_password(text: str) -> str:
    """The address `text` without the user and the password in it; the user `git` is no secret and stays."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
    except ValueError:
        return text
    user, at, host = parts.netloc.rpartition("@")
    if not parts.scheme or not at or user == "git":
        return text
    return parts._replace(netloc=f"{'xxxxx:xxxxx' if ':' in user else 'xxxxx'}@{host}").geturl()
