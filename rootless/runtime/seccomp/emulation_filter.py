"""The two filters of an emulated root, and which numbers their calls have. It reads no file and loads nothing.

stat tells the real owners. A program that writes a file anew under another name, gives it the owner it saw and renames
it (useradd with /etc/shadow, `sed -i`) would lose the noted one: so renames wait too, where the kernel can carry out a
call afterwards (Linux 5.5), and the supervisor hands the note on.

Changes of ids are answered with success: there is one id, and programs that change theirs (su, gosu, postinst scripts)
then go on as root. chown and the making of devices wait for a supervisor (the first filter) or are answered with
success as well (the second, for kernels before 5.0). Setting file capabilities needs nothing: root of a user namespace
may (Linux 4.14).
"""

from __future__ import annotations

import errno
import os
import stat

from rootless.errors import HostLimit
from rootless.kernel import libseccomp

_OWNERS = ("chown", "lchown", "fchown", "fchownat")
_WIDE = {"chown32": "chown", "lchown32": "lchown", "fchown32": "fchown"}
_DEVICES = {"mknod": 1, "mknodat": 2}  # → the argument that is the mode
_RENAMES = ("rename", "renameat", "renameat2")
_IDS = ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups")
# machine → other architectures of its programs
_COMPATIBLE = {"x86_64": ("x86",), "aarch64": ("arm",), "s390x": ("s390",)}
_NARROW = ("x86", "arm", "s390")  # where the names without 32 take ids of 16 bits
_SUCCESS = libseccomp.act_errno(0)


def compile_filters() -> tuple[bytes, bytes, dict[str, str]]:
    """(filter with a listener, filter without, meaning of "ARCH:NUMBER" for the supervisor). Raises HostLimit.

    The first is empty where kernel (before 5.0) or library (before 2.5) cannot let a call wait.
    """
    try:
        plain, numbers = _program(_SUCCESS), _numbers()
        try:
            return _program(libseccomp.ACT_NOTIFY), plain, numbers
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            return b"", plain, numbers
    except OSError as e:
        if e.errno == errno.ENOENT:
            raise HostLimit(
                "root cannot be emulated: libseccomp.so.2 is not installed",
                hint="as root: apt install libseccomp2 (dnf install libseccomp); or --root-emulation=off",
            ) from e
        raise HostLimit(
            f"root cannot be emulated: libseccomp refused the filter: {e.strerror}", hint="use --root-emulation=off"
        ) from e


def _architectures() -> list[tuple[str, int]]:
    machine = os.uname().machine
    names = {"i386": "x86", "i686": "x86", "armv7l": "arm", "armv6l": "arm"}
    found = []
    for name in (names.get(machine, machine), *_COMPATIBLE.get(machine, ())):
        token = libseccomp.arch_resolve(name)
        if token is not None:
            found.append((name, token))
    return found


def _can_go_on() -> bool:
    """Can a call that waited be carried out after all (SECCOMP_USER_NOTIF_FLAG_CONTINUE)?"""
    major, _, rest = os.uname().release.partition(".")
    minor = rest.split(".")[0].split("-")[0]
    return major.isdigit() and minor.isdigit() and (int(major), int(minor)) >= (5, 5)


def _program(waiting: int) -> bytes:
    with libseccomp.Filter(libseccomp.ACT_ALLOW) as building:
        # of an architecture that we do not know nothing is emulated; forbidding it is not this filter's matter
        building.attr_set(libseccomp.ATTR_ACT_BADARCH, libseccomp.ACT_ALLOW)
        for _, token in _architectures():
            building.arch_add(token)
        for name in (*_OWNERS, *_WIDE):
            _add(building, waiting, name)
        if waiting == libseccomp.ACT_NOTIFY and _can_go_on():
            for name in _RENAMES:
                _add(building, waiting, name)
        for name, argument in _DEVICES.items():
            for format in (stat.S_IFCHR, stat.S_IFBLK):
                masked = (argument, libseccomp.COMPARE["MASKED_EQ"], stat.S_IFMT(0o777777), format)
                _add(building, waiting, name, [masked])
        for name in _IDS:
            _add(building, _SUCCESS, name)
            _add(building, _SUCCESS, f"{name}32")
        return building.export_bpf()


def _add(
    building: libseccomp.Filter, action: int, name: str, comparisons: list[tuple[int, int, int, int]] | None = None
) -> None:
    number = libseccomp.syscall_resolve(name)
    if number is not None:
        building.rule_add(action, number, comparisons)


def _numbers() -> dict[str, str]:
    calls = {}
    for arch, token in _architectures():
        for name in (*_OWNERS, *_WIDE, *_DEVICES, *_RENAMES):
            number = libseccomp.syscall_resolve_in(token, name)
            if number is None or number < 0:
                continue  # not on that architecture
            narrow = "16" if arch in _NARROW and name in ("chown", "lchown", "fchown") else ""
            calls[f"{token}:{number}"] = _WIDE.get(name, name) + narrow
    return calls
