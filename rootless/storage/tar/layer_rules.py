"""What a layer may contain: limits, names, and the messages about a layer that breaks them.

Layers come from strangers. The limits are far above any real layer; they keep a crafted small archive from costing
memory, inodes or time out of all proportion to its bytes.
"""

from __future__ import annotations

import errno

from rootless.errors import HostLimit, InvalidInput
from rootless.host.full import FULL, full_error

MAX_ENTRIES = 10_000_000  # members of one archive
MAX_DUPLICATES = 100_000  # members whose path an earlier member of the archive has taken; each may cost a search
MAX_DEPTH = 512  # directories on the way to a file: the tree is walked by functions that call themselves
MAX_KEPT = 64 << 20  # bytes of directories' extended attributes that are kept in memory until all files are written
WHITEOUT = b".wh."
OPAQUE_NAME = b".wh..wh..opq"
OPAQUE_XATTR = "user.overlay.opaque"


def split_path(path: bytes) -> list[bytes]:
    """The names of a path in an archive, from the root.

    Raises InvalidInput for `..`, which no layer has a use for and which could lead out of the tree, and for a name that
    is longer than the 255 bytes that the kernel takes (NAME_MAX).
    """
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise InvalidInput(f"layer has a path with '..': '{show_path(path)}'")
    if any(len(name) > 255 for name in names):
        raise InvalidInput(f"layer has a name of more than 255 bytes: '{show_path(path)}'")
    return names


def show_path(path: bytes) -> str:
    """A path as it may stand in a message: escape sequences in it could otherwise rewrite the user's terminal."""
    text = path[:200].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def member_error(error: OSError, name: bytes) -> InvalidInput | HostLimit:
    """The error for a system call that failed on the archive's member `name`.

    HostLimit when the file system is full or lacks something, InvalidInput when the archive asks for the impossible,
    such as a file below another file.
    """
    text = f"cannot unpack '{show_path(name)}'"
    if error.errno in FULL:
        return full_error(text, error, ".")
    text = f"{text}: {error.strerror}"
    if error.errno in (errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG, errno.EXDEV):
        return InvalidInput(f"{text}: the layer's entries contradict each other")
    return HostLimit(text)
