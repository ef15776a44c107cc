"""Writes a tree that may be in use as a tar stream, for `export` and `cp`: directories before what is in them, names
sorted, no link followed.

Of the tree only the files with several names are remembered, so that memory does not grow with its size. It runs inside
a container's user namespace, or on the host as the user.
"""

from __future__ import annotations

import errno
import os
import stat

from rootless.kernel import mounts
from rootless.storage.files.entry_attributes import CHUNK, DIRECTORY, READ, EntryAttributes, read_attributes
from rootless.storage.files.tree_copy import CAPABILITY
from rootless.storage.tar.members import KINDS, data_segments, plain_capability, sparse_head
from rootless.storage.tar.tarheader import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    END,
    FILE,
    LINK,
    SYMLINK,
    Member,
    encode_header,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.storage.owners.noted_owners import NotedOwners

    Owner = Callable[[int, int], tuple[int, int]]

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
# File systems in which the kernel shows its own state: a copy of their files is of no use, and reading may never end
_VIEWS = {mounts.PROC_SUPER_MAGIC, mounts.SYSFS_MAGIC, mounts.CGROUP_SUPER_MAGIC, mounts.CGROUP2_SUPER_MAGIC,
          mounts.DEVPTS_SUPER_MAGIC}  # fmt: skip
_GATHERED = 1 << 18


class Archiver:
    """Writes one archive.

    write: takes all bytes that it is given; owner: translates the (uid, gid) that this process sees into those that the
    archive has, None when they are the same; table: the noted owners of links and pipes.
    size: bytes of files so far; skipped: number of sockets that were left out, since no archive can hold them.
    """

    def __init__(
        self, write: Callable[[bytes], object], *, owner: Owner | None = None, table: NotedOwners | None = None
    ) -> None:
        self._write = write
        self._owner = owner
        self._table = table
        self._linked: dict[tuple[int, int], bytes] = {}
        self._pieces: list[bytes] = []
        self._pending = 0
        self.size = 0
        self.skipped = 0

    def finish(self) -> None:
        """Write the end of the archive."""
        self._put(END)
        self._flush()

    def add(self, parent: int, name: str, path: str) -> None:
        """Add the file or tree `name` of directory `parent` (an fd) to the archive, under the name `path`.

        A symbolic link is added as a link. What disappears below `name` meanwhile is left out. Raises FileNotFoundError
        when `name` itself is not there.
        """
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            fd = os.open(name, DIRECTORY, dir_fd=parent)
            try:
                self.directory(fd, path)
            finally:
                os.close(fd)
        elif kind == stat.S_IFREG:
            fd = os.open(name, READ, dir_fd=parent)
            try:
                self.file(fd, path)
            finally:
                os.close(fd)
        elif kind == stat.S_IFSOCK:
            self.skipped += 1
        else:
            self._special(parent, name, path, status)

    def directory(self, fd: int, path: str) -> None:
        """Add an open directory as `path` ("" or ".": its content only, below no name)."""
        status = os.fstat(fd)
        inside = "" if path in ("", ".") else f"{path}/"
        self._put(encode_header(self._member(status, read_attributes(fd), os.fsencode(inside or "./"))))
        with os.scandir(fd) as entries:
            names = sorted((entry.name for entry in entries), key=os.fsencode)
        for name in names:
            try:
                if not self._is_view(fd, name, status):
                    self.add(fd, name, inside + name)
            except OSError as e:
                if e.errno not in _GONE:
                    raise

    def _is_view(self, parent: int, name: str, above: os.stat_result) -> bool:
        """Whether the directory `name` is the mount of a file system like /proc, which is left out of the archive."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if status.st_dev == above.st_dev or not stat.S_ISDIR(status.st_mode):
            return False
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            return mounts.fs_magic(fd) in _VIEWS
        finally:
            os.close(fd)

    def file(self, fd: int, path: str) -> None:
        """Add an open regular file."""
        status = os.fstat(fd)
        name = os.fsencode(path)
        member = self._member(status, read_attributes(fd), name)
        if self._is_link(status, member):
            return
        if member.kind != FILE:
            self._put(encode_header(member))  # a device, of which this is the placeholder
            return
        size = status.st_size
        self.size += size
        segments = data_segments(fd, status)
        if segments is None:
            self._put(encode_header(member._replace(size=size)))
            self._copy(fd, size)
            self._put(bytes(-size % BLOCK))
            return
        head, stored = sparse_head(member, size, segments)
        self._put(head)
        for offset, length in segments:
            os.lseek(fd, offset, os.SEEK_SET)
            self._copy(fd, length)
        self._put(bytes(-stored % BLOCK))

    def _copy(self, fd: int, size: int) -> None:
        """Write `size` bytes of a file. The header has promised them, so a file that shrinks meanwhile is filled up
        with zeros, as tar does."""
        while size:
            piece = os.read(fd, min(size, CHUNK)) or bytes(min(size, CHUNK))
            size -= len(piece)
            self._put(piece)

    def _special(self, parent: int, name: str, path: str, status: os.stat_result) -> None:
        encoded = os.fsencode(path)
        target = os.fsencode(os.readlink(name, dir_fd=parent)) if stat.S_ISLNK(status.st_mode) else b""
        noted = None if self._table is None else self._table.find(encoded, status, target)
        member = self._member(status, EntryAttributes((), noted, False, b""), encoded)
        if self._is_link(status, member):
            return
        if member.kind in (CHARACTER, BLOCK_DEVICE):
            member = member._replace(major=os.major(status.st_rdev), minor=os.minor(status.st_rdev))
        self._put(encode_header(member._replace(linkname=target)))

    def _is_link(self, status: os.stat_result, member: Member) -> bool:
        """Write a further name of a file that was written before; False when it is the first one."""
        if status.st_nlink < 2:
            return False
        first = self._linked.setdefault((status.st_dev, status.st_ino), member.name)
        if first == member.name:
            return False
        # The header repeats all attributes of the file: other tools set them again for each name
        self._put(encode_header(member._replace(kind=LINK, linkname=first)))
        return True

    def _member(self, status: os.stat_result, here: EntryAttributes, name: bytes) -> Member:
        kind, major, minor = KINDS[stat.S_IFMT(status.st_mode)], 0, 0
        mode = 0o777 if kind == SYMLINK else stat.S_IMODE(status.st_mode)
        override = here.override
        if override is not None and override.applies_to(status):
            uid, gid, mode = override.uid, override.gid, override.mode_now(status.st_mode)
            if override.is_device:
                kind, major, minor = KINDS[override.format], *override.device
        elif self._owner is not None:
            uid, gid = self._owner(status.st_uid, status.st_gid)
        else:
            uid, gid = status.st_uid, status.st_gid
        xattrs = tuple((key, plain_capability(value) if key == CAPABILITY else value) for key, value in here.xattrs)
        return Member(name, kind, mode, uid, gid, 0, status.st_mtime_ns, b"", major, minor, xattrs)

    def _put(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._pending += len(piece)
            if self._pending >= _GATHERED:
                self._flush()

    def _flush(self) -> None:
        self._write(b"".join(self._pieces))
        self._pieces.clear()
        self._pending = 0
