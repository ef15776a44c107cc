"""Turns the kernel's refusals of user namespaces into sentences with a remedy. It tries nothing."""

from __future__ import annotations

import errno

from rootless.errors import HostLimit
from rootless.host.facts import apparmor_profile, read_sysctl

_SYSCTL = "ask the administrator for: sysctl -w {}   (and a file in /etc/sysctl.d to keep it)"
_LIMITS = ("user/max_user_namespaces", "user/max_mnt_namespaces")


def restriction_hint() -> str | None:
    """The remedy for EPERM around user namespaces: the switch that distributions add to the kernel's rules."""
    if read_sysctl("kernel/unprivileged_userns_clone") == "0":
        return _SYSCTL.format("kernel.unprivileged_userns_clone=1")
    if read_sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor forbids user namespaces to programs without a profile; "
            + _SYSCTL.format("kernel.apparmor_restrict_unprivileged_userns=0")
            + ", or for a profile with `userns,` for this program"
        )
    profile = apparmor_profile()
    if profile:
        return (
            f"AppArmor confines this program by profile '{profile}', which takes the capabilities of user namespaces; "
            "ask the administrator for a profile with `userns,` and `capability,`, or to run it unconfined"
        )
    return None


def package_remedy(package: str) -> str:
    """The line to give to the administrator where a program of `package` is missing."""
    return f"ask the administrator for: apt install {package}   (dnf install {package})"


def namespace_error(error: OSError) -> HostLimit:
    """The HostLimit for an unshare of a user namespace that failed with `error`."""
    what = f"cannot make a user namespace: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EUSERS):
        for name in _LIMITS:
            if read_sysctl(name) == "0":
                dotted = name.replace("/", ".")
                return HostLimit(f"{what}: {dotted} is 0", hint=_SYSCTL.format(f"{dotted}=65536"))
        return HostLimit(
            f"{what}: too many namespaces, or nested too deep",
            hint="end other containers, or " + _SYSCTL.format("user.max_user_namespaces=65536"),
        )
    if error.errno == errno.EPERM:
        hint = restriction_hint()
        return HostLimit(
            what,
            hint=hint
            or "inside a container, start that one with a seccomp profile that allows unshare; leave a chroot",
        )
    if error.errno == errno.EINVAL:
        return HostLimit(what, hint="the kernel needs CONFIG_USER_NS=y")
    return HostLimit(what)
