"""The rules of docker by which `cp` chooses where files go. Pure: the caller has looked up what is there."""

from __future__ import annotations

from typing import NamedTuple

from rootless.errors import InvalidInput, NotFound, UsageError


class CopyPlace(NamedTuple):
    """One side of a copy. container: its name, "" for the host; path: as it was typed, "-" for a standard stream."""

    container: str
    path: str

    @property
    def is_stream(self) -> bool:
        """Whether this is standard input or output."""
        return not self.container and self.path == "-"


class FoundDestination(NamedTuple):
    """What is at the destination. name: the last name of the path to which a link, or the path itself, led."""

    exists: bool
    is_directory: bool
    name: str


class CopyPlacing(NamedTuple):
    """Where a copy goes.

    inside: into the destination, which is a directory; else into the directory above it. name: the one that the copy's
    top has there, "." where only the content of a directory is copied.
    """

    inside: bool
    name: str


def parse_place(text: str) -> CopyPlace:
    """The side of a copy that `text` names: `CONTAINER:PATH`, or a path of the host.

    Paths of the host are those that begin with a slash or a dot, or have no colon. Raises UsageError.
    """
    container, colon, path = text.partition(":")
    if text.startswith(("/", ".")) or not colon or not container:
        if not text:
            raise UsageError("a path to copy is empty")
        return CopyPlace("", text)
    if not path:
        raise UsageError(f"'{text}' has no path behind the container's name")
    return CopyPlace(container, path)


def base_name(path: str) -> str:
    """The last name of a path, "." when it asks for a directory's content (`DIR/.`) or for the root."""
    if path.endswith("/.") or path.strip("/") in ("", "."):
        return "."
    return path.rstrip("/").rpartition("/")[2]


def choose(source_name: str, source_is_directory: bool, path: str, found: FoundDestination) -> CopyPlacing:
    """Where the source goes, by the rules of docker's PrepareArchiveCopy.

    source_name: "." for a directory's content; path: the destination as typed; found: what is there. Raises
    InvalidInput for a directory onto a file, NotFound for a file into a directory that does not exist.
    """
    if found.exists and found.is_directory:
        return CopyPlacing(True, source_name)
    if found.exists:
        if source_is_directory:
            raise InvalidInput(f"cannot copy a directory to '{path}', which is a file")
        return CopyPlacing(False, found.name)
    if not source_is_directory and path.endswith(("/", "/.")):
        raise NotFound(f"no such directory: '{path}'")
    return CopyPlacing(False, found.name)
