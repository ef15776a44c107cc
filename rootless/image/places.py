"""Names of places where images live, as skopeo and podman write them: `docker://NAME`, `oci:DIR:TAG`, … Pure."""

from __future__ import annotations

from typing import NamedTuple

from rootless.errors import UsageError

REGISTRY = "docker"
LAYOUT = "oci"
OCI_ARCHIVE = "oci-archive"
DOCKER_ARCHIVE = "docker-archive"
DIRECTORY = "dir"
STORE = "rootless"
TRANSPORTS = (REGISTRY, LAYOUT, OCI_ARCHIVE, DOCKER_ARCHIVE, DIRECTORY, STORE)
_STORE_NAMES = ("rootless", "containers-storage")


class ImagePlace(NamedTuple):
    """A place where an image lives.

    transport: one of TRANSPORTS. path: of the file or directory, "" for a registry and the store. name: the reference
    or tag in that place, "" when none is given.
    """

    transport: str
    path: str
    name: str

    def __str__(self) -> str:
        if self.transport == REGISTRY:
            return f"docker://{self.name}"
        return f"{self.transport}:{':'.join(part for part in (self.path, self.name) if part)}"

    @property
    def scope(self) -> str:
        """What policy.json calls the place within its transport."""
        return self.name if self.transport == REGISTRY else self.path


def parse_place(text: str) -> ImagePlace:
    """The place that `text` means; without a transport it is an image of the store. Raises UsageError."""
    transport, colon, rest = text.partition(":")
    if transport == REGISTRY and colon:
        if not rest.startswith("//") or not rest[2:]:
            raise UsageError(f"invalid place '{text}'", hint="write docker://REGISTRY/REPOSITORY[:TAG]")
        return ImagePlace(REGISTRY, "", rest[2:])
    if colon and transport in _STORE_NAMES:
        return ImagePlace(STORE, "", _required(rest, text))
    if colon and transport in (LAYOUT, OCI_ARCHIVE, DOCKER_ARCHIVE):
        # The first colon ends the path, as with skopeo: a path that has one itself cannot be written here
        path, _, name = _required(rest, text).partition(":")
        return ImagePlace(transport, _required(path, text), name)
    if colon and transport == DIRECTORY:
        return ImagePlace(DIRECTORY, _required(rest, text), "")
    if colon and "/" not in transport and transport in ("docker-daemon", "sif", "ostree", "tarball"):
        raise UsageError(f"transport '{transport}' is not known here", hint=f"use one of: {', '.join(TRANSPORTS)}")
    return ImagePlace(STORE, "", _required(text, text))


def _required(part: str, text: str) -> str:
    if not part:
        raise UsageError(f"invalid place '{text}'", hint="a path or a name is missing after the transport")
    return part
