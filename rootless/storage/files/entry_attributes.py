"""Reads what a file has besides its status: extended attributes, its noted owner, the marks of overlay file systems."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from rootless.storage.files.tree_copy import CAPABILITY, MARKS, OPAQUE_XATTRS
from rootless.storage.owners import overrides
from rootless.storage.owners.overrides import Override

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
ESCAPED = "user.overlay.overlay."
CHUNK = 1 << 20
_KEPT = ("user.", CAPABILITY, "system.posix_acl_")
_NO_XATTR = (errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EACCES)


class EntryAttributes(NamedTuple):
    """What a file carries besides its status.

    xattrs: the extended attributes that an archive may hold, sorted by name; override: the owner and mode that are
    noted on it; marked: whether an overlay file system has put marks on it; opaque: the value of the mark by which a
    directory hides lower layers, b"" when it has none.
    """

    xattrs: tuple[tuple[str, bytes], ...]
    override: Override | None
    marked: bool
    opaque: bytes


_PLAIN = EntryAttributes((), None, False, b"")


def read_attributes(file: int | str) -> EntryAttributes:
    """The attributes of an open file (not one of O_PATH), or of a path, of which a link at the end is not followed.

    Attributes that disappear or may not be read are left out. Raises any other OSError.
    """
    try:
        names = os.listxattr(file) if isinstance(file, int) else os.listxattr(file, follow_symlinks=False)
    except OSError as e:
        if e.errno in _NO_XATTR:
            return _PLAIN
        raise
    if not names:
        return _PLAIN
    kept: list[tuple[str, bytes]] = []
    override = None
    marked = False
    opaque = b""
    for name in names:
        if not name.startswith(_KEPT):
            continue
        try:
            value = os.getxattr(file, name) if isinstance(file, int) else os.getxattr(file, name, follow_symlinks=False)
        except OSError as e:
            if e.errno in _NO_XATTR:
                continue
            raise
        if name == overrides.ATTRIBUTE:
            override = overrides.parse_override(value)
        elif name.startswith(ESCAPED):
            kept.append(("user.overlay." + name[len(ESCAPED) :], value))
        elif name.startswith(MARKS):
            marked = True
            if name in OPAQUE_XATTRS:
                opaque = value
        elif not name.startswith("user.containers."):
            kept.append((name, value))
    kept.sort()
    return EntryAttributes(tuple(kept), override, marked, opaque)
