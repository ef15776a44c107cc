"""Reads single small files out of an image's layers or a running container's root, as the host. It writes nothing.

An image's author or a container's processes decide what lies there. So links are resolved inside the root, or they
would show us files of the host (CVE-2024-9341); only regular files count, sizes are bounded, and O_NONBLOCK keeps the
open of a FIFO from waiting for ever (CVE-2024-9676).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from rootless.errors import InvalidInput
from rootless.kernel.files import is_whiteout, open_in_root

MAX_FILE = 4 << 20  # bytes of a passwd or group file
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def read_from_layers(lowerdirs: Sequence[str], path: str) -> str:
    """The text of `path` in the union of `lowerdirs` (topmost first); "" when the image has no such file.

    Raises InvalidInput when it is no regular file, larger than MAX_FILE or unreadable.
    """
    for lower in lowerdirs:
        root = os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            text = read_in_root(root, path)
            if text is not None:
                return text
            if _hides_below(root, path):
                return ""
        finally:
            os.close(root)
    return ""


def read_in_root(root: int, path: str) -> str | None:
    """The text of `path` inside the directory of descriptor `root`; None when there is no such file.

    Raises InvalidInput as `read_from_layers` does.
    """
    try:
        # O_NONBLOCK: a FIFO does not make us wait for a writer; O_NOCTTY: a terminal does not become ours
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as e:
        # open(2) of a socket fails with ENXIO, and so does that of a whiteout, a character device 0:0 without a driver.
        # EACCES comes before it where a whiteout has mode 000
        if e.errno in (*_ABSENT, errno.ENXIO, errno.ELOOP) or (e.errno == errno.EACCES and _is_whiteout(root, path)):
            return None
        raise InvalidInput(f"cannot read '{path}' of the image: {e.strerror}") from e
    try:
        status = os.fstat(fd)
        if is_whiteout(status):
            return None
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(f"'{path}' of the image is not a regular file")
        chunks, size = [], 0
        while chunk := os.read(fd, 1 << 16):
            size += len(chunk)
            if size > MAX_FILE:
                raise InvalidInput(f"'{path}' of the image is larger than {MAX_FILE >> 20} MiB")
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", "surrogateescape")


def _is_whiteout(root: int, path: str) -> bool:
    try:
        fd = open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return is_whiteout(os.fstat(fd))
    finally:
        os.close(fd)


def _hides_below(root: int, path: str) -> bool:
    """Whether the layer `root` hides `path` of the layers below it, by a whiteout or opaque directory on the way."""
    names = [name for name in path.split("/") if name]
    for length in range(1, len(names) + 1):
        part = "/".join(names[:length])
        try:
            fd = open_in_root(root, part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as e:
            return e.errno not in _ABSENT
        try:
            status = os.fstat(fd)
            if not stat.S_ISDIR(status.st_mode):
                return True  # a whiteout, or a file in the place of a directory of lower layers
            try:
                if os.getxattr(f"/proc/self/fd/{fd}", "user.overlay.opaque") == b"y":
                    return True
            except OSError:
                pass
        finally:
            os.close(fd)
    return False
