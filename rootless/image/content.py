"""Bytes on their way to a place where images live, and how the place came to have them. It sends and writes nothing."""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.image.source import Reader


class BlobContent(NamedTuple):
    """Bytes to put somewhere. open: a reader from that byte on, each time the same bytes.

    digest, size: None where they are known only at the end (a layer that is compressed while it is sent).
    """

    open: Callable[[int], Reader]
    digest: str | None = None
    size: int | None = None


class Placed(NamedTuple):
    """How a blob came to be there. how: "there", "mounted" (origin: from which repository) or "sent"."""

    digest: str
    size: int
    how: str
    origin: str = ""


def begin_reading(content: BlobContent) -> BlobContent:
    """The same content with its first reader opened already, so that what opening it raises is raised now."""
    waiting = [content.open(0)]

    def open_at(offset: int) -> Reader:
        if not offset and waiting:
            return waiting.pop()
        return content.open(offset)

    return content._replace(open=open_at)
