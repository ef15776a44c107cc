"""Makes the files of an archive below one directory: the layer in overlayfs' own form. It never leaves the directory.

Two walls keep a hostile archive inside: each directory on the way to a file is opened below the one above it, without
following links, and the process has that directory as its root. Whiteouts become character devices 0:0 and opaque
directories get `user.overlay.opaque`, which the kernel and fuse-overlayfs both read. Where the file system has neither,
the `.wh.` names of the image format (image-spec layer.md) stay, which fuse-overlayfs and the copy driver read.
"""

from __future__ import annotations

import errno
import os
import stat

from rootless.errors import InvalidInput
from rootless.kernel.files import is_whiteout, open_in_root
from rootless.storage.layers.attributes import LayerAttributes
from rootless.storage.layers.replaced import Replaced, real_path
from rootless.storage.owners.overrides import NO_XATTR
from rootless.storage.tar.layer_rules import (
    MAX_DEPTH,
    MAX_DUPLICATES,
    MAX_ENTRIES,
    MAX_KEPT,
    OPAQUE_NAME,
    OPAQUE_XATTR,
    WHITEOUT,
    member_error,
    show_path,
    split_path,
)
from rootless.storage.tar.recipe import crc32
from rootless.storage.tar.tarstream import DIRECTORY, FIFO, FILE, LINK, SYMLINK, TarEntry, TarStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.storage.tar.inflate import Inflated
    from rootless.storage.tar.recipe import RecipeWriter

CACHED = 200  # directories that are kept open for the next members
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Applier:
    """Applies one archive to the directory `root` (an fd). recipe: notes which file has which bytes of the archive.

    links: target by path of the hard links whose target is not in this layer; implied: directories that have no entry
    of their own; whiteouts: paths that are marked as deleted, whether a layer below has them or not; markers: as in
    LayerContent; replaced: what the archive has brought and then replaced.
    """

    __slots__ = (
        "_attributes",
        "_cache",
        "_directories",
        "_duplicates",
        "_kept",
        "_late",
        "_loose",
        "_opaque",
        "_recipe",
        "_root",
        "entries",
        "implied",
        "links",
        "markers",
        "replaced",
        "size",
        "whiteouts",
    )

    def __init__(self, root: int, attributes: LayerAttributes, recipe: RecipeWriter) -> None:
        self._root = root
        self._attributes = attributes
        self._recipe = recipe
        self.replaced = Replaced(root, recipe)
        self._cache: dict[bytes, int] = {}
        self._directories: dict[bytes, int] = {}
        self._late: dict[bytes, tuple[TarEntry, bool]] = {}
        self._kept = 0
        self._opaque: set[bytes] = set()
        self.whiteouts: set[bytes] = set()
        self._duplicates = 0
        self._loose: list[int] = []
        self.entries = 0
        self.size = 0
        self.implied: set[bytes] = set()
        self.links: dict[bytes, bytes] = {}
        self.markers = "overlay"

    def apply(self, archive: TarStream, source: Inflated) -> None:
        """Apply all entries, then give the directories their times. Raises InvalidInput, HostLimit."""
        os.umask(0)
        name = b""
        try:
            while (entry := archive.next()) is not None:
                name = entry.name
                if len(self._cache) > CACHED or self._loose:
                    self._forget()
                self.entries += 1
                if self.entries > MAX_ENTRIES:
                    raise InvalidInput(f"layer has more than {MAX_ENTRIES} entries")
                self._entry(entry, source)
            for path in reversed(list(self._directories)):
                self._end_directory(path, self._directories[path])
        except OSError as e:
            raise member_error(e, name) from e
        finally:
            self._forget()

    def _entry(self, entry: TarEntry, source: Inflated) -> None:
        names = split_path(entry.name)
        if not names:
            if entry.type != DIRECTORY:
                raise InvalidInput("layer replaces the root directory by something else")
            self._dress_directory(b"", self._root, entry, fresh=b"" not in self._directories)
            self._directories[b""] = entry.mtime
            return
        name = names[-1]
        path = b"/".join(names)
        if any(part.startswith(WHITEOUT) for part in names):
            self._whiteout(names, source, entry)
            return
        parent = self._parent(names[:-1])
        self.links.pop(path, None)
        if entry.type == FILE:
            self._file(parent, path, name, entry, source)
        elif entry.type == DIRECTORY:
            self._directory(parent, path, name, entry)
        elif entry.type == SYMLINK:
            self._make(path, parent, name, lambda: os.symlink(entry.linkname, name, dir_fd=parent))
            self._attributes.own(parent, path, entry)
            os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
        elif entry.type == LINK:
            self._link(parent, path, name, entry)
        elif entry.type == FIFO:
            self._make(path, parent, name, lambda: os.mkfifo(name, entry.mode & 0o777, dir_fd=parent))
            owned = self._attributes.own(parent, path, entry)
            mode = entry.mode if owned else self._attributes.unowned_mode(entry.mode)
            if mode & 0o7000:
                os.chmod(name, mode, dir_fd=parent)  # chown(2) takes set-id bits away
            os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
        else:  # a device: an ordinary user cannot make one, and character device 0:0 would be a whiteout
            self._attributes.lost.devices += 1
            entry.xattrs = {}
            self._file(parent, path, name, entry, source)

    def _file(self, parent: int, path: bytes, name: bytes, entry: TarEntry, source: Inflated) -> None:
        mode = entry.mode
        # A set-id file that cannot have its owner would run with the rights of the user who unpacks it
        owned = self._attributes.keeps(entry)
        if not owned:
            mode = self._attributes.unowned_mode(mode)
        try:
            fd = os.open(name, _NEW, mode & 0o777, dir_fd=parent)
        except FileExistsError:
            self._replace(path, parent, name)
            fd = os.open(name, _NEW, mode & 0o777, dir_fd=parent)
        try:
            if entry.segments is not None:
                self._sparse(fd, path, entry, source)
            elif entry.stored:
                left = entry.stored
                crc = 0
                for view in source.views(left):
                    left -= len(view)
                    crc = crc32(view, crc)
                    while view:
                        view = view[os.write(fd, view) :]
                if left:
                    raise InvalidInput(f"tar archive is cut off in '{show_path(path)}'")
                self._recipe.payload(self._real(path), entry.stored, crc=crc)
            if entry.stored:
                source.skip(TarStream.padding(entry))
            self.size += entry.stored
            if owned and (entry.uid or entry.gid):
                os.fchown(fd, entry.uid, entry.gid)
            if mode & 0o7000:
                os.fchmod(fd, mode)
            if entry.xattrs:
                self._attributes.set_xattrs(fd, entry)
            if not owned or entry.type != FILE:
                self._attributes.note(fd, entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _sparse(self, fd: int, path: bytes, entry: TarEntry, source: Inflated) -> None:
        """Write the segments, leave holes between them."""
        assert entry.segments is not None
        os.ftruncate(fd, entry.size)
        real = self._real(path)
        for start, length in entry.segments:
            offset, left, crc = start, length, 0
            for view in source.views(length):
                left -= len(view)
                crc = crc32(view, crc)
                while view:
                    written = os.pwrite(fd, view, offset)
                    offset += written
                    view = view[written:]
            if left:
                raise InvalidInput("tar archive is cut off in a sparse file")
            if length:
                self._recipe.payload(real, length, offset=start, crc=crc)

    def _directory(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        self.implied.discard(path)
        try:
            os.mkdir(name, entry.mode & 0o777, dir_fd=parent)
            fresh = True
        except FileExistsError:
            fresh = False
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                # The file or whiteout that was there hid a directory of the lower layers as a whole: so must this one
                self._replace(path, parent, name)
                os.mkdir(name, entry.mode & 0o777, dir_fd=parent)
                fd = self._open_directory(parent, path, name)
                self._mark_opaque(path, fd)
                fresh = True
        if not fresh or self._attributes.need_more(entry):
            self._dress_directory(path, self._open_directory(parent, path, name), entry, fresh=fresh)
        self._directories[path] = entry.mtime

    def _dress_directory(self, path: bytes, fd: int, entry: TarEntry, *, fresh: bool) -> None:
        """Give a directory its attributes. Those that new files in it would inherit, against what the archive says of
        these files, it gets when all members are applied."""
        self._late.pop(path, None)
        if not self._attributes.is_passed_on(entry):
            self._attributes.directory(fd, entry, fresh=fresh)
            return
        self._kept += sum(map(len, entry.xattrs.values()))
        if self._kept > MAX_KEPT:
            raise InvalidInput(f"layer has directories with more than {MAX_KEPT >> 20} MiB of extended attributes")
        self._late[path] = (entry, fresh)

    def _link(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        target = split_path(entry.linkname)
        if not target:
            raise InvalidInput(f"layer has a hard link '{show_path(path)}' to the root directory")
        if any(part.startswith(WHITEOUT) for part in target):
            raise InvalidInput(f"layer has a hard link '{show_path(path)}' to a whiteout")
        target_path = b"/".join(target)
        if target_path == path:
            return
        if target_path in self.whiteouts:
            raise InvalidInput(
                f"layer has a hard link '{show_path(path)}' to '{show_path(target_path)}', which it deletes"
            )
        try:
            source = self._parent(target[:-1], make=False)
            status = os.stat(target[-1], dir_fd=source, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            # The target is in a lower layer, if anywhere: FinishJob looks there. What this layer has at `path` goes now
            self._clear_way(path, parent, name)
            self.links[path] = target_path
            return
        if stat.S_ISDIR(status.st_mode) or is_whiteout(status):
            raise InvalidInput(
                f"layer has a hard link '{show_path(path)}' to '{show_path(target_path)}', which is no file"
            )
        try:
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            here = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if (here.st_dev, here.st_ino) == (status.st_dev, status.st_ino):
                return
            self._replace(path, parent, name)
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _whiteout(self, names: list[bytes], source: Inflated, entry: TarEntry) -> None:
        """Apply `.wh.NAME` or `.wh..wh..opq`, which hide what lower layers have and nothing of this one (layer.md)."""
        name = names[-1]
        if any(part.startswith(WHITEOUT) for part in names[:-1]):
            raise InvalidInput(f"layer has an entry inside of a whiteout: '{show_path(entry.name)}'")
        if entry.type == FILE and entry.stored:
            source.skip(entry.stored + TarStream.padding(entry))
        directory = b"/".join(names[:-1])
        if name == OPAQUE_NAME:
            self._mark_opaque(directory, self._parent(names[:-1]))
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b"..") or hidden.startswith(WHITEOUT):
            # `.wh..wh.plnk` and the like are of AUFS, and docker skips them. `Replaced` relies on that no file has one
            if hidden.startswith(WHITEOUT) and len(hidden) > len(WHITEOUT):
                return
            raise InvalidInput(f"layer has a whiteout of no name: '{show_path(entry.name)}'")
        path = b"/".join([*names[:-1], hidden])
        parent = self._parent(names[:-1])
        if self._is_below_opaque(directory):
            return
        try:
            status = os.stat(hidden, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            self._make_whiteout(parent, hidden)
            self.whiteouts.add(path)
            return
        if stat.S_ISDIR(status.st_mode):
            self._mark_opaque(path, self._open_directory(parent, path, hidden))

    def _make_whiteout(self, parent: int, hidden: bytes) -> None:
        if self.markers == "overlay":
            try:
                os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
                return
            except OSError as e:
                if e.errno not in (errno.EPERM, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
                    raise
                self.markers = "names"
        self._touch(parent, WHITEOUT + hidden)

    def _mark_opaque(self, path: bytes, fd: int) -> None:
        """Mark directory `path` as opaque: what lower layers have in it is hidden.

        Whiteouts below it are removed. overlayfs hides a whiteout only in a directory that it merges with lower ones;
        in an opaque one, which it does not merge, the names of whiteouts would be listed.
        """
        if self._is_below_opaque(path):
            return
        self._opaque.add(path)
        real = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            os.setxattr(real, OPAQUE_XATTR, b"y")
        except OSError as e:
            if e.errno not in NO_XATTR:
                raise
            self.markers = "names"
            self._touch(real, OPAQUE_NAME)
        finally:
            os.close(real)
        prefix = path + b"/" if path else b""
        for whiteout in [w for w in self.whiteouts if w.startswith(prefix)]:
            names = whiteout.split(b"/")
            self.whiteouts.discard(whiteout)
            parent = self._parent(names[:-1])
            for name in (names[-1], WHITEOUT + names[-1]):
                try:
                    if name != names[-1] or is_whiteout(os.stat(name, dir_fd=parent, follow_symlinks=False)):
                        os.unlink(name, dir_fd=parent)
                except FileNotFoundError:
                    continue

    def _is_below_opaque(self, path: bytes) -> bool:
        if not self._opaque:
            return False
        names = path.split(b"/") if path else []
        return any(b"/".join(names[:length]) in self._opaque for length in range(len(names) + 1))

    @staticmethod
    def _touch(parent: int, name: bytes) -> None:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent))

    def _make(self, path: bytes, parent: int, name: bytes, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._replace(path, parent, name)
            make()

    def _clear_way(self, path: bytes, parent: int, name: bytes) -> None:
        try:
            os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        self._replace(path, parent, name)

    def _replace(self, path: bytes, parent: int, name: bytes) -> None:
        """Remove what this layer already has at `path`: a whiteout, or the file of an earlier member."""
        if path in self.whiteouts:
            self.whiteouts.discard(path)
        else:
            self._duplicates += 1
            if self._duplicates > MAX_DUPLICATES:
                raise InvalidInput(f"layer has more than {MAX_DUPLICATES} entries of paths that it already had")
        try:
            is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        if not self.replaced.take(parent, name, self._real(path)):
            os.unlink(name, dir_fd=parent)
        if is_directory:
            prefix = path + b"/"
            for cached in [p for p in self._cache if p == path or p.startswith(prefix)]:
                os.close(self._cache.pop(cached))
            self._directories = {p: t for p, t in self._directories.items() if p != path and not p.startswith(prefix)}
            self._late = {p: t for p, t in self._late.items() if p != path and not p.startswith(prefix)}
            for paths in (self._opaque, self.whiteouts, self.implied):
                paths.difference_update([p for p in paths if p == path or p.startswith(prefix)])
            self.links = {p: t for p, t in self.links.items() if not p.startswith(prefix)}

    def _real(self, path: bytes) -> bytes:
        """The path at which the file of `path` lies: another one when a link was followed for this member."""
        return real_path(self._root, path) if self._loose else path

    def _parent(self, names: list[bytes], *, make: bool = True) -> int:
        """O_PATH fd of the directory `names`, which the cache keeps open. Missing directories are made (0755, 0:0)
        unless `make` is False. A link of this layer on the way is followed inside of `root`, and is not cached."""
        if not names:
            return self._root
        path = b"/".join(names)
        fd = self._cache.get(path)
        if fd is not None:
            return fd
        if len(names) > MAX_DEPTH:
            raise InvalidInput(f"layer has a path of more than {MAX_DEPTH} directories")
        parent = self._parent(names[:-1], make=make)
        return self._open_directory(parent, path, names[-1], make=make)

    def _open_directory(self, parent: int, path: bytes, name: bytes, *, make: bool = True) -> int:
        fd = self._cache.get(path)
        if fd is not None:
            return fd
        try:
            fd = os.open(name, _PATH, dir_fd=parent)
        except FileNotFoundError:
            if not make:
                raise
            os.mkdir(name, 0o755, dir_fd=parent)
            self.implied.add(path)
            fd = os.open(name, _PATH, dir_fd=parent)
        except NotADirectoryError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                fd = open_in_root(self._root, os.fsdecode(path), os.O_PATH | os.O_DIRECTORY)
                self._loose.append(fd)
                return fd
            if not make or path not in self.whiteouts:
                raise
            self._replace(path, parent, name)
            os.mkdir(name, 0o755, dir_fd=parent)
            fd = os.open(name, _PATH, dir_fd=parent)
            self._cache[path] = fd
            self._mark_opaque(path, fd)
            return fd
        self._cache[path] = fd
        return fd

    def _forget(self) -> None:
        for fd in (*self._cache.values(), *self._loose):
            os.close(fd)
        self._cache.clear()
        self._loose.clear()

    def _end_directory(self, path: bytes, mtime: int) -> None:
        """Finish a directory last: each file made in it changed its time, and would have inherited its attributes."""
        if len(self._cache) > CACHED or self._loose:
            self._forget()
        names = path.split(b"/") if path else []
        try:
            if names:
                parent = self._parent(names[:-1], make=False)
                if path in self._late:
                    fd = os.open(names[-1], _PATH, dir_fd=parent)
                    try:
                        self._attributes.directory(fd, self._late[path][0], fresh=self._late[path][1])
                    finally:
                        os.close(fd)
                os.utime(names[-1], ns=(mtime, mtime), dir_fd=parent, follow_symlinks=False)
            else:
                if path in self._late:
                    self._attributes.directory(self._root, self._late[path][0], fresh=self._late[path][1])
                os.utime(".", ns=(mtime, mtime), dir_fd=self._root)
        except (FileNotFoundError, NotADirectoryError):
            pass  # a later entry replaced it
