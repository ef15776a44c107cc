"""Probes of the directories we keep things in, and of how long a login's processes may live."""

from __future__ import annotations

import os
import stat

from rootless import paths
from rootless.host.facts import user_name
from rootless.host.probes.result import Probe
from rootless.host.probes.trial import Scratch, existing_parent

# What statfs(2) gives as f_type for the filesystems that matter to us
_NAMES = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlay",
    0x6969: "nfs",
    0x65735546: "fuse",
    0xFF534D42: "cifs",
    0xFE534D42: "smb",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
    0x19830326: "beegfs",
    0x00C36400: "ceph",
    0x5346414F: "afs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x01021997: "9p",
}
# The servers of these know nothing of a client's user namespaces and refuse to give files to subordinate ids; overlayfs
# takes none of them for an upper layer.
_REMOTE = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p")
_LEAST = 1 << 30  # bytes free below which an image is likely not to fit


def filesystem_name(path: str) -> str:
    """Name of the filesystem type that holds `path`, or its magic number in hexadecimal."""
    from rootless.kernel.mounts import fs_magic

    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        magic = fs_magic(fd)
    finally:
        os.close(fd)
    return _NAMES.get(magic, f"{magic:#x}")


def data_directory(directory: str) -> Probe:
    """Whether the data directory can be written, has room and is on a filesystem that keeps foreign owners."""
    parent = existing_parent(directory)
    kind = filesystem_name(parent)
    numbers = os.statvfs(parent)
    free = numbers.f_bavail * numbers.f_frsize
    detail = f"'{directory}' on {kind}, {free / 1e9:.1f} GB free"
    try:
        with Scratch(directory) as base, open(f"{base}/file", "w"):
            pass
    except OSError as e:
        remedy = "set ROOTLESS_ROOT to a directory that you can write"
        return Probe("data_directory", False, f"{detail}: {e.strerror}", remedy)
    if numbers.f_flag & os.ST_NOEXEC:
        remedy = "set ROOTLESS_ROOT to a directory whose filesystem allows execution"
        return Probe("data_directory", False, f"{detail}: mounted noexec", remedy)
    if kind in _REMOTE:
        remedy = f"set ROOTLESS_ROOT to a local directory, such as /var/tmp/{user_name()}/rootless"
        return Probe("data_directory", False, f"{detail}: a network filesystem keeps no owners but you", remedy)
    if free < _LEAST:
        remedy = "make room (`rootless system prune`), or set ROOTLESS_ROOT to another filesystem"
        return Probe("data_directory", False, f"{detail}: little room", remedy)
    return Probe("data_directory", True, detail)


def runtime_directory(directory: str) -> Probe:
    """Whether XDG_RUNTIME_DIR is there, belongs to the caller and cannot be written by others."""
    uid = os.geteuid()
    given = os.environ.get("XDG_RUNTIME_DIR")
    path = given or f"/run/user/{uid}"
    fallback = f"'{paths.runtime_directory()}' is used"
    login = "log in through PAM (ssh, a console, machinectl shell), not by su"
    try:
        status = os.lstat(path)
    except OSError as e:
        return Probe("runtime_directory", False, f"'{path}': {e.strerror}; {fallback}", login)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid:
        return Probe(
            "runtime_directory", False, f"'{path}' is not yours; {fallback}", f"unset XDG_RUNTIME_DIR, or {login}"
        )
    if status.st_mode & 0o022:
        return Probe("runtime_directory", False, f"'{path}' can be written by others; {fallback}", f"chmod 0700 {path}")
    return Probe("runtime_directory", True, f"'{path}' on {filesystem_name(path)}")


def lingering(directory: str) -> Probe:
    """Whether systemd lets detached containers live when the last login of the user ends."""
    if not os.path.isdir("/run/systemd/system"):
        return Probe("lingering", True, "no systemd here that ends a user's processes at logout")
    user = user_name()
    if os.path.exists(f"/var/lib/systemd/linger/{user}"):
        return Probe("lingering", True, f"user '{user}' lingers: detached containers outlive the login")
    return Probe(
        "lingering",
        False,
        "detached containers may be ended at logout, and XDG_RUNTIME_DIR is removed then",
        f"loginctl enable-linger   (or ask the administrator for: loginctl enable-linger {user})",
    )


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
