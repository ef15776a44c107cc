"""The user's directories, atomic files and locks. It knows where things are, not what is in them.

Imports stay at `os` (and, lazily, platformdirs): the monitor and the init of every container load this module.
"""

from __future__ import annotations

import fcntl
import os
import stat

from rootless.errors import HostLimit

APP = "rootless"
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


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


def directories(data: str | None = None) -> Directories:
    """The caller's directories, as platformdirs (XDG base directories) says.

    data: overrides the data directory (flag `--root`, else ROOTLESS_ROOT). The other directories then live below it,
    so that two stores never share sockets or locks.
    """
    root = data or os.environ.get("ROOTLESS_ROOT")
    if root:
        root = os.path.abspath(root)
        return Directories(root, f"{root}/cache", None, f"{root}/run")
    return Directories(_base("data"), _base("cache"), _base("config"), _runtime_directory())


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


def _runtime_directory() -> str:
    """XDG_RUNTIME_DIR where it is ours and private, else /tmp/rootless-UID checked for owner and mode.

    A directory of another user (after `su`) or with wider permissions would let that user reach our sockets.
    """
    uid = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    try:
        status = os.lstat(runtime)
        if stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o022:
            return f"{runtime}/{APP}"
    except OSError:
        pass
    return f"/tmp/{APP}-{uid}"  # noqa: S108 - ensure_private checks owner and mode


def ensure_private(path: str) -> str:
    """Make directory `path` (mode 0700, parents too) and return it.

    Raises HostLimit when it cannot be made, is a symbolic link, belongs to another user or is writable by others.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        status = os.lstat(path)
    except OSError as e:
        raise HostLimit(
            f"cannot make directory '{path}': {e.strerror}",
            hint="set ROOTLESS_ROOT to a directory that you can write",
        ) from e
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise HostLimit(
            f"directory '{path}' is not private to you",
            hint="remove it, or set XDG_RUNTIME_DIR or ROOTLESS_ROOT to a directory of your own with mode 0700",
        )
    return path


def atomic_write(path: str, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write `path` so that a reader sees the old content or the new, never a part, whenever we are killed.

    durable: fsync before the rename; False where losing the newest content at a power cut is harmless.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.tmp")  # of a bare name: here, not in "/"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
    finally:
        os.close(fd)


class Lock:
    """A lock on a named file, held in a `with`: flock, which Linux also carries over NFS.

    The file stays: removing it while another process waits on the old inode would let two in.
    """

    __slots__ = ("_fd", "path", "shared")

    def __init__(self, path: str, *, shared: bool = False) -> None:
        self.path = path
        self.shared = shared
        self._fd = -1

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take the lock; False when `blocking` is False and another process holds it."""
        flags = fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX
        # NFS maps flock onto byte-range locks, which need the file open for writing, shared locks too
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
