"""What every operation is, and the root it works in. It carries out nothing by itself."""

from __future__ import annotations

import errno
import os
import stat

from rootless.errors import RuntimeFailure
from rootless.kernel.files import make_file_in_root, mkdirs_in_root, open_in_root
from rootless.kernel.procfs import is_procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BEFORE_MOUNTS = 0
"""Stage of an operation that wants the root as the image made it."""
AFTER_MOUNTS = 1
"""Stage of an operation that wants all mounts of the configuration in place."""


class RootContext:
    """What operations share while they are applied, inside the new namespaces and before pivot_root.

    root: absolute path of the root file system in the old root; root_fd: O_PATH fd of it, -1 until the root is mounted;
    warn: takes one line for the user; sealed: mounts to make read-only at the end: (fd, recursive, destination);
    pty: (master, slave) of a terminal's pty; old_proc: O_PATH fd of the procfs that the launcher sees.
    """

    __slots__ = ("old_proc", "pty", "root", "root_fd", "sealed", "warn")

    def __init__(self, root: str, warn: Callable[[str], None]) -> None:
        self.root = root
        self.root_fd = -1
        self.warn = warn
        self.sealed: list[tuple[int, bool, str]] = []
        self.pty: tuple[int, int] | None = None
        self.old_proc = -1


class Operation:
    """One step of building the container's view. `path` is what an error names."""

    __slots__ = ()
    stage = AFTER_MOUNTS

    @property
    def path(self) -> str | None:
        """The file that the step is about; None when it is about none."""
        return None

    def describe(self) -> str:
        """What the step does, as the object of "cannot": `mount proc on '/proc'`."""
        raise NotImplementedError

    def apply(self, context: RootContext) -> None:
        """Carry the step out, in the new namespaces.

        Raises OSError, or RuntimeFailure where the errno alone would not say enough.
        """
        raise NotImplementedError


def existing(context: RootContext, path: str) -> int | None:
    """O_PATH fd of `path` inside the root, the links of the image followed inside it; None when there is none."""
    try:
        return open_in_root(context.root_fd, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return None


def reopened(context: RootContext, path: str) -> int:
    """O_PATH fd of `path` inside the root, where something has just been mounted. Raises FileNotFoundError."""
    fd = existing(context, path)
    if fd is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return fd


def mountpoint(context: RootContext, path: str, *, directory: bool, in_proc: bool = False) -> int:
    """O_PATH fd of `path` inside the root to mount on, made with its parents when missing (mode 0755, or 0644). Of a
    dangling link in the image the target is made, inside the root too.

    CVE-2021-30465, CVE-2024-45310: everything goes by fds that cannot leave the root, and the caller mounts on the fd.
    in_proc: the mount may lie in a procfs. No other may: later processes of the container, and we among them, would
    take its files for the kernel's answers. The fd decides, for the image's links may lead there by any name.
    """
    refuse_redirected(context, path)
    if not in_proc and (path == "/proc" or path.startswith("/proc/")):
        raise in_proc_error(path)
    fd = existing(context, path)
    if fd is None:
        if directory:
            fd = mkdirs_in_root(context.root_fd, path, 0o755)
        else:
            fd = make_file_in_root(context.root_fd, path, 0o644, 0o755)
    if stat.S_ISDIR(os.fstat(fd).st_mode) != directory:
        os.close(fd)
        wanted, found = ("a directory", "a file") if directory else ("a file", "a directory")
        raise RuntimeFailure(f"cannot mount {wanted} on '{path}': it is {found} in the image")
    if not in_proc and is_procfs(fd):
        os.close(fd)
        raise in_proc_error(path)
    return fd


def in_proc_error(path: str) -> RuntimeFailure:
    """The error for a mount on `path`, which would lie over what the kernel tells in /proc."""
    return RuntimeFailure(f"cannot mount on '{path}': it is inside /proc")


def refuse_redirected(context: RootContext, path: str) -> None:
    """Raise when `path` is /proc or /sys, or below, and that is no real directory of the root.

    CVE-2019-19921, CVE-2023-27561: with /proc as a link to elsewhere the masks would cover the wrong files.
    """
    first = path.lstrip("/").partition("/")[0]
    if first not in ("proc", "sys"):
        return
    try:
        mode = os.stat(first, dir_fd=context.root_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "no directory"
        raise RuntimeFailure(f"cannot mount on '{path}': '/{first}' is {kind} in the image")


def fd_path(fd: int) -> str:
    """A path that system calls without an fd argument resolve to the very file of `fd`."""
    return f"/proc/self/fd/{fd}"
