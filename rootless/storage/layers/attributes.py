"""Gives files the owner, mode and extended attributes of their archive entries, as far as id map and host allow.

Owners and modes that they do not allow are noted (storage.owners.overrides), so that layers made from the files have
them. What an image must not bring, the marks of overlay file systems, is dropped. It creates no files.
"""

from __future__ import annotations

import os
import stat

from rootless.storage.layers.layer_record import LostAttributes
from rootless.storage.owners import overrides
from rootless.storage.owners.overrides import NO_XATTR, PLANTED, Override, on_disk
from rootless.storage.tar.tarstream import BLOCK_DEVICE, CHARACTER, FIFO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.storage.tar.tarstream import TarEntry

KEPT = ("user.", "security.capability", "system.posix_acl_")
ACCESS_ACL = "system.posix_acl_access"
DEFAULT_ACL = "system.posix_acl_default"
_OURS = ("user.overlay.", "user.containers.")


class LayerAttributes:
    """Gives attributes to the files of one layer.

    uids, gids: the mapped ids as (first, count); single: whether only one id is mapped, so that directories must stay
    writable for their owner on disk. lost: what could not be kept; noted: lines for the layer's table of owners.
    """

    __slots__ = ("_gids", "_single", "_uids", "lost", "noted")

    def __init__(self, uids: list[tuple[int, int]], gids: list[tuple[int, int]], *, single: bool) -> None:
        self._uids = uids
        self._gids = gids
        self._single = single
        self.lost = LostAttributes()
        self.noted: list[bytes] = []

    def need_more(self, entry: TarEntry) -> bool:
        """Whether a directory that was just made, with the bits 0777 of its entry's mode, needs `directory`."""
        return bool(entry.xattrs or entry.mode & 0o7000 or entry.uid or entry.gid or self._single)

    @staticmethod
    def is_passed_on(entry: TarEntry) -> bool:
        """Whether files made in the directory of this entry would inherit its group (by the set-gid bit, or on a file
        system mounted with `grpid`) or its access control list."""
        return bool(entry.gid or entry.mode & stat.S_ISGID or DEFAULT_ACL in entry.xattrs)

    def directory(self, fd: int, entry: TarEntry, *, fresh: bool = True) -> None:
        """Give a directory the owner, mode and extended attributes of its entry. `fd` may be one of O_PATH.

        fresh: whether this is the first entry for it. Nothing is kept of what an earlier entry gave it.
        """
        mode = entry.mode
        owned = self.keeps(entry)
        # A user with one id must be able to delete the tree without a namespace
        noted = not owned or (self._single and mode & 0o700 != 0o700)
        if noted:
            mode = on_disk(mode, stat.S_IFDIR)
        if owned:
            os.chown(".", entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False)
        if not fresh:
            _strip(fd, entry)  # before the mode: with an access control list chmod(2) would set its mask
        os.chmod(".", mode, dir_fd=fd)
        if entry.xattrs or noted or not fresh:
            real = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            try:
                self.set_xattrs(real, entry)
                self.note(real, entry if noted else None, stat.S_IFDIR)
            finally:
                os.close(real)

    def keeps(self, entry: TarEntry) -> bool:
        """Whether the owner of an entry can be kept; it is counted as lost when it cannot."""
        if is_mapped(entry.uid, self._uids) and is_mapped(entry.gid, self._gids):
            return True
        self.lost.owners += 1
        return False

    def own(self, parent: int, path: bytes, entry: TarEntry) -> bool:
        """Give a link or pipe its owner, or note it. True when the file has the owner on disk."""
        if not self.keeps(entry):
            format = stat.S_IFIFO if entry.type == FIFO else stat.S_IFLNK
            self.noted.append(overrides.table_line(path, Override(entry.uid, entry.gid, entry.mode & 0o7777, format)))
            return False
        if entry.uid or entry.gid:
            os.chown(path.rpartition(b"/")[2], entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        return True

    def unowned_mode(self, mode: int) -> int:
        """The mode of a file that cannot have its owner. It has no set-id bits where a range of ids is mapped: the
        program would run as whoever owns the file in its owner's place."""
        return mode if self._single else mode & 0o1777

    def note(self, fd: int, entry: TarEntry | None, format: int = stat.S_IFREG) -> None:
        """Note on an open file or directory what its entry asked for; None takes away an earlier entry's note."""
        override = None
        if entry is not None:
            format = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}.get(entry.type, format)
            mode = entry.mode & 0o7777 if format == stat.S_IFDIR else self.unowned_mode(entry.mode & 0o7777)
            override = Override(entry.uid, entry.gid, mode, format, entry.device)
        elif format != stat.S_IFDIR:
            return  # files are always new
        try:
            overrides.write_override(fd, override)
        except OSError as e:
            if e.errno not in NO_XATTR:
                raise
            self.lost.xattrs += 1

    def set_xattrs(self, fd: int, entry: TarEntry) -> None:
        """Set the extended attributes of an open file. Those that an image may not bring or the host cannot keep are
        counted as lost."""
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


def _strip(fd: int, entry: TarEntry) -> None:
    """Take the attributes of an earlier entry from a directory, as far as `entry` does not set them anew."""
    real = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        for name in os.listxattr(real):
            if name.startswith(KEPT) and not name.startswith(_OURS) and name not in entry.xattrs:
                os.removexattr(real, name)
    except OSError as e:
        if e.errno not in NO_XATTR:
            raise
    finally:
        os.close(real)


def is_mapped(number: int, ranges: list[tuple[int, int]]) -> bool:
    """Whether an id is in one of the ranges (first, count)."""
    return any(first <= number < first + count for first, count in ranges)
