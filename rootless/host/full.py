"""The words for a file system that takes no more: out of bytes, out of inodes, out of quota. It frees nothing."""

from __future__ import annotations

import errno
import os

from rootless.errors import HostLimit

FULL = (errno.ENOSPC, errno.EDQUOT)


def full_error(text: str, error: OSError, place: str | int) -> HostLimit:
    """The HostLimit that says `text`, what ran out and what to do. place: a path or fd on the file system at fault."""
    if error.errno == errno.EDQUOT:
        hint = "your disk quota is used up (`quota -s` shows it): free some space with `rootless system prune`"
        return HostLimit(f"{text}: {error.strerror}", hint=hint)
    if error.errno == errno.ENOSPC:
        hint = "free some space, for example with `rootless system prune`"
        try:
            found = os.statvfs(place)
        except OSError:
            return HostLimit(f"{text}: {error.strerror}", hint=hint)
        if found.f_files and found.f_favail < 2:
            return HostLimit(
                f"{text}: no inodes left on the file system",
                hint="remove files that are not needed, for example with `rootless system prune`: the file system "
                "has room for bytes, but not for more files",
            )
        return HostLimit(f"{text}: {error.strerror}", hint=hint)
    return HostLimit(f"{text}: {error.strerror}")
