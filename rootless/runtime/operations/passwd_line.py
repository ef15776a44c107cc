"""Adds the container's user to the passwd and group files of its root, where the image does not know him."""

from __future__ import annotations

import os
import stat

from rootless.kernel.files import open_in_root
from rootless.runtime.operations.base import BEFORE_MOUNTS, Operation, RootContext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.launch import LoginEntry

_MOST = 4 << 20  # bytes of a file in which the entry is looked for
_OPEN = os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class AddLogin(Operation):
    """Append a line for the user to /etc/passwd and one for his group to /etc/group, if no line has that id.

    It is done in the root itself, before anything is mounted there, and not by a file that is mounted over: the latter
    would make `useradd` and `adduser` fail, which replace the file by rename(2). A file that is missing, or
    that a container has replaced by something else, stays as it is: the container starts without the line.
    """

    __slots__ = ("_login",)
    stage = BEFORE_MOUNTS

    def __init__(self, login: LoginEntry) -> None:
        self._login = login

    @property
    def path(self) -> str:
        return "/etc/passwd"

    def describe(self) -> str:
        return f"add user {self._login.uid} to '{self.path}' if it is not there"

    def apply(self, context: RootContext) -> None:
        login = self._login
        _append(context.root_fd, "etc/passwd", (login.name, login.uid), f"{login.gid}::{login.home}:/bin/sh")
        _append(context.root_fd, "etc/group", (login.name, login.gid), "")


def _append(root: int, path: str, entry: tuple[str, int], rest: str) -> None:
    name, number = entry
    try:
        fd = open_in_root(root, path, _OPEN)
    except OSError:
        return
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST:
            return
        text = os.pread(fd, _MOST, 0)
        lines = [line.split(b":") for line in text.split(b"\n")]
        if any(len(fields) > 2 and fields[2].strip() == b"%d" % number for fields in lines):
            return
        own = name.encode("utf-8", "surrogateescape")
        if any(fields[0] == own for fields in lines):
            own = b"user%d" % number  # the image has another user of that name
        start = b"" if text.endswith(b"\n") or not text else b"\n"
        os.write(fd, start + b"%s:x:%d:%s\n" % (own, number, rest.encode("utf-8", "surrogateescape")))
    except OSError:
        return
    finally:
        os.close(fd)
