"""Probes of what can put a writable layer over image layers, in the directory where they will be."""

from __future__ import annotations

import errno
import os
import signal
import time

from rootless.errors import HostLimit
from rootless.host import userns
from rootless.host.facts import find_helper, kernel_version
from rootless.host.probes.result import Probe
from rootless.host.probes.trial import Scratch

_FUSE_START = 5.0  # seconds to wait for fuse-overlayfs' mount
_ELSEWHERE = "set ROOTLESS_ROOT to a directory on a local ext4, xfs or btrfs filesystem"


def overlay(directory: str) -> Probe:
    """The kernel's overlayfs with `userxattr`, through all that containers do to a lower layer."""
    from rootless.kernel import mounts

    with Scratch(directory) as base:
        _make_layers(base)
        try:
            os.setxattr(f"{base}/upper", "user.rootless.probe", b"1")
        except OSError as e:
            return Probe("overlay", False, f"no user.* extended attributes here: {e.strerror}", _ELSEWHERE)
        options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work,userxattr,index=off"

        def inside() -> bytes:
            mounts.mount("overlay", f"{base}/merged", "overlay", 0, options)
            try:
                exercise(f"{base}/merged")
            finally:
                mounts.umount(f"{base}/merged", mounts.MNT_DETACH)
            return b""

        try:
            userns.call(userns.default_id_map(), inside)
        except OSError as e:
            old = kernel_version() < (5, 11)
            remedy = "a kernel of version 5.11 or newer, or fuse-overlayfs" if old else _ELSEWHERE
            return Probe("overlay", False, f"{e.filename or 'mount'}: {e.strerror}", remedy)
        except HostLimit as e:
            return Probe("overlay", False, e.message, e.hint or _ELSEWHERE)
    return Probe("overlay", True, "mounted; files and directories of a lower layer replaced and removed")


def fuse_overlayfs(directory: str) -> Probe:
    """fuse-overlayfs started in a user namespace and put to the same work."""
    from rootless.kernel import mounts

    program = find_helper("fuse-overlayfs")
    if program is None:
        return Probe("fuse_overlayfs", False, "program 'fuse-overlayfs' is missing", _install("fuse-overlayfs"))
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        absent = e.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO)  # the node may be there without the module
        line = "modprobe fuse" if absent else "chmod 0666 /dev/fuse"
        return Probe(
            "fuse_overlayfs", False, f"cannot open '/dev/fuse': {e.strerror}", f"ask the administrator for: {line}"
        )
    with Scratch(directory) as base:
        _make_layers(base)
        options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
        argv = [program, "-f", "-o", options, f"{base}/merged"]

        def inside() -> bytes:
            before = os.stat(f"{base}/merged").st_dev
            daemon = os.posix_spawn(program, argv, {"PATH": "/usr/bin:/bin"})
            try:
                _wait_for_mount(f"{base}/merged", before, daemon)
                try:
                    exercise(f"{base}/merged")
                finally:
                    mounts.umount(f"{base}/merged", mounts.MNT_DETACH)
            finally:
                try:
                    os.kill(daemon, signal.SIGKILL)
                    os.waitpid(daemon, 0)
                except (ProcessLookupError, ChildProcessError):
                    pass
            return b""

        try:
            userns.call(userns.default_id_map(), inside)
        except OSError as e:
            return Probe("fuse_overlayfs", False, f"{e.filename or 'mount'}: {e.strerror}", _ELSEWHERE)
    return Probe("fuse_overlayfs", True, f"mounted by {program}; a lower layer's files replaced and removed")


def reflink(directory: str) -> Probe:
    """Whether files can be copied without copying their blocks, which is what makes the copy driver quick."""
    from rootless.kernel.files import clone_file

    with Scratch(directory) as base:
        with open(f"{base}/a", "wb") as source:
            source.write(b"x" * 65536)
        with open(f"{base}/a", "rb") as source, open(f"{base}/b", "wb") as copy:
            if clone_file(source.fileno(), copy.fileno()):
                return Probe("reflink", True, "copies share their blocks")
    return Probe("reflink", False, "the copy driver copies every byte", "a btrfs, or an xfs made with reflink=1")


def _install(package: str) -> str:
    return f"ask the administrator for: apt install {package}   (dnf install {package})"


def _make_layers(base: str) -> None:
    for name in ("lower", "upper", "work", "merged", "lower/emptied", "lower/replaced"):
        os.mkdir(f"{base}/{name}", 0o755)
    for name in ("removed", "changed", "emptied/a", "replaced/old"):
        with open(f"{base}/lower/{name}", "w") as f:
            f.write("old")


def exercise(merged: str) -> None:
    """Do to mounted layers what needs whiteouts, opaque marks and copy-up; raises HostLimit when a view is wrong."""
    os.unlink(f"{merged}/removed")
    with open(f"{merged}/changed", "a") as f:
        f.write(" and new")
    os.chmod(f"{merged}/changed", 0o640)
    os.unlink(f"{merged}/emptied/a")
    os.rmdir(f"{merged}/emptied")
    os.unlink(f"{merged}/replaced/old")
    os.rmdir(f"{merged}/replaced")
    os.mkdir(f"{merged}/replaced")  # a directory over a whiteout has to be opaque, or `old` comes back
    os.symlink("changed", f"{merged}/link")
    seen = {name: sorted(os.listdir(f"{merged}/{name}")) for name in (".", "replaced")}
    if seen != {".": ["changed", "link", "replaced"], "replaced": []}:
        raise HostLimit(f"removed files of a lower layer are still seen: {seen}")
    with open(f"{merged}/link") as f:
        if f.read() != "old and new":
            raise HostLimit("a changed file of a lower layer has other contents")


def _wait_for_mount(path: str, before: int, daemon: int) -> None:
    deadline = time.monotonic() + _FUSE_START
    while os.stat(path).st_dev == before:
        if os.waitpid(daemon, os.WNOHANG) != (0, 0):
            raise HostLimit("fuse-overlayfs ended before it mounted anything")
        if time.monotonic() > deadline:
            raise HostLimit(f"fuse-overlayfs mounted nothing within {_FUSE_START:.0f} s")
        time.sleep(0.005)
