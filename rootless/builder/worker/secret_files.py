"""A secret of RUN --mount as a file in memory: a tmpfs of its own, one file of it bound on a name. It is on no disk."""

from __future__ import annotations

import base64
import errno
import os

from rootless.kernel import mounts
from rootless.runtime.operations import Operation, RootContext, attach
from rootless.runtime.operations.base import existing, mountpoint


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
            mount = attach.bind(path, target, lambda: self._again(context), recursive=False)
        finally:
            os.close(target)
        context.sealed.append((mount, False, self.target))

    def _again(self, context: RootContext) -> int:
        fd = existing(context, self.target)
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.target)
        return fd
