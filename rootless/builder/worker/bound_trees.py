"""Binding a part of a tree into a step: of a context, a stage, a cache directory. Runs inside the step's namespaces.

The part is looked up inside the tree by fds (CVE-2024-23651: a cache directory may be changed by another step just
now), and what is found is bound, not what its name points to later.
"""

from __future__ import annotations

import errno
import os
import stat

from rootless.errors import RuntimeFailure
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
                mount = attach.bind(source, target, lambda: self._again(context), recursive=True)
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

    def _again(self, context: RootContext) -> int:
        fd = existing(context, self.target)
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.target)
        return fd
