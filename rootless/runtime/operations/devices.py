"""/dev without mknod: the host's nodes bound after a check of their numbers, devpts, the console, the usual links."""

from __future__ import annotations

import errno
import os
import stat

from rootless.errors import RuntimeFailure
from rootless.kernel import mounts
from rootless.kernel.files import mkdirs_in_root, open_in_root
from rootless.runtime.mount_options import MountOptions
from rootless.runtime.operations import attach
from rootless.runtime.operations.base import Operation, RootContext, existing, mountpoint, reopened
from rootless.runtime.operations.config_mounts import Filesystem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.runtime.spec.oci_config import OciDevice

_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class Device(Operation):
    """A device node at `target`, an absolute path in the container: the host's own node of that type and number, bound.

    Mode, uid and gid of `node` are those of a fifo, which is made; a bound node keeps the host's, and one line says so
    where it is not the mode that was asked for. Its mount is nosuid and noexec, as with runc and crun: the host's /dev
    may have neither, and a node is nothing to execute.
    """

    __slots__ = ("node", "target")

    def __init__(self, target: str, node: OciDevice) -> None:
        self.target = target
        self.node = node

    @property
    def path(self) -> str:
        return self.target

    def describe(self) -> str:
        return f"device '{self.target}'"

    def apply(self, context: RootContext) -> None:
        if self.node.kind == "p":
            self._fifo(context)
            return
        source = self._host_node()
        if source is None:
            raise RuntimeFailure(
                f"cannot provide device '{self.target}': the host has no such device node",
                hint="an ordinary user cannot make device nodes, only pass on those of the host",
            )
        try:
            if self._is_there(context):
                return
            present = stat.S_IMODE(os.fstat(source).st_mode)
            mode = self.node.mode
            if mode is not None and mode & 0o777 != present & 0o777:
                context.warn(
                    f"device '{self.target}' has mode {present:04o}, as on the host, not {mode & 0o777:04o}: "
                    "only root can make device nodes"
                )
            target = mountpoint(context, self.target, directory=False)
            try:
                mount = attach.bind(source, target, lambda: reopened(context, self.target), recursive=False)
            finally:
                os.close(target)
            attach.set_attributes(mount, mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOEXEC)
            os.close(mount)
        finally:
            os.close(source)

    def _matches(self, status: os.stat_result) -> bool:
        if stat.S_IFMT(status.st_mode) != _KINDS[self.node.kind]:
            return False
        return self.node.major is None or status.st_rdev == os.makedev(self.node.major, self.node.minor or 0)

    def _host_node(self) -> int | None:
        """O_PATH fd of the host's node; where its path has another number, /dev is searched for the number."""
        for path in (self.target, *self._search()):
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            if self._matches(os.fstat(fd)):
                return fd
            os.close(fd)
        return None

    def _search(self) -> list[str]:
        if self.node.major is None:
            return []
        try:
            status = os.stat(self.target)
            if self._matches(status):
                return []
        except OSError:
            pass
        found = []
        for directory, subdirectories, names in os.walk("/dev"):
            subdirectories[:] = [s for s in subdirectories if s not in ("pts", "shm", "mqueue")]
            for name in names:
                path = f"{directory}/{name}"
                try:
                    if self._matches(os.lstat(path)):
                        found.append(path)
                except OSError:
                    pass
        return found

    def _is_there(self, context: RootContext) -> bool:
        """Whether the root has the right node; an empty file is our place to mount, anything else is an error."""
        fd = existing(context, self.target)
        if fd is None:
            return False
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if self._matches(status):
            return True
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            return False
        raise RuntimeFailure(f"cannot provide device '{self.target}': the image has another file there")

    def _fifo(self, context: RootContext) -> None:
        if self._is_there(context):
            return
        parent, _, name = self.target.rpartition("/")
        parent_fd = mkdirs_in_root(context.root_fd, parent or "/", 0o755)
        try:
            os.mkfifo(name, 0o666 if self.node.mode is None else self.node.mode & 0o7777, dir_fd=parent_fd)
            if self.node.uid or self.node.gid:
                os.chown(name, self.node.uid, self.node.gid, dir_fd=parent_fd, follow_symlinks=False)
        finally:
            os.close(parent_fd)


class Symlink(Operation):
    """A symbolic link `name` → `target`, unless there is something already."""

    __slots__ = ("name", "target")

    def __init__(self, target: str, name: str) -> None:
        self.target = target
        self.name = name

    @property
    def path(self) -> str:
        return self.name

    def describe(self) -> str:
        return f"link '{self.name}' to '{self.target}'"

    def apply(self, context: RootContext) -> None:
        parent, _, name = self.name.rpartition("/")
        parent_fd = mkdirs_in_root(context.root_fd, parent or "/", 0o755)
        try:
            os.symlink(self.target, name, dir_fd=parent_fd)
        except FileExistsError:
            pass
        finally:
            os.close(parent_fd)


class Devpts(Filesystem):
    """A devpts instance of its own; `gid=` is left out where the id map lacks that group, for the kernel refuses it."""

    __slots__ = ()

    def __init__(self, destination: str, options: MountOptions) -> None:
        super().__init__("devpts", "devpts", destination, options)


class Console(Operation):
    """A new pty of the container's devpts; its slave is bound on /dev/console.

    CVE-2025-52565: master and slave are fds of the kernel's making, checked; no name in the container is trusted.
    """

    __slots__ = ("columns", "rows", "uid")

    def __init__(self, uid: int, rows: int = 0, columns: int = 0) -> None:
        self.uid = uid
        self.rows = rows
        self.columns = columns

    @property
    def path(self) -> str:
        return "/dev/console"

    def describe(self) -> str:
        return "open a pty, bind it on '/dev/console'"

    def apply(self, context: RootContext) -> None:
        from rootless.kernel.tty import is_pty_slave, set_winsize

        try:
            master, slave = open_pty(context.root_fd)
        except FileNotFoundError:
            # this is before pivot_root: the host's
            master, slave = open_pty(None)
        context.pty = (master, slave)
        if self.rows and self.columns:
            set_winsize(master, self.rows, self.columns)
        if self.uid:
            # -1: the group is tty where it is mapped
            os.fchown(slave, self.uid, -1)
        if not is_pty_slave(slave):
            raise RuntimeFailure("cannot bind '/dev/console': the pty is none of devpts")
        target = mountpoint(context, "/dev/console", directory=False)
        try:
            os.close(attach.bind(slave, target, lambda: os.dup(slave), recursive=False))
        finally:
            os.close(target)


def open_pty(root_fd: int | None) -> tuple[int, int]:
    """(master, slave) of the devpts at /dev/pts in the root, None for the one that this process sees.

    Raises FileNotFoundError where no devpts is there: a file `ptmx` of another file system would be the container's.
    """
    try:
        if root_fd is None:
            directory = os.open("/dev/pts", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            directory = open_in_root(root_fd, "/dev/pts", os.O_PATH | os.O_DIRECTORY)
    except OSError as e:
        raise _no_devpts() from e
    try:
        if mounts.fs_magic(directory) != mounts.DEVPTS_SUPER_MAGIC:
            raise _no_devpts()
        from rootless.kernel.tty import open_ptmx

        return open_ptmx(directory)
    finally:
        os.close(directory)


def _no_devpts() -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no devpts is mounted on /dev/pts")
