"""The bytes of a layer as an archive: its tar, and the compressed blob that a manifest names. The only way to get them.

A layer lies in the store as a tree and a recipe; its compressed blob is usually gone. Readers have `read(size)` and
`close()`; bytes are checked against their digest on the way, and `read` raises DigestMismatch at the end if they differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.image.manifest import Descriptor
    from rootless.image.source import Reader


def open_tar(engine: Engine, diff_id: str, chain_id: str | None = None) -> Reader:
    """The uncompressed tar of a layer, exactly (its digest is `diff_id`).

    chain_id: which layer, when the caller knows; else one with this diff_id is searched. Raises NotFound with a hint.
    """
    raise NotImplementedError


def tar_size(engine: Engine, diff_id: str, chain_id: str | None = None) -> int:
    """Bytes of `open_tar`. Raises NotFound."""
    raise NotImplementedError


def open_blob(engine: Engine, descriptor: Descriptor, diff_id: str, chain_id: str | None = None) -> Reader:
    """The bytes that `descriptor` (a layer of a manifest) names: the blob here, or made again, or fetched again.

    Raises NotFound with a hint when none of these can be: then compress `open_tar` anew, under a new descriptor.
    """
    raise NotImplementedError
