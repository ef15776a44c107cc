"""Is there room? Bytes and inodes are looked at before a pull, load, import or build step begins. It writes nothing.

What a compressed layer unpacks to is known only afterwards, so only what cannot succeed is refused; the disk's own
answer (ENOSPC, EDQUOT) on the way is translated where it comes.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from rootless.errors import HostLimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.image.manifest import PlannedLayer
    from rootless.storage.store.store import Store

_RESERVE = 1 << 20  # bytes for records and directories
_INODES = 16  # of a layer: its directories and records
_PER_INODE = 1 << 20  # bytes of an archive per file, and it would be an odd one that has fewer
HINT = "free some with `rootless system prune`, or set ROOTLESS_ROOT to a directory on another file system"
QUOTA_HINT = "free some with `rootless system prune`; `quota -s` shows what your quota allows"


class Room(NamedTuple):
    """What may still be written. inodes: None = the file system has no fixed number of them. by_quota: whether the
    caller's quota is the limit, and not the file system."""

    bytes: int
    inodes: int | None
    by_quota: bool = False


def room(path: str) -> Room:
    """What the caller may still write to the file system of `path`."""
    try:
        found = os.statvfs(path)
    except OSError as e:
        raise HostLimit(f"cannot look at the file system of '{path}': {e.strerror}") from e
    # btrfs and others make inodes as they need them, and say 0 of 0
    here = Room(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)
    from rootless.kernel.quota import quota_left

    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        space, inodes = quota_left(fd)
    except OSError:
        return here  # no quotas here
    finally:
        os.close(fd)
    if space is not None and space < here.bytes:
        here = here._replace(bytes=space, by_quota=True)
    if inodes is not None and (here.inodes is None or inodes < here.inodes):
        here = here._replace(inodes=inodes, by_quota=True)
    return here


def check(path: str, what: str, *, bytes: int, inodes: int) -> Room:
    """What there is room for, when it is enough for `bytes` and `inodes`; raises HostLimit else.

    what: what needs it, as the message's subject ("image 'debian:12'").
    """
    here = room(path)
    place = "your quota for" if here.by_quota else "the file system of"
    hint = QUOTA_HINT if here.by_quota else HINT
    if here.bytes < bytes:
        raise HostLimit(
            f"{what} needs at least {_size(bytes)}, {place} '{path}' has {_size(here.bytes)} left", hint=hint
        )
    if here.inodes is not None and here.inodes < inodes:
        raise HostLimit(
            f"{what} needs at least {inodes} files (inodes), {place} '{path}' has {here.inodes} left", hint=hint
        )
    return here


def check_layers(store: Store, layers: Sequence[PlannedLayer], keep_blobs: bool) -> None:
    """Raise HostLimit when these layers of an image can find no room."""
    if not layers:
        return
    compressed = sum(layer.descriptor.size for layer in layers if layer.descriptor.digest != layer.diff_id)
    plain = sum(layer.descriptor.size for layer in layers) - compressed
    # Unpacked it is no smaller than compressed; of an uncompressed archive a part is headers
    size = compressed * (2 if keep_blobs else 1) + plain * 4 // 5
    check(
        store.path("layers"),
        f"the image ({len(layers)} layers to unpack)",
        bytes=size + _RESERVE,
        inodes=_INODES * len(layers) + (compressed + plain) // _PER_INODE,
    )


def check_archive(store: Store, size: int) -> None:
    """Raise HostLimit when the tar of a root file system of `size` bytes can find no room (compressed or not)."""
    check(store.path("layers"), "the archive", bytes=size * 4 // 5 + _RESERVE, inodes=_INODES + size // _PER_INODE)


def check_step(store: Store) -> None:
    """Raise HostLimit when there is no room for even the smallest new layer (of a commit, a build step)."""
    check(store.path("layers"), "a new layer", bytes=_RESERVE, inodes=_INODES)


def _size(count: int) -> str:
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} bytes"
