"""Writes a container's changes as a layer: the recipe and the digest of its tar, and its tree.

The tree is either copied, from the same bytes that are hashed for the archive, or it is the container's own writable
directory, brought into the form that unpacking the archive would give it. It runs inside the user namespace.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from rootless.errors import InvalidState
from rootless.kernel.files import chmod_special, clone_file, link_beneath
from rootless.storage.changes.difference import GONE, ChangedNode
from rootless.storage.files.entry_attributes import CHUNK, DIRECTORY, READ, EntryAttributes, read_attributes
from rootless.storage.files.tree_copy import CAPABILITY, MARKS, WHITEOUT
from rootless.storage.owners import overrides
from rootless.storage.tar.layer_rules import show_path
from rootless.storage.tar.members import KINDS, data_segments, plain_capability, sparse_head, translate_acl
from rootless.storage.tar.recipe import crc32
from rootless.storage.tar.tarheader import BLOCK, END, FILE, LINK, SYMLINK, Member, encode_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.storage.owners.noted_owners import NotedOwners
    from rootless.storage.tar.recipe import RecipeWriter

    Owner = Callable[[int, int], tuple[int, int]]

_SMALL = 1 << 16  # a file of fewer bytes is written from what was read for its digest, and not cloned
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_INHERITED = "system.posix_acl_default"
_NO_DEVICE = (errno.EPERM, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


class Tar:
    """Takes the archive's bytes in order, hashes them and writes the recipe, by which they can be made again."""

    __slots__ = ("_hash", "_pending", "_pieces", "_recipe")

    def __init__(self, recipe: RecipeWriter) -> None:
        import hashlib

        self._hash = hashlib.sha256()
        self._recipe = recipe
        self._pieces: list[bytes] = []
        self._pending = 0

    def raw(self, piece: bytes) -> None:
        """Add bytes that are in no file of the tree."""
        self._recipe.raw(piece)
        self.hash(piece)

    def hash(self, piece: bytes) -> None:
        """Add bytes of a file of the tree; `payload` must be called for them afterwards."""
        self._pieces.append(piece)
        self._pending += len(piece)
        if self._pending >= CHUNK:
            self._hash.update(b"".join(self._pieces))
            self._pieces.clear()
            self._pending = 0

    def payload(self, path: bytes, size: int, offset: int, crc: int) -> None:
        """Note that the last `size` bytes are those of the file `path` from `offset` on. crc: their CRC-32."""
        self._recipe.payload(path, size, offset=offset, crc=crc)

    def pad(self, size: int) -> None:
        """Fill the last block of a member of `size` bytes."""
        if size % BLOCK:
            self.raw(bytes(-size % BLOCK))

    def finish(self) -> str:
        """Write the end of the archive and return its digest."""
        self.raw(END)
        self._hash.update(b"".join(self._pieces))
        return f"sha256:{self._hash.hexdigest()}"


class Open:
    """A directory that is being written. source, target: its fds, -1 for none; mtime (None: as it is), late: the time
    and the extended attributes that it gets when everything is in it."""

    __slots__ = ("late", "mtime", "path", "source", "target")

    def __init__(
        self, path: str, source: int, target: int, mtime: int | None, late: tuple[tuple[str, bytes], ...] = ()
    ) -> None:
        self.late = late
        self.path = path
        self.source = source
        self.target = target
        self.mtime = mtime


class LayerOwners(NamedTuple):
    """How the owners of a layer's files are found. translate: gives the container's (uid, gid) for those that this
    process sees, None when they are the same; noted: the noted owners of links and pipes; single: whether the user
    namespace has one id only, so that all other owners are noted."""

    translate: Owner | None
    noted: NotedOwners
    single: bool


class _Found(NamedTuple):
    """The status and the attributes of a file that becomes a member."""

    status: os.stat_result
    attributes: EntryAttributes


class LayerWriter:
    """Writes the changes that storage.changes.difference has found.

    source: fd of the writable directory; target: fd of an empty directory for the tree, -1 when the writable directory
    itself becomes the tree; timestamp: seconds since the epoch, which replace any later time in the layer.
    size: bytes of files so far; entries: number of members; markers: the form of whiteouts in the tree (LayerContent);
    noted: lines for the layer's table of owners.
    """

    def __init__(self, source: int, target: int, tar: Tar, owners: LayerOwners, timestamp: int | None) -> None:
        self._source = source
        self._target = target
        self._tar = tar
        self._owner = owners.translate
        self._limit = None if timestamp is None else timestamp * 1_000_000_000
        self._table = owners.noted
        self._single = owners.single
        self._linked: dict[tuple[int, int], bytes] = {}
        self._clones = True
        self._stack: list[Open] = []
        self.size = 0
        self.entries = 0
        self.markers = "overlay"
        self.noted: list[bytes] = []

    def write(self, nodes: Sequence[ChangedNode]) -> None:
        """Write all nodes. What a running container has removed since it was listed is left out."""
        missing = ""
        self._stack = [Open("", os.dup(self._source), os.dup(self._target) if self._target >= 0 else -1, None)]
        try:
            for node in nodes:
                if missing and node.path.startswith(missing):
                    continue
                parent = node.path.rpartition("/")[0]
                while self._stack[-1].path != parent:
                    self._leave()
                try:
                    self._node(node)
                except (FileNotFoundError, NotADirectoryError):
                    missing = f"{node.path}/"
            while self._stack:
                self._leave()
        finally:
            for place in self._stack:
                os.close(place.source)

    def _leave(self) -> None:
        """End the innermost directory: nothing more is made in it, so that its time stays when it is set now."""
        place = self._stack.pop()
        try:
            fd = place.source if place.target < 0 else place.target
            _set(fd, place.late)
            if place.mtime is not None and os.fstat(fd).st_mtime_ns != place.mtime:
                os.utime(fd, ns=(place.mtime, place.mtime))
        finally:
            os.close(place.source)
            if place.target >= 0:
                os.close(place.target)

    def _node(self, node: ChangedNode) -> None:
        place = self._stack[-1]
        name = node.path.rpartition("/")[2]
        if node.kind == GONE:
            self._whiteout(node, name, place)
        elif node.kind == stat.S_IFDIR:
            self._directory(node, name, place)
        elif node.kind == stat.S_IFREG:
            self._file(node, name, place)
        else:
            self._special(node, name, place)
        self.entries += 1

    def _whiteout(self, node: ChangedNode, name: str, place: Open) -> None:
        path = os.fsencode(f"{node.path[: len(node.path) - len(name)]}{WHITEOUT}{name}")
        self._tar.raw(encode_header(Member(path, FILE, mode=0o600)))
        fd = place.target if place.target >= 0 else place.source
        if place.target < 0 and not node.made:
            try:
                if stat.S_ISCHR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                    return
                os.unlink(name, dir_fd=fd)  # a whiteout in the form of an empty file with an extended attribute
            except FileNotFoundError:
                os.unlink(WHITEOUT + name, dir_fd=fd)
        try:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=fd)
        except OSError as e:
            if e.errno not in _NO_DEVICE:
                raise
            self.markers = "names"
            os.close(os.open(WHITEOUT + name, _NEW, 0o600, dir_fd=fd))

    def _directory(self, node: ChangedNode, name: str, place: Open) -> None:
        is_top = not node.path
        source = os.dup(place.source) if is_top else os.open(name, DIRECTORY, dir_fd=place.source)
        target = -1
        try:
            status, here = os.fstat(source), read_attributes(source)
            if place.target >= 0:
                if not is_top:
                    os.mkdir(name, 0o700, dir_fd=place.target)
                target = os.open("." if is_top else name, DIRECTORY, dir_fd=place.target)
            member = self._member(node, status, here, os.fsencode(f"{node.path or '.'}/"))
            self._tar.raw(encode_header(member))
            # Each file that is made in the directory would inherit its default access control list: it comes last
            late = tuple(pair for pair in member.xattrs if pair[0] == _INHERITED) if target >= 0 else ()
            early = member._replace(xattrs=tuple(pair for pair in member.xattrs if pair not in late))
            self._dress(source, target, _Found(status, here), early, times=False)
        except BaseException:
            os.close(source)
            if target >= 0:
                os.close(target)
            raise
        if is_top:
            self._leave()
        self._stack.append(Open(node.path, source, target, member.mtime, late))

    def _file(self, node: ChangedNode, name: str, place: Open) -> None:
        fd = os.open(name, READ, dir_fd=place.source)
        target = -1
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidState(f"'{show_path(os.fsencode(node.path))}' was replaced while it was read")
            here = read_attributes(fd)
            member = self._member(node, status, here, os.fsencode(node.path))
            if self._is_link(member, name, status, place):
                return
            if place.target >= 0:
                target = os.open(name, _NEW, status.st_mode & 0o777, dir_fd=place.target)
            if member.kind == FILE:
                self._content(member, fd, target, status)
                self.size += status.st_size
            else:
                self._tar.raw(encode_header(member))  # a device, of which the file is the placeholder
            self._dress(fd, target, _Found(status, here), member, times=True)
        finally:
            os.close(fd)
            if target >= 0:
                os.close(target)

    def _content(self, member: Member, fd: int, target: int, status: os.stat_result) -> None:
        size = status.st_size
        read, write = fd, target
        if target >= 0 and size >= _SMALL and self._clones:
            self._clones = clone_file(fd, target)
            if self._clones:
                # A running container may change the file meanwhile. What is hashed is read from the clone, so that the
                # archive has the same bytes as the tree.
                read, write = target, -1
        segments = data_segments(read, status)
        if segments is not None:
            self._sparse(member, read, write, size, segments)
            return
        self._tar.raw(encode_header(member._replace(size=size)))
        self._copy(member.name, read, write, 0, size)
        self._tar.pad(size)

    def _copy(self, path: bytes, read: int, write: int, offset: int, size: int) -> None:
        """Copy `size` bytes from where `read` stands. Their header is written, so a file that shrinks meanwhile is
        filled up with zeros, as tar does."""
        left, crc = size, 0
        while left:
            piece = os.read(read, min(left, CHUNK)) or bytes(min(left, CHUNK))
            left -= len(piece)
            crc = crc32(piece, crc)
            self._tar.hash(piece)
            if write >= 0:
                view = memoryview(piece)
                while view:
                    view = view[os.write(write, view) :]
        if size:
            self._tar.payload(path, size, offset, crc)

    def _sparse(self, member: Member, read: int, write: int, size: int, segments: list[tuple[int, int]]) -> None:
        head, stored = sparse_head(member, size, segments)
        self._tar.raw(head)
        if write >= 0:
            os.ftruncate(write, size)
        for offset, length in segments:
            os.lseek(read, offset, os.SEEK_SET)
            if write >= 0:
                os.lseek(write, offset, os.SEEK_SET)
            self._copy(member.name, read, write, offset, length)
        self._tar.pad(stored)

    def _special(self, node: ChangedNode, name: str, place: Open) -> None:
        """Write a symbolic link or a pipe."""
        status = os.stat(name, dir_fd=place.source, follow_symlinks=False)
        if stat.S_IFMT(status.st_mode) != node.kind:
            raise InvalidState(f"'{show_path(os.fsencode(node.path))}' was replaced while it was read")
        path = os.fsencode(node.path)
        linkname = os.fsencode(os.readlink(name, dir_fd=place.source)) if node.kind == stat.S_IFLNK else b""
        noted = self._table.find(path, status, linkname)
        member = self._member(node, status, EntryAttributes((), noted, False, b""), path, linkname)
        if self._is_link(member, name, status, place):
            return
        self._tar.raw(encode_header(member))
        fd = place.source
        if place.target >= 0:
            fd = place.target
            if linkname:
                os.symlink(linkname, name, dir_fd=fd)
            else:
                os.mkfifo(name, 0o600, dir_fd=fd)
        if place.target >= 0 or self._owner is not None:
            if noted is None and not self._single:
                try:
                    os.chown(name, member.uid, member.gid, dir_fd=fd, follow_symlinks=False)
                except OSError as e:
                    if e.errno != errno.EINVAL:
                        raise
                    noted = overrides.Override(member.uid, member.gid, member.mode)
            if not linkname:
                chmod_special(fd, name, status.st_mode)
        if place.target >= 0 or member.mtime != status.st_mtime_ns:
            os.utime(name, ns=(member.mtime, member.mtime), dir_fd=fd, follow_symlinks=False)
        noted = noted or self._to_note(member)
        if noted is not None:
            self.noted.append(overrides.table_line(path, noted, linkname))

    def _is_link(self, member: Member, name: str, status: os.stat_result, place: Open) -> bool:
        """Write a further name of a file that was written before; False when it is the first one."""
        if status.st_nlink < 2:
            return False
        key = (status.st_dev, status.st_ino)
        first = self._linked.get(key)
        if first is None:
            self._linked[key] = member.name
            return False
        # The header repeats all attributes of the file: other tools set them again for each name
        self._tar.raw(encode_header(member._replace(kind=LINK, linkname=first)))
        if place.target >= 0:
            link_beneath(self._target, os.fsdecode(first), place.target, name)
        return True

    def _member(
        self, node: ChangedNode, status: os.stat_result, here: EntryAttributes, path: bytes, linkname: bytes = b""
    ) -> Member:
        kind, major, minor = KINDS[node.kind], 0, 0
        mode = stat.S_IMODE(status.st_mode)
        override = here.override
        if override is not None and override.applies_to(status):
            uid, gid, mode = override.uid, override.gid, override.mode_now(status.st_mode)
            if override.is_device:
                kind, major, minor = KINDS[override.format], *override.device
        else:
            uid, gid = status.st_uid, status.st_gid
            # Where one id is mapped, files of the image belong to it on disk too, whichever id it is in the container:
            # translating the owner of an image's file would give it to the container's user
            if self._owner is not None and not (self._single and node.exists):
                uid, gid = self._owner(uid, gid)
        mtime = status.st_mtime_ns
        if self._limit is not None and mtime > self._limit:
            mtime = self._limit
        if kind == SYMLINK:
            mode = 0o777
        xattrs = tuple((name, self._value(name, value)) for name, value in here.xattrs)
        return Member(path, kind, mode, uid, gid, 0, mtime, linkname, major, minor, xattrs)

    def _value(self, name: str, value: bytes) -> bytes:
        if name == CAPABILITY:
            return plain_capability(value)
        if name.startswith("system.posix_acl_") and self._owner is not None:
            return translate_acl(value, self._owner)
        return value

    def _to_note(self, member: Member) -> overrides.Override | None:
        """What is to be noted of a file in the tree: where one id is mapped, any owner other than 0:0; else None."""
        if not self._single or (member.uid, member.gid) == (0, 0):
            return None
        return overrides.Override(member.uid, member.gid, member.mode)

    def _dress(self, fd: int, target: int, found: _Found, member: Member, *, times: bool) -> None:
        """Set the attributes of the tree's file: `target`, or `fd` itself when the writable directory becomes the tree.

        times: whether the time is set too, which must wait for a directory until everything is in it.
        """
        status, here = found
        note = here.override or self._to_note(member)
        mode = stat.S_IMODE(status.st_mode)
        # Where several ids are mapped, the file can have the noted owner on disk; only devices must stay notes
        is_settled = not self._single and note is not None and not note.is_device
        if is_settled:
            note, mode = None, member.mode
        if target >= 0:
            # For root:root too: a new file in a set-gid directory has that directory's group
            if not self._single and not overrides.change_owner(target, member.uid, member.gid):
                mode &= 0o1777
                note = overrides.Override(member.uid, member.gid, mode)
            if not times or is_settled or mode & 0o7000:  # else it was made with that mode
                os.fchmod(target, mode)
            _set(target, member.xattrs)
        else:
            if here.marked:
                _strip(fd)
            if is_settled or (self._owner is not None and not self._single):
                if not overrides.change_owner(fd, member.uid, member.gid):
                    mode &= 0o1777
                    note = overrides.Override(member.uid, member.gid, mode)
                elif is_settled:
                    overrides.write_override(fd, None)
                os.fchmod(fd, mode)
                _set(fd, member.xattrs)
            target = fd
        if note is not None:
            overrides.write_override(target, note)
        if times and (target != fd or member.mtime != status.st_mtime_ns):
            os.utime(target, ns=(member.mtime, member.mtime))


def _set(fd: int, xattrs: tuple[tuple[str, bytes], ...]) -> None:
    for name, value in xattrs:
        if name.startswith("user.overlay."):
            name = f"user.overlay.overlay.{name[13:]}"
        try:
            os.setxattr(fd, name, value)
        except OSError as e:
            if e.errno not in overrides.NO_XATTR:
                raise


def _strip(fd: int) -> None:
    """Take away overlayfs' marks, which say what an upper file has to do with a lower one: they mean nothing in a
    layer."""
    for name in os.listxattr(fd):
        if name.startswith(MARKS) and not name.startswith("user.overlay.overlay."):
            os.removexattr(fd, name)
