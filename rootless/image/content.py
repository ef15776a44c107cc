"""Bytes on their way to a place where images live, and how the place came to have them. It sends and writes nothing."""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.image.source import Reader


class BlobContent(NamedTuple):
    """A blob that is to be put into a place where images live.

    open: gives a new reader of the blob from a byte offset on. Every call must give the same bytes, since an upload
    that breaks off opens the blob again where it ended. digest, size (bytes): None where they are known only at the end
    (a layer that is compressed while it is sent).
    """

    open: Callable[[int], Reader]
    digest: str | None = None
    size: int | None = None


class Placed(NamedTuple):
    """What became of a blob that was put into a place.

    how: "there" (the place had it before), "mounted" (the registry took it from its repository `origin`) or "sent".
    """

    digest: str
    size: int
    how: str
    origin: str = ""


def begin_reading(content: BlobContent) -> BlobContent:
    """The same content with its first reader opened already: a blob that cannot be opened raises its error here.

    Callers do so before they begin something that would be left behind, such as an upload.
    """
    waiting = [content.open(0)]

    def open_at(offset: int) -> Reader:
        if not offset and waiting:
            return waiting.pop()
        return content.open(offset)

    return content._replace(open=open_at)
