"""Keeps the container from overwriting our interpreter: runs it from a sealed copy where its file is the user's own.

CVE-2019-5736: a command, script or ELF interpreter `/proc/self/exe` inside the container names the file that we were
executing. With a distribution's Python that file is root's, and nobody inside can write it. A Python in the user's home
(conda, pyenv, uv) belongs to the container's root. The monitor is safe without this: it runs that same file as long as
its container does, and the kernel lets nobody write a file that is executed (ETXTBSY). rootless-oci ends before.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

_MARK = "ROOTLESS_SEALED"
_SELF = "/proc/self/exe"
_CHUNK = 1 << 24


def ensure_sealed() -> None:
    """Return when the interpreter's file cannot be written by this user, else start again from a sealed copy of it."""
    saved = os.environ.pop(_MARK, None)
    if saved is not None:
        _restore(saved)
    try:
        target = os.readlink(_SELF)
    except OSError:
        return  # no /proc: the start of a container will say so
    if target.startswith("/memfd:") or not os.access(_SELF, os.W_OK):
        return
    copy = _sealed_copy()
    environment = dict(os.environ)
    previous = environment.get("LD_LIBRARY_PATH", "")
    # a libpython found by $ORIGIN is not found from a copy
    library = os.path.join(os.path.dirname(os.path.dirname(target)), "lib")
    environment["LD_LIBRARY_PATH"] = f"{library}:{previous}" if previous else library
    environment[_MARK] = previous
    os.execve(f"/proc/self/fd/{copy}", [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - no shell


def _restore(library_path: str) -> None:
    """Take back what was added to the environment for the new start."""
    if library_path:
        os.environ["LD_LIBRARY_PATH"] = library_path
    else:
        os.environ.pop("LD_LIBRARY_PATH", None)


def _sealed_copy() -> int:
    """A memfd with the interpreter, which nobody can change any more; not executable for anybody but by this fd."""
    try:
        copy = os.memfd_create("rootless-python", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | 0x10)  # MFD_EXEC
    except OSError as e:
        if e.errno != errno.EINVAL:  # Linux before 6.3 has no MFD_EXEC, and makes all of them executable
            raise
        copy = os.memfd_create("rootless-python", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(_SELF, "rb") as origin:
        while os.sendfile(copy, origin.fileno(), None, _CHUNK):
            pass
    fcntl.fcntl(
        copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    )
    return copy
