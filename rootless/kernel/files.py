"""Files by fd: openat2 and its checked fallback, directories made in a root, renames, reflinks, xattrs, whiteouts."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from rootless.kernel.libc import check_result, libc, syscall, syscall_number

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

_OPENAT2 = 437
_FICLONE = 0x40049409
if os.uname().machine.startswith("ppc"):
    _FICLONE = 0x80049409
_MAX_LINKS = 40  # the kernel's MAXSYMLINKS
_RETRIES = 32
# The answers of FICLONE (ioctl_ficlone(2)) that say that this pair of files cannot share blocks, so that their bytes
# must be copied. Every other error is a failure of the disk or of the caller.
_NO_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY)


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), Linux 5.6: close-on-exec fd of `path` under the RESOLVE_* rules.

    EAGAIN and EINTR (a rename or mount raced with a `..`) are retried. ENOSYS on older kernels.
    ROOTLESS_NO_OPENAT2=1 in the environment forces it, so that tests reach the fallback.
    """
    if os.environ.get("ROOTLESS_NO_OPENAT2") == "1":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), path)
    if not flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY):
        mode = 0  # openat2 refuses a mode with flags that make no file (EINVAL), where open(2) ignores it
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    encoded = os.fsencode(path)
    for attempt in range(_RETRIES):
        try:
            return syscall(_OPENAT2, dirfd, encoded, how, len(how))
        except OSError as e:
            if e.errno in (errno.EAGAIN, errno.EINTR) and attempt < _RETRIES - 1:
                continue
            e.filename = path
            raise
    raise AssertionError("unreachable")


def open_in_root(rootfd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` as a process chrooted to `rootfd` would: no link and no `..` ever leads out. Close-on-exec.

    Links of /proc that jump (magic links) are refused. Without openat2 the walk is done here, one name at a time.
    """
    try:
        return openat2(rootfd, path or ".", flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as e:
        if e.errno != errno.ENOSYS:
            raise
    return _Walk(rootfd).open(path, flags, mode)


def walk_beneath(dirfd: int, path: str, flags: int) -> int:
    """Open `path` below `dirfd` name by name, refusing every symbolic link (ELOOP) and `..` (EXDEV)."""
    names = [n for n in path.split("/") if n not in ("", ".")]
    if ".." in names or not names:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    fd = os.dup(dirfd)
    for name in names[:-1]:
        try:
            inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    try:
        return os.open(names[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    finally:
        os.close(fd)


def mkdirs_in_root(rootfd: int, path: str, mode: int) -> int:
    """Make directory `path` and its missing parents inside `rootfd`; O_PATH fd of the directory.

    Links are followed as in a chroot; a dangling one gets its target made, inside the root too.
    Raises NotADirectoryError when a name on the way is something else.
    """
    try:
        return open_in_root(rootfd, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        return _Walk(rootfd, mode).open(path, os.O_PATH | os.O_DIRECTORY, 0)


def make_file_in_root(rootfd: int, path: str, mode: int, directory_mode: int) -> int:
    """Make the empty file `path` and its missing parents inside `rootfd`; O_PATH fd of the file. One that is there is
    taken as it is.

    Links are followed as in a chroot; a dangling one, also as the last name, gets its target made, inside the root too.
    Raises NotADirectoryError when a name on the way is something else.
    """
    flags = os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
    os.close(_Walk(rootfd, directory_mode).open(path, flags, mode))
    return open_in_root(rootfd, path, os.O_PATH)


class _Walk:
    """Path resolution in a root by fds only.

    The directories from the root down to the current one are all held open, so `..` drops the last fd and asks the
    kernel nothing: a directory that somebody moves out of the root meanwhile cannot lead us out. Every name is opened
    with O_NOFOLLOW, and links are resolved here, where their targets can be kept inside.
    """

    __slots__ = ("directory_mode", "links", "root", "stack")

    def __init__(self, rootfd: int, directory_mode: int | None = None) -> None:
        """directory_mode: of missing directories on the way, which are made then; None makes none."""
        self.root = rootfd
        self.directory_mode = directory_mode
        self.stack: list[int] = []
        self.links = 0

    def open(self, path: str, flags: int, mode: int) -> int:
        try:
            return self._open(path, flags, mode)
        except OSError as e:
            e.filename = path
            raise
        finally:
            self._reset()

    def _open(self, path: str, flags: int, mode: int) -> int:
        todo = _names(path)
        if path.endswith("/"):
            flags |= os.O_DIRECTORY
        while todo:
            name = todo.pop()
            if name == "..":
                if self.stack:
                    os.close(self.stack.pop())
                continue
            last = not todo
            fd = self._look(name, missing_ok=last and bool(flags & os.O_CREAT))
            if fd is None:
                return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=self._here())
            if stat.S_ISLNK(os.fstat(fd).st_mode) and not (last and flags & os.O_NOFOLLOW):
                self._follow(fd, todo)
            elif last and not (self.directory_mode is not None and flags & os.O_DIRECTORY):
                os.close(fd)
                # The name is looked up a second time, since an O_PATH fd cannot be read. A link that was put in its
                # place since then is not followed: O_NOFOLLOW answers ELOOP.
                return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=self._here())
            else:
                self.stack.append(fd)
        if flags & os.O_CREAT:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return os.open(".", flags | os.O_CLOEXEC, dir_fd=self._here())

    def _here(self) -> int:
        return self.stack[-1] if self.stack else self.root

    def _look(self, name: str, *, missing_ok: bool) -> int | None:
        """O_PATH fd of `name`; None when it is missing and may be; else a missing directory is made where that is
        wanted."""
        # O_PATH opens nothing: an image may have a FIFO here, whose open(2) would wait for its other end forever, or a
        # device, which acts when it is opened.
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(name, flags, dir_fd=self._here())
        except FileNotFoundError:
            if missing_ok:
                return None
            if self.directory_mode is None:
                raise
        try:
            os.mkdir(name, self.directory_mode, dir_fd=self._here())
        except FileExistsError:
            pass
        return os.open(name, flags, dir_fd=self._here())

    def _follow(self, fd: int, todo: list[str]) -> None:
        from rootless.kernel.mounts import PROC_SUPER_MAGIC, fs_magic

        try:
            self.links += 1
            # The links of /proc/PID (root, cwd, exe, fd/N) name a file that the kernel jumps to, wherever it is; their
            # text is a path of another root. RESOLVE_NO_MAGICLINKS answers ELOOP to them, and so does this walk, which
            # cannot tell them from procfs' ordinary links and refuses those too.
            if self.links > _MAX_LINKS or fs_magic(fd) == PROC_SUPER_MAGIC:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)
        if target.startswith("/"):
            self._reset()
        todo += _names(target)

    def _reset(self) -> None:
        while self.stack:
            os.close(self.stack.pop())


def _names(path: str) -> list[str]:
    """The names of `path`, last first."""
    return [n for n in reversed(path.split("/")) if n not in ("", ".")]


def renameat2(olddirfd: int, old: str, newdirfd: int, new: str, flags: int = 0) -> None:
    """renameat2(2) with RENAME_NOREPLACE (EEXIST) or RENAME_EXCHANGE; EINVAL where the filesystem cannot."""
    result = libc.syscall(syscall_number("renameat2"), olddirfd, os.fsencode(old), newdirfd, os.fsencode(new), flags)
    check_result(result, "renameat2", old, new, flags)


def link_beneath(top: int, path: str, dirfd: int, name: str) -> None:
    """Make `name` in directory `dirfd` a further name of the file `path` below directory `top` (linkat(2)).

    linkat follows links in every part of a path but the last. Whoever can write below `top` could lead `path` to any
    file of the host, so its directory is opened without following links (ELOOP, ENOTDIR) or `..` (EXDEV).
    """
    above, _, last = path.rpartition("/")
    parent = _directory_beneath(top, above)
    try:
        os.link(last, name, src_dir_fd=parent, dst_dir_fd=dirfd, follow_symlinks=False)
    finally:
        os.close(parent)


def _directory_beneath(top: int, path: str) -> int:
    flags = os.O_PATH | os.O_DIRECTORY
    if not path:
        return os.dup(top)
    try:
        return openat2(top, path, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    except OSError as e:
        if e.errno != errno.ENOSYS:
            raise
    return walk_beneath(top, path, flags)


def open_special(dirfd: int, name: str | bytes, kind: int) -> int:
    """O_PATH fd of `name` in directory `dirfd`, which was made there as a file of type `kind` (S_IFIFO, S_IFSOCK).

    Raises OSError (ESTALE) when a file of another type has taken the name since. A call that takes only a path
    (chmod, setxattr) is given /proc/self/fd/N: the kernel goes to the open file, and looks up no name that somebody
    could have exchanged.
    """
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
    if stat.S_IFMT(os.fstat(fd).st_mode) != kind:
        os.close(fd)
        raise OSError(errno.ESTALE, "another file has taken its place", os.fsdecode(name))
    return fd


def chmod_special(dirfd: int, name: str | bytes, mode: int) -> None:
    """Set the permission bits of a FIFO or socket that was made as `name`; `mode` has its type too (S_IFIFO, S_IFSOCK).

    chmod(2) follows links, so by name whoever can write to the directory would choose the file whose mode is set; and
    fchmod(2) needs an open file, while opening a FIFO waits for its other end. When a file of another type has taken
    the name since, it belongs to whoever put it there, and nothing is changed. Raises OSError.
    """
    try:
        fd = open_special(dirfd, name, stat.S_IFMT(mode))
    except OSError as e:
        if e.errno != errno.ESTALE:
            raise
        return
    try:
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(mode))
    finally:
        os.close(fd)


def clone_file(src_fd: int, dst_fd: int) -> bool:
    """Make `dst_fd` share the blocks of `src_fd` (FICLONE); False where these two cannot."""
    try:
        fcntl.ioctl(dst_fd, _FICLONE, src_fd)
    except OSError as e:
        if e.errno in _NO_CLONE:
            return False
        raise
    return True


def lgetxattr(dirfd: int, name: str, attribute: str) -> bytes:
    """Value of an extended attribute of `name` in directory `dirfd`, itself when it is a link."""
    return os.getxattr(f"/proc/self/fd/{dirfd}/{name}", attribute, follow_symlinks=False)


def syncfs(fd: int) -> None:
    """Write the whole filesystem of `fd` to its disk: one call in place of an fsync per file."""
    check_result(libc.syncfs(fd), "syncfs", fd)


def make_whiteout(dirfd: int, name: str) -> None:
    """Character device 0:0, overlayfs's mark of a deleted name: the one device that needs no CAP_MKNOD (Linux 5.8)."""
    os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=dirfd)


def is_whiteout(status: os.stat_result) -> bool:
    """Is this the status of a whiteout, as overlayfs makes them (character device 0:0)?"""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
