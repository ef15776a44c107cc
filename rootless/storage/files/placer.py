"""Puts the members of a tar into a tree that is in use, for `cp`. It stays below one directory.

Another process may change the tree meanwhile, so each directory is opened by name below the one above it, and no
symbolic link is followed unless the caller's `follow` resolves it. The caller also says whose files the members become
and what may be overwritten. It runs inside a container's user namespace, or on the host as the user.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from rootless.errors import InvalidInput, InvalidState
from rootless.kernel.files import chmod_special
from rootless.storage.files.entry_attributes import DIRECTORY
from rootless.storage.files.removal import delete_at
from rootless.storage.owners import overrides
from rootless.storage.owners.overrides import NO_XATTR, PLANTED, Override
from rootless.storage.tar.layer_rules import show_path
from rootless.storage.tar.tarstream import BLOCK_DEVICE, CHARACTER, FIFO, FILE, LINK, SYMLINK, TarEntry, TarStream
from rootless.storage.tar.tarstream import DIRECTORY as DIRECTORY_KIND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.image.decompress import ByteSource

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: without it, open(2) of a FIFO that has taken the file's name would wait for a reader for ever
_THERE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20
_FORMATS = {FILE: stat.S_IFREG, DIRECTORY_KIND: stat.S_IFDIR, SYMLINK: stat.S_IFLNK, FIFO: stat.S_IFIFO,
            CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}  # fmt: skip


class Bytes:
    """A tarstream.TarSource over a plain reader of the archive's uncompressed bytes."""

    def __init__(self, reader: ByteSource) -> None:
        self._reader = reader

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes, or fewer at the end."""
        pieces = []
        while size and (piece := self._reader.read(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        """Pass over `size` bytes. Raises InvalidInput when there are fewer."""
        while size:
            piece = self._reader.read(min(size, _PIECE))
            if not piece:
                raise InvalidInput("tar archive is cut off")
            size -= len(piece)

    def drain(self) -> None:
        """Read to the end, so that whoever writes the archive does not fail with EPIPE after its last member."""
        while self._reader.read(_PIECE):
            pass


def write_content(fd: int, entry: TarEntry, source: Bytes) -> None:
    """Write the content of a regular file from the archive into the new file `fd`; holes stay holes. Raises OSError,
    InvalidInput where the archive is cut off."""
    if entry.segments is None:
        _copy(fd, entry.stored, source, entry.name)
        return
    os.ftruncate(fd, entry.size)
    for offset, length in entry.segments:
        os.lseek(fd, offset, os.SEEK_SET)
        _copy(fd, length, source, entry.name)


def _copy(fd: int, size: int, source: Bytes, path: bytes) -> None:
    while size:
        piece = source.take(min(size, _PIECE))
        if not piece:
            raise InvalidInput(f"tar archive is cut off in '{show_path(path)}'")
        size -= len(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]


class PlacedOwners(NamedTuple):
    """Which owners the placed files get.

    find: gives the (uid, gid) for a member of the archive; own: the ids of the process that places it.
    notes: -1 where files get these owners on disk. Where the user namespace has one id only, the fd of the container's
    table of owners: any other owner than `own` is noted then, a link's or a pipe's as a line of this table
    (storage.owners.overrides).
    """

    find: Callable[[TarEntry], tuple[int, int]]
    own: tuple[int, int]
    notes: int = -1


class _Spot(NamedTuple):
    """Where a member is placed. parent: fd of the directory; path: from the archive's top, as messages show it."""

    parent: int
    name: bytes
    path: bytes


class _PlacedDirectory(NamedTuple):
    """A directory that is to be finished when all members are placed.

    path: from the archive's top; mtime: nanoseconds; identity: (device, inode); mode: the permission bits that it gets
    in the end because they would keep the caller out of it until then, None when it has its bits already.
    """

    path: bytes
    mtime: int
    identity: tuple[int, int]
    mode: int | None


class ArchivePlacer:
    """Places one archive below the directory `top` (an fd).

    owners: None when all files become the caller's, as on the host; overwrite: whether a directory may replace what is
    no directory, and the reverse; keep: whether existing directories get the attributes of their members, and set-id
    bits stay; follow: opens a directory below `top` whose path leads through a link, None to refuse such paths.
    size: bytes of the files placed; lost: number of devices that could not be made.
    """

    def __init__(
        self,
        top: int,
        owners: PlacedOwners | None,
        *,
        overwrite: bool = False,
        keep: bool = False,
        follow: Callable[[str], int] | None = None,
    ) -> None:
        self._top = top
        self._owners = owners
        self._overwrite = overwrite
        self._keep = keep
        self._follow = follow
        self._cached: tuple[bytes, int] | None = None
        self.size = 0
        self.lost = 0

    def place(self, reader: ByteSource) -> None:
        """Place every member, then read what follows them in the stream.

        Raises InvalidInput for a malformed archive, InvalidState for something in the way that may not be replaced.
        """
        source = Bytes(reader)
        archive = TarStream(source)
        placed: list[_PlacedDirectory] = []
        try:
            while (entry := archive.next()) is not None:
                names = _split(entry.name)
                if names:
                    directory = self._entry(entry, names, source)
                    if directory is not None:
                        placed.append(directory)
                if entry.type == FILE and entry.stored:
                    source.skip(TarStream.padding(entry))
            source.drain()
            # Directories come last, inner ones first: each file that is made in a directory changes its time, and in a
            # directory that its owner may not write to (mode 555) or search (000) no file can be made.
            for each in reversed(placed):
                self._finish_directory(each)
        finally:
            if self._cached is not None:
                os.close(self._cached[1])
                self._cached = None

    def _finish_directory(self, placed: _PlacedDirectory) -> None:
        """Give a directory its time and its last mode, unless another one has taken its name meanwhile."""
        parent = self._parent(placed.path.split(b"/")[:-1])
        fd = os.open(placed.path.rpartition(b"/")[2], DIRECTORY, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == placed.identity:
                os.utime(fd, ns=(placed.mtime, placed.mtime))
                if placed.mode is not None:
                    os.fchmod(fd, placed.mode)
        finally:
            os.close(fd)

    def _entry(self, entry: TarEntry, names: list[bytes], source: Bytes) -> _PlacedDirectory | None:
        """Place one member. For a directory it returns what is to be done when all members are placed."""
        path, name = b"/".join(names), names[-1]
        parent = self._parent(names[:-1])
        spot = _Spot(parent, name, path)
        in_place = False
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            was_directory, is_directory = stat.S_ISDIR(status.st_mode), entry.type == DIRECTORY_KIND
            if was_directory and is_directory:
                return self._dress_directory(spot, entry) if self._keep else None
            if was_directory != is_directory and not self._overwrite:
                words = ("directory", "non-directory") if was_directory else ("non-directory", "directory")
                raise InvalidState(
                    f"cannot overwrite {words[0]} '{show_path(path)}' with {words[1]}", hint="--overwrite"
                )
            if entry.type == LINK and _split(entry.linkname) == names:
                return None
            in_place = self._remove(spot, entry)
        if entry.type == FILE:
            self._file(spot, entry, source, in_place=in_place)
        elif entry.type == DIRECTORY_KIND:
            os.mkdir(name, 0o700, dir_fd=parent)
            return self._dress_directory(spot, entry)
        elif entry.type == LINK:
            target = _split(entry.linkname)
            if not target:
                raise InvalidInput(f"archive has a hard link '{show_path(path)}' to its top")
            origin = os.dup(self._parent(target[:-1]))
            try:
                again = self._parent(names[:-1])
                os.link(target[-1], name, src_dir_fd=origin, dst_dir_fd=again, follow_symlinks=False)
            finally:
                os.close(origin)
        else:
            self._special(parent, name, entry)
        return None

    @staticmethod
    def _remove(spot: _Spot, entry: TarEntry) -> bool:
        """Remove what has the member's name. True when it is a file that cannot be removed, because something is
        mounted on it (as on /etc/hosts), so that the member is to be written into it."""
        parent, name, path = spot
        problem = delete_at(parent, os.fsdecode(name), os.fsdecode(path))
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if entry.type == FILE and stat.S_ISREG(status.st_mode):
            return True
        raise problem or OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fsdecode(path))

    def _file(self, spot: _Spot, entry: TarEntry, source: Bytes, *, in_place: bool) -> None:
        fd = os.open(spot.name, _THERE if in_place else _NEW, 0o600, dir_fd=spot.parent)
        try:
            if in_place:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise InvalidState(
                        f"'{show_path(spot.path)}' is no regular file any more: the container changed it"
                    )
                os.truncate(fd, 0)
            write_content(fd, entry, source)
            self.size += entry.size
            if in_place:
                return
            self._dress(fd, entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _dress_directory(self, spot: _Spot, entry: TarEntry) -> _PlacedDirectory:
        """Give a directory its attributes; on the host the caller may go on writing to it until all is placed."""
        fd = os.open(spot.name, DIRECTORY, dir_fd=spot.parent)
        try:
            self._dress(fd, entry)
            status = os.fstat(fd)
        finally:
            os.close(fd)
        mode = self._host_mode(entry) if self._owners is None and entry.mode & 0o700 != 0o700 else None
        return _PlacedDirectory(spot.path, entry.mtime, (status.st_dev, status.st_ino), mode)

    def _host_mode(self, entry: TarEntry) -> int:
        """The mode of a file on the host. The file is the caller's there, and a set-id bit from a container would let
        every user of the host act as the caller, so set-id bits stay only where the caller asked to `keep` them."""
        return entry.mode if self._keep else entry.mode & 0o1777

    def _dress(self, fd: int, entry: TarEntry) -> None:
        """Give an open file or directory the owner, mode and extended attributes of its member."""
        mode, owners = entry.mode, self._owners
        if owners is None:
            os.fchmod(fd, self._host_mode(entry) | (0o700 if entry.type == DIRECTORY_KIND else 0))
        else:
            owner = owners.find(entry)
            if owners.notes >= 0 and owner != owners.own:
                format = _FORMATS[entry.type]
                os.fchmod(fd, overrides.on_disk(mode, format))
                overrides.write_override(fd, Override(*owner, mode, format))
            else:
                if owners.notes < 0:
                    os.fchown(fd, *owner)  # before the mode: chown(2) takes set-id bits away
                os.fchmod(fd, mode)
        for key, value in entry.xattrs.items():
            if key.startswith(PLANTED) or (owners is None and not key.startswith("user.")):
                continue
            try:
                os.setxattr(fd, key, value)
            except OSError as e:
                if e.errno not in NO_XATTR:
                    raise

    def _special(self, parent: int, name: bytes, entry: TarEntry) -> None:
        owners = self._owners
        if entry.type in (CHARACTER, BLOCK_DEVICE):
            if owners is None or owners.notes < 0:
                self.lost += 1  # an ordinary user cannot make one
                return
            fd = os.open(name, _NEW, overrides.on_disk(entry.mode, 0) & 0o777, dir_fd=parent)
            try:
                overrides.write_override(
                    fd, Override(*owners.find(entry), entry.mode, _FORMATS[entry.type], entry.device)
                )
                os.utime(fd, ns=(entry.mtime, entry.mtime))
            finally:
                os.close(fd)
            return
        if entry.type == SYMLINK:
            os.symlink(entry.linkname, name, dir_fd=parent)
        else:
            os.mkfifo(name, 0o600, dir_fd=parent)
        if owners is not None:
            owner = owners.find(entry)
            if owners.notes < 0:
                os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
            elif owner != owners.own:
                note = Override(*owner, entry.mode, _FORMATS[entry.type])
                inode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino
                os.write(owners.notes, overrides.table_line(inode, note, entry.linkname))
        if entry.type == FIFO:
            chmod_special(parent, name, stat.S_IFIFO | entry.mode)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _parent(self, names: list[bytes]) -> int:
        """The directory `names` below the top; missing ones are made. The fd is kept for the next call and closed when
        that asks for another directory."""
        path = b"/".join(names)
        if self._cached is not None and self._cached[0] == path:
            return self._cached[1]
        fd = os.dup(self._top)
        try:
            for position, name in enumerate(names):
                inner = self._step(fd, name, names[: position + 1])
                os.close(fd)
                fd = inner
        except BaseException:
            os.close(fd)
            raise
        if self._cached is not None:
            os.close(self._cached[1])
        self._cached = (path, fd)
        return fd

    def _step(self, fd: int, name: bytes, names: list[bytes]) -> int:
        try:
            return os.open(name, _PATH, dir_fd=fd)
        except FileNotFoundError:
            os.mkdir(name, 0o755, dir_fd=fd)
            return os.open(name, _PATH, dir_fd=fd)
        except NotADirectoryError:
            if self._follow is None:
                raise
            return self._follow(os.fsdecode(b"/".join(names)))


def _split(path: bytes) -> list[bytes]:
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise InvalidInput(f"archive has a path with '..': '{show_path(path)}'")
    return names
