"""What RUN --mount puts into a step: parts of trees bound on a name, secrets as files in memory.

Runs inside the step's namespaces. The part of a tree (of a context, a stage, a cache directory) is looked up by fds,
since a cache directory may be changed by another step just now (CVE-2024-23651), and what is found is bound, not what
its name points to later. A secret is one file of a tmpfs of its own: it is on no disk.
"""

from __future__ import annotations

import base64
import errno
import os
import stat

from rootless.errors import RuntimeFailure
from rootless.kernel import mounts
from rootless.kernel.files import mkdirs_in_root, open_in_root
from rootless.runtime.operations import Operation, RootContext, attach
from rootless.runtime.operations.base import existing, mountpoint


class TreeBind(Operation):
    """Bind `source` of the directory `root` (a host path) on `target`.

    make: (uid, gid, mode) of `source`, which is made as a directory when it is missing; None: it must be there.
    """

    __slots__ = ("make", "read_only", "root", "source", "target")

    def __init__(
        self, root: str, source: str, target: str, *, read_only: bool, make: tuple[int, int, int] | None = None
    ) -> None:
        self.root = root
        self.source = source
        self.target = target
        self.read_only = read_only
        self.make = make

    @property
    def path(self) -> str:
        """Where it goes."""
        return self.target

    def describe(self) -> str:
        """For errors."""
        return f"mount '{self.source}' on '{self.target}'"

    def apply(self, context: RootContext) -> None:
        """Find it, bind it. Raises OSError, RuntimeFailure."""
        root = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            source = self._find(root)
        finally:
            os.close(root)
        try:
            target = mountpoint(context, self.target, directory=stat.S_ISDIR(os.fstat(source).st_mode))
            try:
                mount = attach.bind(source, target, lambda: _again(context, self.target), recursive=True)
            finally:
                os.close(target)
        finally:
            os.close(source)
        if self.read_only:
            context.sealed.append((mount, True, self.target))
        else:
            os.close(mount)

    def _find(self, root: int) -> int:
        try:
            return open_in_root(root, self.source or "/", os.O_PATH)
        except FileNotFoundError:
            if self.make is None:
                raise RuntimeFailure(f"cannot mount on '{self.target}': '{self.source}' is not there") from None
        fd = mkdirs_in_root(root, self.source, 0o755)
        uid, gid, mode = self.make
        path = f"/proc/self/fd/{fd}"
        if (uid, gid) != (0, 0):
            os.chown(path, uid, gid)
        os.chmod(path, mode)
        return fd


class SecretFile(Operation):
    """Bind a file with `content` (base64) on `target`, read-only, with owner and mode.

    workplace: an empty directory outside of the root, on which the tmpfs is mounted in this mount namespace; it is gone
    with the old root, while the bound file stays.
    """

    __slots__ = ("_content", "gid", "mode", "target", "uid", "workplace")

    def __init__(self, target: str, content: str, workplace: str, uid: int, gid: int, mode: int) -> None:
        self.target = target
        self._content = content
        self.workplace = workplace
        self.uid = uid
        self.gid = gid
        self.mode = mode

    @property
    def path(self) -> str:
        """The file."""
        return self.target

    def describe(self) -> str:
        """Never with the content."""
        return f"mount a secret on '{self.target}'"

    def apply(self, context: RootContext) -> None:
        """Make the tmpfs, write the file, bind it. Raises OSError."""
        flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
        mounts.mount("tmpfs", self.workplace, "tmpfs", flags, "mode=0700")
        path = f"{self.workplace}/secret"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(base64.b64decode(self._content))
            file.flush()
            if (self.uid, self.gid) != (0, 0):
                os.fchown(fd, self.uid, self.gid)
            os.fchmod(fd, self.mode)
        target = mountpoint(context, self.target, directory=False)
        try:
            mount = attach.bind(path, target, lambda: _again(context, self.target), recursive=False)
        finally:
            os.close(target)
        context.sealed.append((mount, False, self.target))


def _again(context: RootContext, target: str) -> int:
    """The mount point once more, after the mount: an fd of what lies on it now."""
    fd = existing(context, target)
    if fd is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), target)
    return fd
