"""Fills an empty volume with what an image has at its place, once, while other containers may hold the volume already.

A container that has the volume can change every name in it at any time. So nothing is made there: the files are copied
into a private directory beside it, and what is whole is renamed in, one name at a time, from one fd to the other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from rootless.kernel.files import RENAME_NOREPLACE, clone_file, link_beneath, open_special, renameat2

_CHUNK = 1 << 20
_XATTR_REFUSALS = (errno.EOPNOTSUPP, errno.EPERM, errno.ENOTSUP)
# In these attributes overlays and file systems keep their own state: on a copy they would hide or change it
_UNCOPIED = ("user.overlay.", "trusted.", "user.fuseoverlayfs.", "system.nfs")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What the marker says, one length, so that a word is written over another in one go
_COPYING = b"copying\n"  # into the private directory: the volume has nothing of ours yet
_MOVING = b"moving \n"  # the private directory is whole, and some of it may be in the volume already
_IN_PLACE = b"seeding\n"  # into the volume itself, as earlier versions did


def seed_volume(volume: str, image: int) -> None:
    """Fill the directory `volume`, if it is empty, from the directory that `image` is an fd of (O_PATH will do).

    The directory that holds `volume` must be private to the caller. A file VOLUME.seeding is locked meanwhile, so that
    several starts and `cp` take turns, and says after a crash how far the last one came; VOLUME.filling is the private
    directory. `volume` stays the same inode, for running containers have it mounted: what they have made there by then
    is kept, and a volume with content is left alone (CVE-2020-1726). Raises OSError.
    """
    above, name = os.path.split(volume)
    parent = os.open(above or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        data = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            _Seeding(parent, name, data).seed(image)
        finally:
            os.close(data)
    finally:
        os.close(parent)


class _Seeding:
    """One volume that may want to be filled. parent: fd of the private directory that `data` (an fd) lies in."""

    __slots__ = ("_data", "_marker", "_parent", "_private")

    def __init__(self, parent: int, name: str, data: int) -> None:
        self._parent = parent
        self._data = data
        self._marker = f"{name}.seeding"
        self._private = f"{name}.filling"

    def seed(self, image: int) -> None:
        if os.listdir(self._data) and not self._is_marked():
            return
        lock, state = self._take()
        try:
            self._continue(image, lock, state)
            os.unlink(self._marker, dir_fd=self._parent)
        finally:
            os.close(lock)

    def _is_marked(self) -> bool:
        try:
            os.stat(self._marker, dir_fd=self._parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _take(self) -> tuple[int, bytes]:
        """The fd that holds the marker's lock, and how far an interrupted copy came (b"" when none was begun)."""
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._marker, flags, 0o600, dir_fd=self._parent)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd, os.read(fd, len(_MOVING))
            # Whoever held the lock has finished and removed the file while we waited. A lock on a removed file excludes
            # nobody, since the next one opens a new file of that name: so we open it again.
            os.close(fd)

    def _continue(self, image: int, lock: int, state: bytes) -> None:
        if state != _MOVING:
            _discard(self._parent, self._private)
            if state not in (b"", _COPYING):
                _empty(self._data)
            elif os.listdir(self._data):
                # Another start has filled the volume while we waited, or a container that runs has written to it. An
                # image's files put over those would be data lost (CVE-2020-1726).
                return
            self._copy(image, lock)
            os.pwrite(lock, _MOVING, 0)
        self._move(lock)
        _discard(self._parent, self._private)

    def _copy(self, image: int, lock: int) -> None:
        os.pwrite(lock, _COPYING, 0)
        try:
            os.mkdir(self._private, 0o700, dir_fd=self._parent)
            origin = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=image)
            try:
                private = os.open(self._private, _DIRECTORY, dir_fd=self._parent)
                try:
                    _drop_default_acl(private)  # earlier versions let volumes inherit one
                    copy_tree(origin, private)
                finally:
                    os.close(private)
            finally:
                os.close(origin)
        except BaseException:
            # Half of a copy is of no use to anybody, and on a full disk it would keep every later try from succeeding
            _discard(self._parent, self._private)
            os.unlink(self._marker, dir_fd=self._parent)
            raise

    def _move(self, lock: int) -> None:
        try:
            private = os.open(self._private, _DIRECTORY, dir_fd=self._parent)
        except FileNotFoundError:
            return  # only the marker was left to remove
        try:
            status = os.fstat(private)  # its time changes with each name that leaves
            for name in os.listdir(private):
                _move_name(private, name, self._data)
            _dress(private, self._data, status)
        except OSError as e:
            if e.errno != errno.EXDEV:
                raise
            # Another file system is mounted on the volume, and no rename leads into it: all is copied once more, into
            # the volume itself. copy_tree works by fds, so that a container which changes names there meanwhile leads
            # no write elsewhere; the marker says that half a copy in the volume may be removed after a crash.
            os.pwrite(lock, _IN_PLACE, 0)
            copy_tree(private, self._data)
        finally:
            os.close(private)


def _drop_default_acl(directory: int) -> None:
    try:
        os.removexattr(directory, "system.posix_acl_default")
    except OSError:
        pass  # there is none, or the file system knows none


def _move_name(private: int, name: str, data: int) -> None:
    """Move one name into the volume. What has that name there already was made by a running container, and stays."""
    try:
        renameat2(private, name, data, name, RENAME_NOREPLACE)
    except FileExistsError:
        pass
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        # The file system does not know RENAME_NOREPLACE, as NFS does not: there a file that a container makes between
        # these two calls is replaced by the image's.
        try:
            os.stat(name, dir_fd=data, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, name, src_dir_fd=private, dst_dir_fd=data)


def _discard(parent: int, name: str) -> None:
    """Remove directory `name` and all in it, if it is there."""
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return
    try:
        _empty(fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def _empty(directory: int) -> None:
    for name in os.listdir(directory):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            _discard(directory, name)
        else:
            os.unlink(name, dir_fd=directory)


def copy_tree(source: int, destination: int, *, keep_mode: bool = False) -> None:
    """Copy what is in directory `source` into the empty directory `destination`, and the directory's own attributes.

    Owners, modes, times, extended attributes, links and hard links are kept; mounts below are not entered; devices are
    left out, for nobody but root can make them. keep_mode: leave the mode of `destination` itself. Should somebody else
    be able to write to `destination`, nothing outside of it is read or changed. Raises OSError.
    """
    _Copy(os.fstat(source).st_dev, destination).level(source, destination, "")
    _dress(source, destination, os.fstat(source), keep_mode=keep_mode)


class _Copy:
    """One copy under way.

    device: the file system that the copy does not leave. root: fd of the directory that is copied to. links: the first
    name, relative to `root`, of each file with several names that was met, by its device and inode.
    """

    __slots__ = ("device", "links", "root")

    def __init__(self, device: int, root: int) -> None:
        self.device = device
        self.root = root
        self.links: dict[tuple[int, int], str] = {}

    def level(self, source: int, destination: int, prefix: str) -> None:
        """Copy what directory `source` holds into directory `destination`, which is `prefix` below the root."""
        for name in os.listdir(source):
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            known = self.links.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
            if stat.S_ISDIR(status.st_mode):
                self._directory(source, destination, name, prefix)
            elif known is not None:
                link_beneath(self.root, known, destination, name)
            elif _copy_entry(source, destination, name, status) and status.st_nlink > 1:
                self.links[status.st_dev, status.st_ino] = prefix + name

    def _directory(self, source: int, destination: int, name: str, prefix: str) -> None:
        os.mkdir(name, 0o700, dir_fd=destination)
        inner_source = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            inner = os.open(name, _DIRECTORY, dir_fd=destination)
            try:
                status = os.fstat(inner_source)
                if status.st_dev == self.device:
                    self.level(inner_source, inner, f"{prefix}{name}/")
                _dress(inner_source, inner, status)
            finally:
                os.close(inner)
        finally:
            os.close(inner_source)


def _copy_entry(source: int, destination: int, name: str, status: os.stat_result) -> bool:
    """Copy one file that is no directory; False for a device, which is left out."""
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        _copy_file(source, destination, name)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=destination, follow_symlinks=False)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=destination, follow_symlinks=False)
    elif kind in (stat.S_IFIFO, stat.S_IFSOCK):
        os.mknod(name, kind | 0o600, dir_fd=destination)
        # O_PATH fds: open(2) of a FIFO waits for its other end, and a name could mean another file by now
        origin = open_special(source, name, kind)
        try:
            made = open_special(destination, name, kind)
            try:
                _dress(f"/proc/self/fd/{origin}", f"/proc/self/fd/{made}", status)
            finally:
                os.close(made)
        finally:
            os.close(origin)
    else:
        return False
    return True


def _copy_file(source: int, destination: int, name: str) -> None:
    origin = os.open(name, _READ, dir_fd=source)
    try:
        status = os.fstat(origin)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ESTALE, "another file has taken its place", name)
        copy = os.open(name, _NEW, 0o600, dir_fd=destination)
        try:
            if not clone_file(origin, copy):
                _copy_data(origin, copy, status.st_size)
            _dress(origin, copy, status)
        finally:
            os.close(copy)
    finally:
        os.close(origin)


def _dress(source: int | str, destination: int | str, status: os.stat_result, *, keep_mode: bool = False) -> None:
    """Give `destination` the owner, mode and times of `status` and the extended attributes of `source`.

    Each of the two is an fd, or the path of an O_PATH fd in /proc/self/fd: a name could mean another file by now. The
    order matters: chown(2) clears the set-id bits and the capabilities (`security.capability`) of a file, so mode and
    attributes come after it.
    """
    os.chown(destination, status.st_uid, status.st_gid)
    if not keep_mode:
        os.chmod(destination, stat.S_IMODE(status.st_mode))
    _attributes(source, destination)
    os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns))


def _attributes(source: int | str, destination: int | str) -> None:
    try:
        names = os.listxattr(source)
    except OSError:
        return
    for name in names:
        if name.startswith(_UNCOPIED):
            continue
        try:
            os.setxattr(destination, name, os.getxattr(source, name))
        except OSError as e:
            if e.errno not in _XATTR_REFUSALS and e.errno != errno.ENODATA:
                raise


def _copy_data(source: int, destination: int, size: int) -> None:
    """Copy `size` bytes of data; a hole of the source, which takes no blocks, stays one."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as e:
            if e.errno != errno.ENXIO:
                raise
            break
        end = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(source, start, os.SEEK_SET)
        os.lseek(destination, start, os.SEEK_SET)
        left = end - start
        while left > 0:
            block = os.read(source, min(left, _CHUNK))
            if not block:
                break
            view = memoryview(block)
            while view:
                view = view[os.write(destination, view) :]
            left -= len(block)
        offset = end
    os.ftruncate(destination, size)
