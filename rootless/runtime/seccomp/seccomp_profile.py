"""Seccomp profiles as data: docker's file format (archMap, includes, excludes, minKernel) → the OCI `linux.seccomp`.

Pure but for reading the profile's file; it compiles and loads nothing.
"""

from __future__ import annotations

import json
import os
import stat

from rootless.errors import InvalidInput
from rootless.runtime.capabilities import DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Profile = dict[str, Any]

_MAX_FILE = 1 << 20  # bytes; docker's own profile has 17 KB
_DEFAULT_FILE = f"{os.path.dirname(__file__)}/seccomp_default.json"
# machine (uname) → (name in `includes.arches`, name in `archMap`)
_ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "i386": ("x86", "SCMP_ARCH_X86"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "armv6l": ("arm", "SCMP_ARCH_ARM"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
    "mips64": ("mips64", "SCMP_ARCH_MIPS64"),
}
# ioctl requests that put keystrokes into a terminal: a container that shares one could type commands into the caller's
# shell (CVE-2017-5226, CVE-2019-10063)
TIOCSTI, TIOCLINUX = 0x5412, 0x541C


def default_profile(
    capabilities: Iterable[str] = DEFAULT, *, machine: str | None = None, release: str | None = None
) -> Profile:
    """The profile of a container with these capabilities, as OCI `linux.seccomp`: docker's plus no TIOCSTI, TIOCLINUX.

    machine, release: as uname says, those of this host by default.
    """
    with open(_DEFAULT_FILE, "rb") as f:
        profile = json.loads(f.read())
    profile["syscalls"].extend(
        {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [comparison]}
        for comparison in all_but(1, (TIOCSTI, TIOCLINUX))
    )
    return resolve(profile, capabilities, machine=machine, release=release)


def all_but(index: int, values: tuple[int, ...], width: int = 32) -> list[dict[str, int | str]]:
    """Comparisons, one per rule, that match every value of argument `index` whose low `width` bits are not in `values`.

    The kernel looks at the low half only of arguments such as ioctl's request, a filter compares whole registers: "not
    equal" would let 0x1_0000_5412 through. So the complement is covered by masked comparisons, one for each branch of
    the binary tree that leads away from the values.
    """
    comparisons: list[dict[str, int | str]] = []

    def descend(bit: int, prefix: int, inside: list[int]) -> None:
        mask = ((1 << width) - 1) >> bit << bit
        if not inside:
            comparisons.append({"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": prefix})
        elif bit:
            below = 1 << bit - 1
            for branch in (prefix, prefix | below):
                descend(bit - 1, branch, [v for v in inside if v & below == branch & below])

    descend(width, 0, list(values))
    return comparisons


def read_profile(path: str, capabilities: Iterable[str] = DEFAULT) -> Profile:
    """Profile file `path`, docker's or OCI's format, resolved for these capabilities. Raises InvalidInput."""
    try:
        # O_NONBLOCK: a FIFO must not hang us
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        raise InvalidInput(f'cannot read seccomp profile "{path}": {e.strerror}') from e
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidInput(f'seccomp profile "{path}" is not a regular file')
    with open(fd, "rb") as f:
        content = f.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise InvalidInput(f'seccomp profile "{path}" is larger than {_MAX_FILE} bytes')
    try:
        return resolve(json.loads(content), capabilities)
    except (ValueError, RecursionError) as e:
        raise InvalidInput(f'seccomp profile "{path}" is not JSON: {e}') from e
    except InvalidInput as e:
        raise InvalidInput(f'seccomp profile "{path}": {e.message}', hint=e.hint) from e


def option(value: str, capabilities: Iterable[str] = DEFAULT) -> Profile | None:
    """The profile for `--security-opt seccomp=VALUE`: None for `unconfined`, ours for `builtin`, else that file."""
    if value == "unconfined":
        return None
    if value in ("builtin", "default"):
        return default_profile(capabilities)
    return read_profile(value, capabilities)


def resolve(
    profile: object, capabilities: Iterable[str] = DEFAULT, *, machine: str | None = None, release: str | None = None
) -> Profile:
    """Choose architectures and rules of a docker-format profile for this host; an OCI one comes back the same.

    Raises InvalidInput naming the property that is wrong.
    """
    given = _object(profile, "the profile")
    uname = os.uname()
    go_arch, scmp_arch = _ARCHITECTURES.get(machine or uname.machine, (machine or uname.machine, ""))
    kernel = _release(release or uname.release)
    held = set(capabilities)
    if given.get("archMap") and given.get("architectures"):
        raise InvalidInput('"architectures" and "archMap" exclude each other')
    resolved: Profile = {
        key: given[key]
        for key in ("defaultAction", "flags", "listenerPath", "listenerMetadata")
        if given.get(key) is not None
    }
    default_errno = _errno(given, "defaultErrnoRet", "defaultErrno")
    if default_errno is not None:
        resolved["defaultErrnoRet"] = default_errno
    architectures = _list(given, "architectures")
    for entry in _list(given, "archMap"):
        if _object(entry, "archMap").get("architecture") == scmp_arch:
            architectures = [scmp_arch, *_list(entry, "subArchitectures")]
    if architectures:
        resolved["architectures"] = architectures
    rules: list[Profile] = []
    for number, entry in enumerate(_list(given, "syscalls")):
        rule = _object(entry, f"syscalls[{number}]")
        if _applies(rule, go_arch, held, kernel):
            rules.append(_rule(rule, f"syscalls[{number}]"))
    resolved["syscalls"] = rules
    return resolved


def _rule(rule: Profile, where: str) -> Profile:
    name, names = rule.get("name"), rule.get("names")
    if name and names:
        raise InvalidInput(f'{where}: "name" and "names" exclude each other')
    kept: Profile = {"names": [name] if name else _list(rule, "names"), "action": rule.get("action")}
    number = _errno(rule, "errnoRet", "errno")
    if number is not None:
        kept["errnoRet"] = number
    arguments = _list(rule, "args")
    if arguments:
        kept["args"] = arguments
    return kept


def _applies(rule: Profile, arch: str, held: set[str], kernel: tuple[int, int]) -> bool:
    includes = _object(rule.get("includes") or {}, "includes")
    excludes = _object(rule.get("excludes") or {}, "excludes")
    if includes.get("arches") and arch not in _list(includes, "arches"):
        return False
    if arch in _list(excludes, "arches"):
        return False
    if not held.issuperset(_list(includes, "caps")):
        return False
    if not held.isdisjoint(_list(excludes, "caps")):
        return False
    if includes.get("minKernel") and kernel < _release(includes["minKernel"]):
        return False
    return not (excludes.get("minKernel") and kernel >= _release(excludes["minKernel"]))


def _release(text: object) -> tuple[int, int]:
    """`6.18.44-fc` → (6, 18)."""
    major, _, rest = str(text).partition(".")
    digits = ""
    for character in rest:
        if not character.isdigit():
            break
        digits += character
    try:
        return int(major), int(digits)
    except ValueError:
        raise InvalidInput(f'"{text}" is not a kernel version') from None


def _errno(holder: Profile, number_key: str, name_key: str) -> int | None:
    """The number, or what containers-common writes beside it: the errno's name."""
    number = holder.get(number_key)
    if number is not None:
        if not isinstance(number, int):
            raise InvalidInput(f"{number_key} is not a number")
        return number
    name = holder.get(name_key)
    if not name:
        return None
    import errno

    value = getattr(errno, str(name), None)
    if not isinstance(value, int):
        raise InvalidInput(f'{name_key}: unknown errno "{name}"')
    return value


def _object(value: object, what: str) -> Profile:
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} is not a JSON object")
    return value


def _list(holder: Profile, key: str) -> list[Any]:
    """A list of the profile; Go writes an empty one as null."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f'"{key}" is not a list')
    return value
