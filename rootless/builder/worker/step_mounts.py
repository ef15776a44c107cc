"""What RUN --mount puts into a step: parts of trees bound on a name, secrets as files in memory.

This runs inside the step's namespaces. The part of a tree (of a context, a stage, a cache directory) is looked up by
descriptors, and the descriptor that was found is bound. Another step may change a cache directory at the same moment: a
name that was looked up again by mount(2) could have become a link out of the tree, to any file of the host
(CVE-2024-23651). A secret is one file of a tmpfs of its own, so that its content is in no layer and no file of the
host.
"""

from __future__ import annotations

import errno
import os
import stat

from rootless.errors import RuntimeFailure
from rootless.kernel import mounts
from rootless.kernel.files import mkdirs_in_root, open_in_root
from rootless.runtime.operations import attach
from rootless.runtime.operations.base import Operation, RootContext, existing, mountpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.worker.step_jobs import BoundPart, MountedSecret


class TreeBind(Operation):
    """Bind a part of a tree on a path of the step's root."""

    __slots__ = ("_part",)

    def __init__(self, part: BoundPart) -> None:
        self._part = part

    @property
    def path(self) -> str:
        """The mount point, in the step's root."""
        return self._part.target

    def describe(self) -> str:
        """The operation in words, for errors."""
        return f"mount '{self._part.source}' on '{self._part.target}'"

    def apply(self, context: RootContext) -> None:
        """Find the part and bind it. Raises OSError, RuntimeFailure."""
        root = os.open(self._part.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            source = self._find(root)
        finally:
            os.close(root)
        try:
            target = mountpoint(context, self._part.target, directory=stat.S_ISDIR(os.fstat(source).st_mode))
            try:
                mount = attach.bind(source, target, lambda: _again(context, self._part.target), recursive=True)
            finally:
                os.close(target)
        finally:
            os.close(source)
        if self._part.read_only:
            context.sealed.append((mount, True, self._part.target))
        else:
            os.close(mount)

    def _find(self, root: int) -> int:
        try:
            fd = open_in_root(root, self._part.source or "/", os.O_PATH)
            attributes = self._part.give
        except FileNotFoundError:
            if self._part.make is None:
                raise RuntimeFailure(
                    f"cannot mount on '{self._part.target}': '{self._part.source}' is not there"
                ) from None
            fd = mkdirs_in_root(root, self._part.source, 0o755)
            attributes = self._part.make
        if attributes is not None:
            uid, gid, mode = attributes
            path = f"/proc/self/fd/{fd}"
            if (uid, gid) != (0, 0):
                os.chown(path, uid, gid)
            os.chmod(path, mode)
        return fd


class SecretFile(Operation):
    """Bind a secret on a path of the step's root, read-only.

    The tmpfs is mounted on the secret's workplace, in the step's mount namespace alone. That mount goes with the old
    root, while the bound file stays; the kernel frees its memory with the namespace.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: MountedSecret) -> None:
        self._secret = secret

    @property
    def path(self) -> str:
        """The file, in the step's root."""
        return self._secret.target

    def describe(self) -> str:
        """The operation in words, for errors, which do not hold the secret's content."""
        return f"mount a secret on '{self._secret.target}'"

    def apply(self, context: RootContext) -> None:
        """Make the tmpfs, write the file, bind it. Raises OSError."""
        flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
        mounts.mount("tmpfs", self._secret.workplace, "tmpfs", flags, "mode=0700")
        path = f"{self._secret.workplace}/secret"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(self._secret.content)
            file.flush()
            if (self._secret.uid, self._secret.gid) != (0, 0):
                os.fchown(fd, self._secret.uid, self._secret.gid)
            os.fchmod(fd, self._secret.mode)
        target = mountpoint(context, self._secret.target, directory=False)
        try:
            mount = attach.bind(path, target, lambda: _again(context, self._secret.target), recursive=False)
        finally:
            os.close(target)
        context.sealed.append((mount, False, self._secret.target))


def _again(context: RootContext, target: str) -> int:
    """An fd of what lies on the mount point `target` now that something is mounted there. An fd that was opened before
    still means what lies below the mount."""
    fd = existing(context, target)
    if fd is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), target)
    return fd
