"""Fills a new volume, or a tmpfs, with what the image has at its place. It never leaves the root, never overwrites."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from rootless.errors import RuntimeFailure
from rootless.kernel.files import clone_file
from rootless.runtime.operations.base import BEFORE_MOUNTS, Operation, RootContext, existing

_CHUNK = 1 << 20
_XATTR_REFUSALS = (errno.EOPNOTSUPP, errno.EPERM, errno.ENOTSUP)


class SeedVolume(Operation):
    """Copy what the image has at `target` into the empty directory `source`, before that is mounted there.

    A file `SOURCE.seeding` marks a copy under way: whoever finds it after a crash starts over. Two containers that use
    the volume for the first time at once take turns on it. CVE-2020-1726: a volume with content is left alone.
    """

    __slots__ = ("source", "target")
    stage = BEFORE_MOUNTS

    def __init__(self, source: str, target: str) -> None:
        self.source = source
        self.target = target

    @property
    def path(self) -> str:
        return self.target

    def describe(self) -> str:
        return f"seed volume '{self.source}' from '{self.target}'"

    def apply(self, context: RootContext) -> None:
        image = existing(context, self.target)
        if image is None:
            return
        try:
            if not stat.S_ISDIR(os.fstat(image).st_mode):
                raise RuntimeFailure(f"cannot mount a volume on '{self.target}': it is a file in the image")
            self._seed(image)
        finally:
            os.close(image)

    def _seed(self, image: int) -> None:
        marker = self.source + ".seeding"
        volume = os.open(self.source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        lock = -1
        try:
            if os.listdir(volume) and not os.path.lexists(marker):
                return
            lock, interrupted = _take(marker)
            if interrupted:
                _empty(volume)
            elif os.listdir(volume):
                # another container has seeded it while we waited
                os.unlink(marker)
                return
            os.write(lock, b"seeding\n")
            origin = os.open(f"/proc/self/fd/{image}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                copy_tree(origin, volume)
            finally:
                os.close(origin)
            os.unlink(marker)
        finally:
            os.close(volume)
            if lock >= 0:
                os.close(lock)


def _take(marker: str) -> tuple[int, bool]:
    """(fd that holds the marker's lock, whether a copy was interrupted before)."""
    while True:
        fd = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        status = os.fstat(fd)
        if status.st_nlink:
            return fd, status.st_size > 0
        # its owner has finished and removed it
        os.close(fd)


def _empty(directory: int) -> None:
    for name in os.listdir(directory):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                _empty(inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)


def copy_tree(source: int, destination: int, *, keep_mode: bool = False) -> None:
    """Copy what is in directory `source` into directory `destination`, and the directory's own attributes.

    Owners, modes, times, extended attributes, links and hard links are kept; mounts below are not entered; devices are
    left out, for nobody but root can make them. keep_mode: leave the mode of `destination` itself.
    """
    _Copy(os.fstat(source).st_dev, destination).directory(source, keep_mode=keep_mode)


class _Copy:
    """One copy under way. device: the file system that the copy does not leave; root: fd of the directory copied to;
    links: (device, inode) of each file with several names that was met → its first name, relative to `root`."""

    __slots__ = ("device", "links", "root")

    def __init__(self, device: int, root: int) -> None:
        self.device = device
        self.root = root
        self.links: dict[tuple[int, int], str] = {}

    def directory(self, source: int, *, keep_mode: bool = False) -> None:
        """Copy what is below directory `source` to the root of the copy, then the attributes of `source` itself."""
        destination = self.root
        self._level(source, destination, "")
        status = os.fstat(source)
        self._attributes(f"/proc/self/fd/{source}", f"/proc/self/fd/{destination}")
        os.fchown(destination, status.st_uid, status.st_gid)
        if not keep_mode:
            os.fchmod(destination, stat.S_IMODE(status.st_mode))
        os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _level(self, source: int, destination: int, prefix: str) -> None:
        for name in os.listdir(source):
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            path = prefix + name
            if kind == stat.S_IFDIR:
                self._directory_entry(source, destination, path, status)
            elif status.st_nlink > 1 and (status.st_dev, status.st_ino) in self.links:
                known = self.links[status.st_dev, status.st_ino]
                os.link(known, name, src_dir_fd=self.root, dst_dir_fd=destination, follow_symlinks=False)
            elif self._entry(source, destination, name, status):
                if status.st_nlink > 1:
                    self.links[status.st_dev, status.st_ino] = path
                self._finish(source, destination, name, status)

    def _directory_entry(self, source: int, destination: int, path: str, status: os.stat_result) -> None:
        """One directory, the last part of `path`, which is relative to the root of the copy."""
        name = path.rpartition("/")[2]
        os.mkdir(name, 0o700, dir_fd=destination)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        inner_source = os.open(name, flags, dir_fd=source)
        try:
            inner = os.open(name, flags, dir_fd=destination)
            try:
                if os.fstat(inner_source).st_dev == self.device:
                    self._level(inner_source, inner, path + "/")
            finally:
                os.close(inner)
        finally:
            os.close(inner_source)
        self._finish(source, destination, name, status)

    def _entry(self, source: int, destination: int, name: str, status: os.stat_result) -> bool:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
        elif kind == stat.S_IFREG:
            self._content(source, destination, name, status.st_size)
        elif kind == stat.S_IFIFO:
            os.mkfifo(name, 0o600, dir_fd=destination)
        else:
            return False
        return True

    def _content(self, source: int, destination: int, name: str, size: int) -> None:
        origin = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            copy = os.open(name, flags, 0o600, dir_fd=destination)
            try:
                if not clone_file(origin, copy):
                    _copy_data(origin, copy, size)
            finally:
                os.close(copy)
        finally:
            os.close(origin)

    def _finish(self, source: int, destination: int, name: str, status: os.stat_result) -> None:
        os.chown(name, status.st_uid, status.st_gid, dir_fd=destination, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            # after chown, which clears setuid bits; the name is ours, made just now in a directory nobody else knows
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=destination)
        self._attributes(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{destination}/{name}")
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=destination, follow_symlinks=False)

    def _attributes(self, source: str, destination: str) -> None:
        follow = source.rpartition("/")[0] == "/proc/self/fd"
        try:
            names = os.listxattr(source, follow_symlinks=follow)
        except OSError:
            return
        for name in names:
            if name.startswith(("user.overlay.", "trusted.", "user.fuseoverlayfs.", "system.nfs")):
                continue
            try:
                value = os.getxattr(source, name, follow_symlinks=follow)
                os.setxattr(destination, name, value, follow_symlinks=follow)
            except OSError as e:
                if e.errno not in _XATTR_REFUSALS and e.errno != errno.ENODATA:
                    raise


def _copy_data(source: int, destination: int, size: int) -> None:
    """Copy extents, holes kept."""
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
