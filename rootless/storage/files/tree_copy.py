"""Copies files between directories of the store and translates their owners. Blocks are shared where possible.

Everything is opened by name below an open directory, and no link is followed. Every kind of file that a layer or
a driver's writable directory can have is copied.
"""

from __future__ import annotations

import errno
import os
import stat

from rootless.kernel.files import chmod_special, clone_file, is_whiteout, link_beneath
from rootless.storage.owners.overrides import NO_XATTR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Owner = Callable[[int, int], tuple[int, int]]

OPAQUE_XATTRS = ("user.overlay.opaque", "user.fuseoverlayfs.opaque")
MARKS = ("user.overlay.", "user.fuseoverlayfs.")
WHITEOUT = ".wh."
OPAQUE_NAME = ".wh..wh..opq"
CAPABILITY = "security.capability"
DEFAULT_ACL = "system.posix_acl_default"
PATH_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GIVEN = ("user.", CAPABILITY, "system.posix_acl_")
_ACLS = ("system.posix_acl_access", DEFAULT_ACL)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Copier:
    """Copies files.

    owner: translates the (uid, gid) of a file into those of its copy, None to keep them; capability_root: the id, as
    this namespace sees it, of the root of the user namespace for which file capabilities are copied, 0 for this one;
    marks: whether the marks of overlay file systems (whiteouts, opaque directories) are copied.
    lost: number of extended attributes that could not be set; place: the directory that `copy_tree` is copying, "" or
    with a slash at its end, relative to the top of the tree.
    """

    __slots__ = ("_linked", "_owner", "_root", "lost", "marks", "place")

    def __init__(self, *, owner: Owner | None = None, capability_root: int = 0, marks: bool = False) -> None:
        self._owner = owner
        self._root = capability_root
        self._linked: dict[tuple[int, int], tuple[int, str]] = {}
        self.marks = marks
        self.lost = 0
        self.place = ""

    def entry(self, source: int, name: str, target: int, new_name: str, status: os.stat_result) -> None:
        """Copy `name`, which is no directory, from directory `source` as `new_name` into directory `target` (fds).

        Nothing may have that name in `target`. status: of the file that is copied.
        """
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            self._file(source, name, target, new_name, status)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), new_name, dir_fd=target)
        elif kind == stat.S_IFIFO:
            os.mkfifo(new_name, 0o600, dir_fd=target)
        elif kind == stat.S_IFSOCK:
            os.mknod(new_name, stat.S_IFSOCK | 0o600, dir_fd=target)
        elif is_whiteout(status):
            if self.marks:
                os.mknod(new_name, stat.S_IFCHR, 0, dir_fd=target)
            return
        else:
            return  # a real device: only root of the host can have made it, so it is not a container's to copy
        uid, gid = self.owner(status)
        # The owner comes before the mode: chown(2) clears set-id bits
        os.chown(new_name, uid, gid, dir_fd=target, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            chmod_special(target, new_name, status.st_mode)
        os.utime(new_name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _file(self, source: int, name: str, target: int, new_name: str, status: os.stat_result) -> None:
        read = os.open(name, _READ, dir_fd=source)
        try:
            write = os.open(new_name, _NEW, 0o600, dir_fd=target)
            try:
                self.content(read, write, name, status)
                self.attributes(read, write, status)
            finally:
                os.close(write)
        finally:
            os.close(read)

    def content(self, read: int, write: int, name: str, status: os.stat_result) -> None:
        """Copy the content of an open file, which has `status` and is called `name` in its directory, to another."""
        copy_content(read, write, status.st_size, sparse=status.st_blocks * 512 < status.st_size)

    def attributes(self, read: int, write: int, status: os.stat_result) -> None:
        """Give the open file or directory `write` the owner, mode, extended attributes and times of `read`."""
        # Even where the owner seems right already: a new file in a set-gid directory has that directory's group
        os.fchown(write, *self.owner(status))
        os.fchmod(write, status.st_mode & 0o7777)
        for attribute in os.listxattr(read):
            if attribute.startswith(MARKS) and not self.marks:
                continue
            try:
                value = os.getxattr(read, attribute)
                if attribute == CAPABILITY:
                    value = self._capability(value)
                os.setxattr(write, attribute, value)
            except OSError as e:
                if e.errno not in NO_XATTR:
                    raise
                self.lost += 1
        os.utime(write, ns=(status.st_atime_ns, status.st_mtime_ns))

    def owner(self, status: os.stat_result) -> tuple[int, int]:
        """The user and group that the copy of a file with `status` gets."""
        return self._owner(status.st_uid, status.st_gid) if self._owner else (status.st_uid, status.st_gid)

    def _capability(self, value: bytes) -> bytes:
        """The value of `security.capability` for the copy.

        capabilities(7), "Namespaced file capabilities": a process in the user namespace for which a file has
        capabilities reads and writes the short form (VFS_CAP_REVISION_2). To write them for another namespace, it must
        use VFS_CAP_REVISION_3, which also names the root of that namespace, by its id in the writer's namespace.
        """
        if not self._root or len(value) not in (20, 24):
            return value
        magic = int.from_bytes(value[:4], "little")
        return ((3 << 24) | (magic & 1)).to_bytes(4, "little") + value[4:20] + self._root.to_bytes(4, "little")

    def link(self, status: os.stat_result, top: int, path: str, target: int) -> bool:
        """Make the last name of `path`, in directory `target`, a hard link to the copy that the same file has already.

        top: the directory to which `path` is relative. False when the file has no copy yet: then `path` is remembered
        for the file's further names, and the caller copies the file.
        """
        if status.st_nlink < 2:
            return False
        first = self._linked.get((status.st_dev, status.st_ino))
        if first is None:
            self._linked[status.st_dev, status.st_ino] = (top, path)
            return False
        link_beneath(*first, target, path.rpartition("/")[2])
        return True


def copy_content(read: int, write: int, size: int, *, sparse: bool) -> None:
    """Copy `size` bytes of one open file to another, which is empty.

    The file system shares the blocks where it can. Else the kernel copies the bytes, and the holes of a `sparse` file
    stay holes.
    """
    if not size or clone_file(read, write):
        return
    if sparse:
        os.ftruncate(write, size)
        position = 0
        while position < size:
            try:
                start = os.lseek(read, position, os.SEEK_DATA)
            except OSError as e:
                if e.errno == errno.ENXIO:  # only a hole is left
                    return
                raise
            position = os.lseek(read, start, os.SEEK_HOLE)
            _copy_range(read, write, start, position - start)
        return
    _copy_range(read, write, 0, size)


def _copy_range(read: int, write: int, offset: int, length: int) -> None:
    os.lseek(write, offset, os.SEEK_SET)
    while length > 0:
        done = os.sendfile(write, read, offset, min(length, 1 << 30))
        if not done:
            return
        offset += done
        length -= done


def is_opaque(fd: int) -> bool:
    """Whether a directory (an fd) is marked as opaque: what lower layers have in it is hidden then."""
    for attribute in OPAQUE_XATTRS:
        try:
            if os.getxattr(fd, attribute) == b"y":
                return True
        except OSError:
            continue
    try:
        os.stat(OPAQUE_NAME, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def copy_tree(source: int, target: int, copier: Copier, root: str) -> None:
    """Copy the content and attributes of directory `source` over directory `target` (fds).

    With `copier.marks` the copy has the marks that `source` has. Without, the marks take effect: a whiteout deletes
    what `target` has under its name, an opaque directory empties the one in `target` first, and a file replaces
    whatever has its name. Layers that are copied so one over the other, the bottom one first, become one tree.
    root: path of `target`, by which further names of a file find its first copy. The function calls itself for each
    directory; unpacking has bounded their depth.
    """
    base = os.open(root, PATH_DIRECTORY)
    try:
        strip_attributes(target)
        _copy(source, target, copier, base, "")
    finally:
        os.close(base)


def _copy(source: int, target: int, copier: Copier, base: int, prefix: str) -> None:
    if not copier.marks and is_opaque(source):
        for name in os.listdir(target):
            remove_entry(target, name)
    directories = []
    copier.place = prefix
    with os.scandir(source) as entries:
        for entry in entries:
            name = entry.name
            if entry.is_dir(follow_symlinks=False):
                directories.append(name)
                continue
            status = entry.stat(follow_symlinks=False)
            if not copier.marks:
                if is_whiteout(status):
                    remove_entry(target, name)
                    continue
                if name.startswith(WHITEOUT):
                    if name != OPAQUE_NAME:
                        remove_entry(target, name[len(WHITEOUT) :])
                    continue
                remove_entry(target, name)
            if not copier.link(status, base, f"{prefix}{name}", target):
                copier.entry(source, name, target, name, status)
    for name in directories:
        inner = os.open(name, PATH_DIRECTORY, dir_fd=source)
        try:
            try:
                os.mkdir(name, 0o700, dir_fd=target)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(name, dir_fd=target, follow_symlinks=False).st_mode):
                    remove_entry(target, name)
                    os.mkdir(name, 0o700, dir_fd=target)
            made = os.open(name, PATH_DIRECTORY, dir_fd=target)
            try:
                strip_attributes(made)
                _copy(inner, made, copier, base, f"{prefix}{name}/")
            finally:
                os.close(made)
        finally:
            os.close(inner)
    copier.attributes(source, target, os.fstat(source))


def strip_attributes(directory: int) -> None:
    """Take from a directory (an fd) all extended attributes that a layer may give.

    Of a directory in several layers only the topmost one's attributes show, so those that a lower layer gave must go.
    They go before files are made in it: each file would inherit a default access control list.
    """
    for attribute in _attributes(directory):
        if attribute.startswith(_GIVEN) and not attribute.startswith(MARKS):
            os.removexattr(directory, attribute)


def _attributes(file: int) -> list[str]:
    try:
        return os.listxattr(file)
    except OSError as e:
        if e.errno not in NO_XATTR:
            raise
        return []


def drop_acl(file: int | str) -> None:
    """Take from a new file or directory (an fd, or a path) the access control lists that it has inherited."""
    for attribute in _ACLS:
        try:
            os.removexattr(file, attribute)
        except OSError as e:
            if e.errno not in (*NO_XATTR, errno.ENODATA):
                raise


class NoInheritance:
    """A context manager: inside of it, what is made in `directory` (an fd) inherits no access control list.

    The directory's default list is taken away at the start and set again at the end.
    """

    __slots__ = ("_acl", "_directory")

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._acl: bytes | None = None

    def __enter__(self) -> None:
        try:
            self._acl = os.getxattr(self._directory, DEFAULT_ACL)
            os.removexattr(self._directory, DEFAULT_ACL)
        except OSError as e:
            if e.errno not in (*NO_XATTR, errno.ENODATA):
                raise

    def __exit__(self, *_: object) -> None:
        if self._acl is not None:
            os.setxattr(self._directory, DEFAULT_ACL, self._acl)


def remove_entry(directory: int, name: str) -> None:
    """Delete `name`, a file or a tree, in a directory (an fd); nothing happens when it is not there. Raises OSError."""
    from rootless.storage.files.removal import delete_at

    problem = delete_at(directory, name, name)
    if problem is not None:
        raise problem
