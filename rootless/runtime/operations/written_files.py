"""Files written into the root by the caller of the runtime. Every path is resolved inside the root."""

from __future__ import annotations

import os

from rootless.kernel.files import mkdirs_in_root
from rootless.runtime.operations.base import Operation, RootContext


class WriteFile(Operation):
    """A file with `content`; what is there is replaced, a link too, and not followed."""

    __slots__ = ("content", "mode", "target")

    def __init__(self, target: str, content: bytes, mode: int = 0o644) -> None:
        self.target = target
        self.content = content
        self.mode = mode

    @property
    def path(self) -> str:
        return self.target

    def describe(self) -> str:
        return f"write '{self.target}' ({len(self.content)} bytes)"

    def apply(self, context: RootContext) -> None:
        parent, _, name = self.target.rpartition("/")
        parent_fd = mkdirs_in_root(context.root_fd, parent or "/", 0o755)
        try:
            try:
                os.unlink(name, dir_fd=parent_fd)
            except FileNotFoundError:
                pass
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=parent_fd)
            try:
                view = memoryview(self.content)
                while view:
                    view = view[os.write(fd, view) :]
                os.fchmod(fd, self.mode)
            finally:
                os.close(fd)
        finally:
            os.close(parent_fd)
