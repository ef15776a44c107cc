"""The root file system itself: mounted, entered, and made read-only at last. Nothing inside it is its business."""

from __future__ import annotations

import errno
import os

from rootless.errors import RuntimeFailure
from rootless.kernel import mounts
from rootless.kernel.files import mkdirs_in_root
from rootless.runtime.operations import attach
from rootless.runtime.operations.base import BEFORE_MOUNTS, Operation, RootContext


class OpenRoot(Operation):
    """Take the root file system: one that is mounted by now, or a directory bound on itself.

    pivot_root(2) wants a mount for the new root, hence the bind. nosuid: where not all ids of the root's files are the
    container's own, no setuid program in it may give the rights of another user.
    """

    __slots__ = ("bind", "nosuid")
    stage = BEFORE_MOUNTS

    def __init__(self, *, bind: bool, nosuid: bool = False) -> None:
        self.bind = bind
        self.nosuid = nosuid

    def describe(self) -> str:
        return "bind the root file system on itself" if self.bind else "open the root file system"

    def apply(self, context: RootContext) -> None:
        target = os.open(context.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if not self.bind:
            context.root_fd = target
            return
        try:
            context.root_fd = attach.bind(
                context.root,
                target,
                lambda: os.open(context.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
                recursive=True,
            )
        finally:
            os.close(target)
        if self.nosuid:
            attach.set_attributes(context.root_fd, mounts.MOUNT_ATTR_NOSUID)


class MakeDirectory(Operation):
    """A directory of the container that has to be there: the working directory."""

    __slots__ = ("directory",)

    def __init__(self, directory: str) -> None:
        self.directory = directory

    @property
    def path(self) -> str:
        return self.directory

    def describe(self) -> str:
        return f"make directory '{self.directory}'"

    def apply(self, context: RootContext) -> None:
        try:
            os.close(mkdirs_in_root(context.root_fd, self.directory, 0o755))
        except NotADirectoryError:
            raise RuntimeFailure(f"working directory '{self.directory}' is a file in the image") from None
        except OSError as e:
            # Only the container's user may enter the directory above, or the image is read-only: the directory may be
            # there, and command.enter_directory reports it if it is not
            if e.errno not in (errno.EACCES, errno.EROFS):
                raise RuntimeFailure(f"cannot make working directory '{self.directory}': {e.strerror}") from e


class SealReadOnly(Operation):
    """Make the mounts read-only that are to be, now that all targets below them exist; the root last."""

    __slots__ = ("root",)

    def __init__(self, *, root: bool) -> None:
        self.root = root

    def describe(self) -> str:
        return "make mounts read-only" + (", and the root" if self.root else "")

    def apply(self, context: RootContext) -> None:
        while context.sealed:
            fd, recursive, destination = context.sealed.pop()
            try:
                attach.set_attributes(fd, mounts.MOUNT_ATTR_RDONLY, recursive=recursive)
            except OSError as e:
                raise RuntimeFailure(f"cannot make '{destination}' read-only: {e.strerror}") from e
            finally:
                os.close(fd)
        if self.root:
            attach.set_attributes(context.root_fd, mounts.MOUNT_ATTR_RDONLY)


class PivotRoot(Operation):
    """Make the root file system `/`, and let go of the old one. propagation: MS_* of the new `/`, 0 to leave it."""

    __slots__ = ("pivot", "propagation")

    def __init__(self, *, propagation: int = 0, pivot: bool = True) -> None:
        self.propagation = propagation
        self.pivot = pivot

    def describe(self) -> str:
        return "pivot_root" if self.pivot else "move the root to '/'"

    def apply(self, context: RootContext) -> None:
        if not self.pivot or not self._pivot(context):
            self._move(context)
        os.chdir("/")
        os.close(context.root_fd)
        context.root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if self.propagation:
            mounts.mount(None, "/", None, self.propagation)

    def _pivot(self, context: RootContext) -> bool:
        old = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchdir(context.root_fd)
            try:
                # pivot_root(2), "." twice: the old root then lies on top of the new one, and needs no directory of the
                # image, which it may lack and which would stay behind
                mounts.pivot_root(".", ".")
            except OSError as e:
                if e.errno != errno.EINVAL:
                    raise
                return False  # the old root is an initramfs, which cannot be moved away
            os.fchdir(old)
            # An unmount goes on to the peers of a shared mount (mount_namespaces(7)): without this step the host's own
            # mounts would be unmounted too. As slaves they pass nothing back.
            mounts.mount(None, ".", None, mounts.MS_SLAVE | mounts.MS_REC)
            mounts.umount(".", mounts.MNT_DETACH)
        finally:
            os.close(old)
        return True

    def _move(self, context: RootContext) -> None:
        os.fchdir(context.root_fd)
        # MS_MOVE only covers the old root, whose /proc and /sys stay in this mount namespace. While they are there
        # without masks, the kernel would allow the container to mount them anew without masks. So they are unmounted,
        # or covered where the kernel has locked them.
        for name in ("/proc", "/sys"):
            try:
                mounts.umount(name, mounts.MNT_DETACH)
            except OSError as e:
                if e.errno not in (errno.EINVAL, errno.EPERM):
                    continue
                mounts.mount("none", name, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC, "size=0")
        mounts.mount(".", "/", None, mounts.MS_MOVE)
        os.chroot(".")
