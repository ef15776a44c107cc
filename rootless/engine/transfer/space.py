"""Whether there is room on the disk, in bytes and inodes, for a pull, load, import or build step. It writes nothing.

How large a compressed layer is when unpacked is known only afterwards. So only what cannot succeed is refused before it
begins; ENOSPC and EDQUOT on the way are translated by the code that gets them.
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
_INODES = 16  # files of a layer beside its content: its directories and records
_PER_INODE = 1 << 20  # bytes of an archive for each file in it, far more than any real archive has
HINT = "free some with `rootless system prune`, or set ROOTLESS_ROOT to a directory on another file system"
QUOTA_HINT = "free some with `rootless system prune`; `quota -s` shows what your quota allows"


class Room(NamedTuple):
    """What may still be written to a file system.

    inodes: None where it has no fixed number of them; by_quota: whether the caller's quota is the limit, and not the
    file system's room.
    """

    bytes: int
    inodes: int | None
    by_quota: bool = False


def room(path: str) -> Room:
    """What the caller may still write to the file system of `path`. Raises HostLimit when it cannot be found out."""
    try:
        found = os.statvfs(path)
    except OSError as e:
        raise HostLimit(f"cannot look at the file system of '{path}': {e.strerror}") from e
    # btrfs and others make inodes as they need them, and report 0 of 0 (statvfs(3))
    here = Room(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)
    from rootless.kernel.quota import quota_left

    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        space, inodes = quota_left(fd)
    except OSError:
        return here  # the file system has no quotas
    finally:
        os.close(fd)
    if space is not None and space < here.bytes:
        here = here._replace(bytes=space, by_quota=True)
    if inodes is not None and (here.inodes is None or inodes < here.inodes):
        here = here._replace(inodes=inodes, by_quota=True)
    return here


def check(path: str, what: str, *, bytes: int, inodes: int) -> Room:
    """What there is room for. Raises HostLimit when it is not enough for `bytes` and `inodes`.

    what: the subject of the error's text ("image 'debian:12'").
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
    """Raise HostLimit when there can be no room for these layers of an image. keep_blobs: their blobs are kept too."""
    if not layers:
        return
    compressed = sum(layer.descriptor.size for layer in layers if layer.descriptor.digest != layer.diff_id)
    plain = sum(layer.descriptor.size for layer in layers) - compressed
    # Unpacked, a layer is no smaller than compressed. Of an uncompressed tar a part is headers and padding, which the
    # unpacked files do not need
    size = compressed * (2 if keep_blobs else 1) + plain * 4 // 5
    check(
        store.path("layers"),
        f"the image ({len(layers)} layers to unpack)",
        bytes=size + _RESERVE,
        inodes=_INODES * len(layers) + (compressed + plain) // _PER_INODE,
    )


def check_archive(store: Store, size: int) -> None:
    """Raise HostLimit when there can be no room for the content of an archive of `size` bytes, compressed or not."""
    check(store.path("layers"), "the archive", bytes=size * 4 // 5 + _RESERVE, inodes=_INODES + size // _PER_INODE)


def check_step(store: Store) -> None:
    """Raise HostLimit when there is no room for even the smallest new layer (of a commit, a build step)."""
    check(store.path("layers"), "a new layer", bytes=_RESERVE, inodes=_INODES)


def _size(count: int) -> str:
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} bytes"
