"""Room that is kept so that removing works on a full disk: the index of images is written anew to forget an image.

The file `locks/reserve` is bytes and an inode of which nothing is read. It goes when a removal finds no room, and is
made again by the next change of the index that has some.
"""

from __future__ import annotations

import errno
import os

from rootless.paths import atomic_write

_LEAST = 1 << 16  # bytes


def write_freeing(path: str, content: bytes, reserve: str) -> None:
    """Replace file `path`, for a change that lets something be freed; on a full disk in the room of `reserve`.

    Raises OSError when that does not suffice.
    """
    try:
        atomic_write(path, content)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        try:
            os.unlink(reserve)
        except FileNotFoundError:
            raise e from None
        atomic_write(path, content)


def keep(reserve: str, wanted: int) -> None:
    """Have `reserve` hold twice `wanted` bytes, where the file system has the room."""
    size = max(_LEAST, 2 * wanted)
    try:
        fd = os.open(reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return
    try:
        if os.fstat(fd).st_size < size:
            os.posix_fallocate(fd, 0, size)
    except OSError:
        pass  # full, or a file system that cannot promise room
    finally:
        os.close(fd)
