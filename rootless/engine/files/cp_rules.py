"""Where `cp` puts things, by docker's rules. Pure: what is there was looked up before."""

from __future__ import annotations

from typing import NamedTuple

from rootless.errors import InvalidInput, NotFound, UsageError


class CopyPlace(NamedTuple):
    """One side of a copy. container: "" for the host; path: as it was typed, "-" for a stream of the host's."""

    container: str
    path: str

    @property
    def is_stream(self) -> bool:
        """Is it standard input or output?"""
        return not self.container and self.path == "-"


class FoundDestination(NamedTuple):
    """What is at the destination. name: of the entry that a link, or the path, led to."""

    exists: bool
    is_directory: bool
    name: str


class CopyPlacing(NamedTuple):
    """inside: into the destination, which is a directory, else beside it; name: of the top of what is copied there, "."
    for the content alone."""

    inside: bool
    name: str


def parse_place(text: str) -> CopyPlace:
    """`CONTAINER:PATH`, or a path of the host: an absolute one, one that begins with a dot, or one without a colon."""
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
    """Where the source goes (docker's PrepareArchiveCopy). path: the destination as typed."""
    if found.exists and found.is_directory:
        return CopyPlacing(True, source_name)
    if found.exists:
        if source_is_directory:
            raise InvalidInput(f"cannot copy a directory to '{path}', which is a file")
        return CopyPlacing(False, found.name)
    if not source_is_directory and path.endswith(("/", "/.")):
        raise NotFound(f"no such directory: '{path}'")
    return CopyPlacing(False, found.name)
