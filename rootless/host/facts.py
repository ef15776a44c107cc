"""Facts of the host and the caller that are read, not tried: helper programs, user name, sysctls. Decides nothing."""

from __future__ import annotations

import os

FIXED_DIRECTORIES = (
    "/usr/bin",
    "/bin",
    "/usr/sbin",
    "/sbin",
    "/usr/local/bin",
    "/usr/libexec/podman",
    "/usr/lib/podman",
)
INITIAL_USER_NAMESPACE = "user:[4026531837]"
"""What /proc/PID/ns/user says of the host's own user namespace, on every host (PROC_USER_INIT_INO of the kernel)."""


def find_helper(name: str) -> str | None:
    """Absolute path of host program `name`: the system's directories first, then the caller's PATH; None: not there.

    To be called before any change of root, and only absolute entries of PATH count: after a change of root, or by the
    current directory, a program of an image could be found, and would run with the host's files open to it
    (CVE-2026-41567).
    """
    for directory in (*FIXED_DIRECTORIES, *os.environ.get("PATH", "").split(":")):
        path = f"{directory}/{name}"
        if directory.startswith("/") and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def describe_file(path: str | None, *, with_times: bool = True) -> str:
    """Which file `path` is now, as a text that changes with its replacement, content, owner and mode; "-" for none.

    With a program's change time and not only its modification time: chmod and setcap, by which an administrator repairs
    newuidmap, change only the former. with_times: False for a device, whose times may change with its use.
    """
    try:
        status = os.stat(path or "")
    except OSError:
        return "-"
    described = f"{path}:{status.st_dev}:{status.st_ino}:{status.st_mode}:{status.st_uid}:{status.st_gid}"
    return f"{described}:{status.st_mtime_ns}:{status.st_ctime_ns}" if with_times else described


def user_name(uid: int | None = None) -> str:
    """The login name of `uid` (default: the caller), or the number when the user database has no name for it."""
    import pwd

    number = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def read_sysctl(name: str) -> str | None:
    """The value of a sysctl, whose name has slashes (`user/max_user_namespaces`); None where the kernel has none."""
    try:
        with open(f"/proc/sys/{name}") as f:
            return f.read().strip()
    except OSError:
        return None


def apparmor_profile() -> str:
    """The name of the AppArmor profile that is enforced on this process; empty when none is."""
    try:
        with open("/proc/self/attr/apparmor/current", encoding="utf-8", errors="replace") as file:
            label = file.read(4096).strip().rstrip("\0")
    except OSError:
        return ""
    name, _, mode = label.rpartition(" ")
    return name if mode == "(enforce)" else ""


def has_no_new_privs() -> bool:
    """Is this process in a sandbox (no_new_privs) where setuid programs such as newuidmap gain no privilege?"""
    from rootless.kernel.procfs import status_field

    try:
        return status_field("self", "NoNewPrivs") == "1"
    except KeyError:
        return False  # Linux before 4.10 does not show it


def is_privileged() -> bool:
    """May this process write any id map for its children: CAP_SETUID and CAP_SETGID effective in its namespace?"""
    from rootless.kernel.process import capget

    wanted = 1 << 6 | 1 << 7  # CAP_SETGID, CAP_SETUID
    return capget()[0] & wanted == wanted


def is_real_root() -> bool:
    """Is this root of the host, not of a user namespace?"""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/uid_map") as f:
        return f.read().split() == ["0", "0", "4294967295"]


def kernel_version() -> tuple[int, int]:
    """The major and minor number of the running kernel's version."""
    major, _, rest = os.uname().release.partition(".")
    digits = ""
    for character in rest:
        if not character.isdigit():
            break
        digits += character
    return int(major), int(digits or 0)
