"""What a layer may contain: limits, names, and the words for what breaks them.

The limits are far above any real layer; they keep a crafted one from costing more than its bytes.
"""

from __future__ import annotations

import errno

from rootless.errors import HostLimit, InvalidInput
from rootless.host.full import FULL, full_error

MAX_ENTRIES = 10_000_000
MAX_DUPLICATES = 100_000
MAX_DEPTH = 512
MAX_KEPT = 64 << 20  # bytes of extended attributes that are kept in memory until the end
WHITEOUT = b".wh."
OPAQUE_NAME = b".wh..wh..opq"
OPAQUE_XATTR = "user.overlay.opaque"


def split(path: bytes) -> list[bytes]:
    """The names of a path in an archive, from the root. Raises InvalidInput for `..`: no layer has a use for it."""
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise InvalidInput(f"layer has a path with '..': '{shown(path)}'")
    if any(len(name) > 255 for name in names):
        raise InvalidInput(f"layer has a name of more than 255 bytes: '{shown(path)}'")
    return names


def shown(path: bytes) -> str:
    """A path for a message: control characters and bytes that are no text are escaped."""
    text = path[:200].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def refusal(error: OSError, name: bytes) -> InvalidInput | HostLimit:
    """What a failed system call says about the archive, or about the host."""
    text = f"cannot unpack '{shown(name)}'"
    if error.errno in FULL:
        return full_error(text, error, ".")
    text = f"{text}: {error.strerror}"
    if error.errno in (errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG, errno.EXDEV):
        return InvalidInput(f"{text}: the layer's entries contradict each other")
    return HostLimit(text)
