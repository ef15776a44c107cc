"""Probes of the newer system calls. All have a fallback; these tell which way is taken."""

from __future__ import annotations

import os

from rootless.host import userns
from rootless.host.idmap import single_map
from rootless.host.probes.result import Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NEWER = "nothing to do: an older way is used; a newer kernel is quicker"


def _inside(function: Callable[[], bytes]) -> OSError | None:
    """The error of `function` in a new user namespace, None for none."""
    try:
        userns.call_in_new_namespace(single_map(0, 0), function)
    except OSError as e:
        return e
    return None


def _result(name: str, error: OSError | None, since: str, use: str) -> Probe:
    if error is None:
        return Probe(name, True, use)
    return Probe(name, False, f"{use}: {error.strerror} (Linux {since})", _NEWER)


def openat2(directory: str) -> Probe:
    """Let the kernel resolve a path inside a root (openat2(2), RESOLVE_IN_ROOT)."""
    from rootless.kernel.files import RESOLVE_IN_ROOT, openat2

    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    error = None
    try:
        os.close(openat2(root, "proc/..", os.O_PATH, 0, RESOLVE_IN_ROOT))
    except OSError as e:
        error = e
    return _result("openat2", error, "5.6", "paths inside a container resolved by the kernel")


def mount_setattr(directory: str) -> Probe:
    """Make a mount read-only with all mounts below it, in one call (mount_setattr(2))."""
    from rootless.kernel.mounts import MOUNT_ATTR_RDONLY, mount_setattr

    def inside() -> bytes:
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        mount_setattr(root, set=MOUNT_ATTR_RDONLY, recursive=True)
        return b""

    return _result("mount_setattr", _inside(inside), "5.12", "mounts made read-only with all below them")


def mount_api(directory: str) -> Probe:
    """Give a layer to overlayfs by fsconfig(2) and `lowerdir+`: options of mount(2) end with a page, these do not."""
    from rootless.kernel import mounts

    def inside() -> bytes:
        fd = mounts.fsopen("overlay")
        mounts.fsconfig_string(fd, "lowerdir+", "/proc")
        return b""

    return _result("mount_api", _inside(inside), "6.5", "overlays of many layers mounted without a page limit")


def pidfd(directory: str) -> Probe:
    """Send a signal by a pidfd: it cannot reach a process that got the number of a dead one, as kill(2) can."""
    from rootless.kernel.process import pidfd_open, pidfd_send_signal

    error = None
    try:
        fd = pidfd_open(os.getpid())
        pidfd_send_signal(fd, 0)
        os.close(fd)
    except OSError as e:
        error = e
    return _result("pidfd", error, "5.3", "signals sent by process fd")


def close_range(directory: str) -> Probe:
    """Make all fds from a number on close-on-exec in one call (close_range(2))."""
    from rootless.kernel.libc import syscall

    error = None
    try:
        syscall(436, 1 << 30, 1 << 30, 4)
    except OSError as e:
        error = e
    return _result("close_range", error, "5.11", "inherited files closed in one call")


def time_namespace(directory: str) -> Probe:
    """Look for time namespaces, which a bundle of the OCI runtime may ask for."""
    there = os.path.exists("/proc/self/ns/time")
    if there:
        return Probe("time_namespace", True, "time namespaces")
    return Probe("time_namespace", False, "time namespaces: not in this kernel (Linux 5.6)", "a newer kernel")
