"""Owner, mode and extended attributes of archive entries, as far as the id map and the host can keep them.

What an image must not bring (the marks of overlay file systems) is dropped here. It creates no files.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootless.storage.tarstream import Entry

# Marks of overlay file systems: an image that brings its own could delete or redirect what is below it
PLANTED = ("user.overlay.", "trusted.", "user.fuseoverlayfs.", "user.containers.", "overlay.")
KEPT = ("user.", "security.capability", "system.posix_acl_")
NO_XATTR = (errno.ENOTSUP, errno.EPERM, errno.EINVAL, errno.EACCES)


class Lost:
    """Counts of what could not be kept: owners that the id map lacks, device nodes, extended attributes."""

    __slots__ = ("devices", "owners", "xattrs")

    def __init__(self) -> None:
        self.devices = 0
        self.owners = 0
        self.xattrs = 0

    def to_json(self) -> dict[str, int]:
        """The counts as JSON values."""
        return {"devices": self.devices, "owners": self.owners, "xattrs": self.xattrs}


class Attributes:
    """What can be kept. uids, gids: mapped ids as (first, count); single: only one id is, so that directories stay
    writable for their owner."""

    __slots__ = ("_gids", "_single", "_uids", "lost")

    def __init__(self, uids: list[tuple[int, int]], gids: list[tuple[int, int]], *, single: bool) -> None:
        self._uids = uids
        self._gids = gids
        self._single = single
        self.lost = Lost()

    def need_more(self, entry: Entry) -> bool:
        """Whether a directory just made with the plain mode bits of its entry lacks something yet."""
        return bool(entry.xattrs or entry.mode & 0o7000 or entry.uid or entry.gid or self._single)

    def directory(self, fd: int, entry: Entry) -> None:
        """Owner, mode and extended attributes; `fd` may be an O_PATH one."""
        mode = entry.mode
        if self._single:
            mode |= 0o700  # the user must be able to delete what is in it without a namespace
        if self.keeps(entry):
            os.chown(".", entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False)
        os.chmod(".", mode, dir_fd=fd)
        if entry.xattrs:
            real = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            try:
                self.set_xattrs(real, entry)
            finally:
                os.close(real)

    def keeps(self, entry: Entry) -> bool:
        """Can this owner be kept? Counts it as lost when it cannot."""
        if _within(entry.uid, self._uids) and _within(entry.gid, self._gids):
            return True
        self.lost.owners += 1
        return False

    def own(self, parent: int, name: bytes, entry: Entry) -> None:
        """Owner of an entry that is no directory and is not open."""
        if self.keeps(entry) and (entry.uid or entry.gid):
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)

    def set_xattrs(self, fd: int, entry: Entry) -> None:
        """Extended attributes of an open file; what the image may not bring or the host cannot keep is counted."""
        for name, value in entry.xattrs.items():
            if name.startswith(PLANTED) or not name.startswith(KEPT):
                self.lost.xattrs += 1
                continue
            try:
                os.setxattr(fd, name, value)
            except OSError as e:
                if e.errno not in NO_XATTR:
                    raise
                self.lost.xattrs += 1


def _within(number: int, ranges: list[tuple[int, int]]) -> bool:
    return any(first <= number < first + count for first, count in ranges)
