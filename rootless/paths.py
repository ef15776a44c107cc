"""The user's directories, atomic files and locks. It knows where things are, not what is in them.

Imports stay at `os` (and, lazily, platformdirs): the monitor and the init of every container load this module.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from rootless.errors import HostLimit

APP = "rootless"
SHARED = "/tmp"  # noqa: S108 - a directory of ours in it is looked at here, and checked by its fd before each use
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Directories:
    """Absolute paths of one user's directories; nothing is created until `ensure`.

    data: images, containers, volumes; cache: what can be made again; config: the user's settings;
    runtime: sockets and pid files, gone at reboot (tmpfs where the host has one).
    """

    __slots__ = ("_config", "cache", "data", "runtime")

    def __init__(self, data: str, cache: str, config: str | None, runtime: str) -> None:
        self.data = data
        self.cache = cache
        self._config = config
        self.runtime = runtime

    @property
    def config(self) -> str:
        """Where config.toml is; the user's one also for a store named by `--root`."""
        if self._config is None:
            self._config = _base("config")
        return self._config


def user_directories(data: str | None = None) -> Directories:
    """The caller's directories, as platformdirs (XDG base directories) says.

    data: overrides the data directory (flag `--root`, else ROOTLESS_ROOT). The other directories then live below it,
    so that two stores never share sockets or locks.
    """
    root = data or os.environ.get("ROOTLESS_ROOT")
    if root:
        root = os.path.abspath(root)
        return Directories(root, f"{root}/cache", None, f"{root}/run")
    return Directories(_base("data"), _base("cache"), _base("config"), runtime_directory())


_BASES = {
    "data": ("XDG_DATA_HOME", ".local/share"),
    "cache": ("XDG_CACHE_HOME", ".cache"),
    "config": ("XDG_CONFIG_HOME", ".config"),
}


def _base(kind: str) -> str:
    """Our directory below one of the XDG base directories, as platformdirs has it.

    Where the variable, or else HOME, is a plain absolute path the answer needs no library: loading platformdirs takes a
    twelfth of the time of `rootless run`. A test compares the two.
    """
    variable, default = _BASES[kind]
    chosen = os.environ.get(variable)
    if chosen is None:
        home = os.environ.get("HOME", "")
        chosen = f"{home}/{default}" if home.startswith("/") and home != "/" else ""
    if chosen.startswith("/") and not chosen.startswith("//") and chosen == os.path.normpath(chosen) != "/":
        return f"{chosen}/{APP}"
    from platformdirs.unix import Unix

    return str(getattr(Unix(APP, appauthor=False), f"user_{kind}_dir"))


def runtime_directory() -> str:
    """The runtime directory of a caller who has not chosen a store by `--root`.

    `XDG_RUNTIME_DIR/rootless` where that variable names a directory of ours which nobody else can write; else
    `/tmp/rootless-UID`, unless somebody else was there first, for in `/tmp` anybody may take any name; else `run` in
    the data directory, where nobody else can take a name.
    """
    base = runtime_base()
    if base is not None:
        return f"{base}/{APP}"
    shared = f"{SHARED}/{APP}-{os.geteuid()}"
    return shared if not os.path.lexists(shared) or _is_closed(shared) else f"{_base('data')}/run"


def runtime_base() -> str | None:
    """`XDG_RUNTIME_DIR`, or `/run/user/UID`, where it belongs to us and nobody else can write to it; else None.

    After `su` the variable often names the directory of another user, who would reach our sockets in it.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return runtime if _is_closed(runtime) else None


def _is_closed(path: str) -> bool:
    """Whether `path` is a directory (not a link to one) of ours which nobody else can write."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def ensure_private(path: str, *, is_own: Callable[[str], bool] | None = None) -> str:
    """Make directory `path` (mode 0700, missing parents too) and return it; see `open_private`."""
    os.close(open_private(path, is_own=is_own))
    return path


def open_private(path: str, *, is_own: Callable[[str], bool] | None = None) -> int:
    """Make directory `path` and its missing parents; an O_PATH fd of it, which the caller closes.

    What is made has mode 0700, our group and no default ACL, whatever the umask, a set-gid parent or the parent's
    default ACL say. A directory that was there already is given mode 0700: earlier versions made 0755 and 0775 of some.
    is_own: whether we make entries of this name; a directory that also holds others (`--root $HOME`) keeps its mode.

    Raises HostLimit when the directory cannot be made, is a symbolic link, belongs to another user, holds entries of
    another user who could write to it, or stays writable by others.
    """
    try:
        make_private(path)
    except OSError as e:
        raise HostLimit(
            f"cannot make directory '{path}': {e.strerror}",
            hint="set ROOTLESS_ROOT to a directory that you can write",
        ) from e
    return _open_closed(path, is_own)


def close_to_others(path: str, *, is_own: Callable[[str], bool] | None = None) -> None:
    """Do with the directory `path`, where it is there, what `open_private` does with one that was there.

    To be called before files below it are trusted. A link of ours to a directory of ours is followed. Raises HostLimit.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return
    if stat.S_ISLNK(status.st_mode) and status.st_uid == os.geteuid():
        path = os.path.realpath(path)
        if not os.path.lexists(path):
            return
    os.close(_open_closed(path, is_own))


def make_private(path: str) -> None:
    """Make directory `path` and its missing parents with mode 0700, and leave those alone that are there.

    Whatever the umask, a set-gid parent or the parent's default ACL say. Raises OSError.
    """
    try:
        make_new_private(path)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if parent in ("", path):
            raise
        make_private(parent)
        try:
            make_new_private(path)
        except FileExistsError:
            return
    except OSError:
        if not os.path.lexists(path):  # automounters and read-only file systems do not say EEXIST first
            raise


def make_new_private(path: str) -> None:
    """Make directory `path` as `make_private` does, where its parent is there and itself is not.

    What is made below it inherits neither group nor access control list. Raises OSError, FileExistsError among them.
    """
    os.mkdir(path, 0o700)
    fd = os.open(path, _DIRECTORY)
    try:
        status = os.fstat(fd)
        if status.st_uid == os.geteuid():  # else somebody else's has taken its place since
            _close_mode(fd, status)
            _drop_inherited(fd, status)
    finally:
        os.close(fd)


def _drop_inherited(fd: int, status: os.stat_result) -> None:
    """Undo what a new directory has inherited and would pass on: its group and a default ACL.

    A set-gid parent, or a file system mounted with `grpid`, gives its own group to what is made in it; a default ACL
    gives others rights to every file, whatever mode the file is made with.
    """
    here = f"/proc/self/fd/{fd}"
    try:
        if status.st_gid != os.getegid():
            os.chown(here, -1, os.getegid())
    except OSError:
        pass  # a file system with owners of its own; nobody but us gets in all the same
    try:
        os.removexattr(here, "system.posix_acl_default")
    except OSError:
        pass  # there is none, or the file system knows none


def _close_mode(fd: int, status: os.stat_result) -> None:
    if stat.S_IMODE(status.st_mode) != 0o700:
        try:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)  # fchmod(2) refuses fds of O_PATH
        except OSError:
            pass  # the caller looks whether it matters


def _open_closed(path: str, is_own: Callable[[str], bool] | None) -> int:
    """O_PATH fd of directory `path` after it was closed to others. All questions are asked of the fd, not the name."""
    try:
        fd = os.open(path, _DIRECTORY)
    except NotADirectoryError:  # a file, or a link, which O_NOFOLLOW does not follow
        raise _not_private(path) from None
    except OSError as e:
        raise HostLimit(f"cannot open directory '{path}': {e.strerror}") from e
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise _not_private(path)
        if status.st_mode & 0o7077:
            _mend(fd, path, status, is_own)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _mend(fd: int, path: str, status: os.stat_result, is_own: Callable[[str], bool] | None) -> None:
    """Take the rights of others off a directory that we own.

    What others have put into it while they could is not taken for ours: files of another user in it are a HostLimit.
    """
    try:
        names = os.listdir(f"/proc/self/fd/{fd}")
    except OSError as e:
        raise HostLimit(f"cannot read directory '{path}': {e.strerror}") from e
    if status.st_mode & 0o022:
        for name in names:
            if _belongs_to_another(f"/proc/self/fd/{fd}/{name}"):
                raise HostLimit(
                    f"directory '{path}' could be written by others, and '{name}' in it belongs to another user",
                    hint="look at what is in it; remove what is not yours",
                )
    if is_own is None or all(map(is_own, names)):
        _close_mode(fd, status)
    if os.fstat(fd).st_mode & 0o022:
        raise _not_private(path)


def _belongs_to_another(path: str) -> bool:
    try:
        return os.lstat(path).st_uid != os.geteuid()
    except OSError:
        return False  # gone meanwhile


def _not_private(path: str) -> HostLimit:
    return HostLimit(
        f"directory '{path}' is not private to you",
        hint="remove it, or set ROOTLESS_ROOT, XDG_RUNTIME_DIR or XDG_CACHE_HOME to a directory of your own, mode 0700",
    )


def atomic_write(path: str, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write `path` so that a reader sees the old content or the new, never a part, whenever we are killed.

    durable: when this returns a power cut does not undo it; False where losing the newest content then is harmless.
    """
    directory, name = os.path.split(path)
    # In the same directory, since a rename never crosses file systems; os.path.join, since a bare name has none
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            # Before the rename: else the new name could be on the disk before the bytes are, and a power cut in between
            # leaves an empty file where the old content was
            os.fsync(fd)
        os.rename(temporary, path)
        if durable:
            # After the rename, which is a change of the directory and is only safe when that is on the disk
            sync_paths((directory or ".",))
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
    finally:
        os.close(fd)


def sync_paths(paths: Iterable[str]) -> None:
    """Have the files and directories `paths` on the disk, in this order; those that are not there are left out.

    A file is safe when it and then its directory are. Raises OSError when the disk fails.
    """
    opened = []
    try:
        for path in paths:
            try:
                opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))
            except FileNotFoundError:
                continue
        # POSIX_FADV_DONTNEED begins to write each file without waiting. The first fsync then commits the journal of
        # ext4 for all of them, where one after the other would each wait for a commit (3 ms, not 40).
        for fd in opened:
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            except OSError:
                continue  # a directory, or a file system that takes no advice
        for fd in opened:
            try:
                os.fsync(fd)
            except OSError as e:
                if e.errno not in (errno.EINVAL, errno.EBADF):  # some file systems do not know it of directories
                    raise
    finally:
        for fd in opened:
            os.close(fd)


def overwrite_file(path: str, content: bytes) -> None:
    """Write `content` over the file `path`, which is there: nearly the only write that a full disk still takes.

    One write(2), so that a kill never leaves a part; a power cut may, and a reader must bear it. Raises OSError, ENOSPC
    also when less than `content` was written.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        longer = os.fstat(fd).st_size - len(content)
        # JSON may end in spaces: with them one write replaces a longer content whole, where a shorter file would need a
        # second step, ftruncate(2), and a kill between the two would leave the end of the old content
        written = os.write(fd, content + b" " * longer)
        if written < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(fd)


class Lock:
    """A lock on a named file, held in a `with`: flock, which Linux also carries over NFS.

    The file stays when the lock is given back. Were it removed, a process that waits on the old inode and one that
    makes a new file of the name would both have the lock.
    """

    __slots__ = ("_fd", "path", "shared")

    def __init__(self, path: str, *, shared: bool = False) -> None:
        self.path = path
        self.shared = shared
        self._fd = -1

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take the lock; False when `blocking` is False and another process holds it."""
        flags = fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX
        # O_RDWR serves both kinds: NFS maps flock onto byte-range locks of fcntl(2), which need a file that is open for
        # writing to be exclusive, and one that is open for reading to be shared (flock(2))
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, flags if blocking else flags | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def is_current(self) -> bool:
        """Whether the file that is locked still has its name: it may have been removed, or another one put there."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.lstat(self.path))
        except OSError:
            return False

    def make(self) -> None:
        """Make the file of the lock without taking it: on a full disk it could not be made when it is needed."""
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
