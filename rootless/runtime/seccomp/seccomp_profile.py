"""Seccomp profiles as data: docker's file format (archMap, includes, excludes, minKernel) → the OCI `linux.seccomp`.

Pure but for reading the profile's file; it compiles and loads nothing.
"""

from __future__ import annotations

import json
import os
import stat

from rootless.errors import InvalidInput
from rootless.records.fields import parse_json
from rootless.runtime.capabilities import DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

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


class SeccompComparison:
    """A comparison of one argument of a call. operator: SCMP_CMP_*; with SCMP_CMP_MASKED_EQ `value` is the mask."""

    __slots__ = ("index", "operator", "value", "value_two")

    def __init__(self, index: int, operator: str, value: int, value_two: int = 0) -> None:
        self.index = index
        self.operator = operator
        self.value = value
        self.value_two = value_two

    def to_json(self) -> dict[str, object]:
        """A member of `args`."""
        return {"index": self.index, "op": self.operator, "value": self.value, "valueTwo": self.value_two}

    @classmethod
    def from_json(cls, value: object, where: str) -> SeccompComparison:
        """The comparison in `value`, a member of `args` of the rule `where`. Raises InvalidInput."""
        given = _object(value, f"{where}.args")
        numbers = [_number(given, name, where) for name in ("index", "value", "valueTwo")]
        return cls(numbers[0], str(given.get("op")), numbers[1], numbers[2])


class SeccompRule:
    """What is done with some calls. action: SCMP_ACT_*; errno: with SCMP_ACT_ERRNO or _TRACE, None for EPERM.

    comparisons: all of them must hold of the call's arguments.
    """

    __slots__ = ("action", "comparisons", "errno", "names")

    def __init__(self, names: list[str], action: str, comparisons: list[SeccompComparison] | None = None) -> None:
        self.names = names
        self.action = action
        self.errno: int | None = None
        self.comparisons = comparisons or []

    def to_json(self) -> dict[str, object]:
        """A member of `syscalls`."""
        known: dict[str, object] = {"names": self.names, "action": self.action}
        if self.errno is not None:
            known["errnoRet"] = self.errno
        if self.comparisons:
            known["args"] = [comparison.to_json() for comparison in self.comparisons]
        return known

    @classmethod
    def from_json(cls, given: dict[str, object], where: str) -> SeccompRule:
        """The rule in an object of docker's format or OCI's. where: `syscalls[3]`. Raises InvalidInput."""
        name, names = given.get("name"), given.get("names")
        if name and names:
            raise InvalidInput(f'{where}: "name" and "names" exclude each other')
        rule = cls([str(name)] if name else _texts(given, "names"), str(given.get("action") or ""))
        rule.errno = _errno(given, "errnoRet", "errno")
        rule.comparisons = [SeccompComparison.from_json(argument, where) for argument in _list(given, "args")]
        return rule


class SeccompProfile:
    """`linux.seccomp` (config-linux.md, "Seccomp"). default_action: of the calls that no rule names.

    default_errno: as a rule's; architectures: SCMP_ARCH_*, beside the native one; flags: SECCOMP_FILTER_FLAG_*;
    listener_path, listener_metadata: the agent that SCMP_ACT_NOTIFY hands calls to, "" without one.
    """

    __slots__ = (
        "architectures",
        "default_action",
        "default_errno",
        "flags",
        "listener_metadata",
        "listener_path",
        "rules",
    )

    def __init__(self, default_action: str) -> None:
        self.default_action = default_action
        self.default_errno: int | None = None
        self.architectures: list[str] = []
        self.flags: list[str] = []
        self.listener_path = ""
        self.listener_metadata = ""
        self.rules: list[SeccompRule] = []

    def to_json(self) -> dict[str, object]:
        """The object with the specification's names."""
        known: dict[str, object] = {"defaultAction": self.default_action}
        if self.default_errno is not None:
            known["defaultErrnoRet"] = self.default_errno
        if self.architectures:
            known["architectures"] = self.architectures
        if self.flags:
            known["flags"] = self.flags
        if self.listener_path:
            known["listenerPath"] = self.listener_path
        if self.listener_metadata:
            known["listenerMetadata"] = self.listener_metadata
        known["syscalls"] = [rule.to_json() for rule in self.rules]
        return known

    @property
    def has_listener(self) -> bool:
        """Whether a rule hands calls to the agent at `listener_path`."""
        return any(rule.action == "SCMP_ACT_NOTIFY" for rule in self.rules)


def default_profile(
    capabilities: Iterable[str] = DEFAULT, *, machine: str | None = None, release: str | None = None
) -> SeccompProfile:
    """The profile of a container with these capabilities, as OCI `linux.seccomp`: docker's plus no TIOCSTI, TIOCLINUX.

    machine, release: as uname says, those of this host by default.
    """
    with open(_DEFAULT_FILE, "rb") as f:
        profile = resolve(json.loads(f.read()), capabilities, machine=machine, release=release)
    profile.rules.extend(
        SeccompRule(["ioctl"], "SCMP_ACT_ALLOW", [comparison]) for comparison in all_but(1, (TIOCSTI, TIOCLINUX))
    )
    return profile


def all_but(index: int, values: tuple[int, ...], width: int = 32) -> list[SeccompComparison]:
    """Comparisons, one per rule, that match every value of argument `index` whose low `width` bits are not in `values`.

    The kernel looks at the low half only of arguments such as ioctl's request, a filter compares whole registers: "not
    equal" would let 0x1_0000_5412 through. So the complement is covered by masked comparisons, one for each branch of
    the binary tree that leads away from the values.
    """
    comparisons: list[SeccompComparison] = []

    def descend(bit: int, prefix: int, inside: list[int]) -> None:
        mask = ((1 << width) - 1) >> bit << bit
        if not inside:
            comparisons.append(SeccompComparison(index, "SCMP_CMP_MASKED_EQ", mask, prefix))
        elif bit:
            below = 1 << bit - 1
            for branch in (prefix, prefix | below):
                descend(bit - 1, branch, [v for v in inside if v & below == branch & below])

    descend(width, 0, list(values))
    return comparisons


def read_profile(path: str, capabilities: Iterable[str] = DEFAULT) -> SeccompProfile:
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
        return resolve(parse_json(content), capabilities)
    except ValueError as e:
        raise InvalidInput(f'seccomp profile "{path}" is not JSON: {e}') from e
    except InvalidInput as e:
        raise InvalidInput(f'seccomp profile "{path}": {e.message}', hint=e.hint) from e


def option(value: str, capabilities: Iterable[str] = DEFAULT) -> SeccompProfile | None:
    """The profile for `--security-opt seccomp=VALUE`: None for `unconfined`, ours for `builtin`, else that file."""
    if value == "unconfined":
        return None
    if value in ("builtin", "default"):
        return default_profile(capabilities)
    return read_profile(value, capabilities)


def resolve(
    profile: object, capabilities: Iterable[str] = DEFAULT, *, machine: str | None = None, release: str | None = None
) -> SeccompProfile:
    """Choose architectures and rules of a docker-format profile for this host; an OCI one is read as it is.

    Raises InvalidInput naming the property that is wrong.
    """
    given = _object(profile, "the profile")
    uname = os.uname()
    go_arch, scmp_arch = _ARCHITECTURES.get(machine or uname.machine, (machine or uname.machine, ""))
    kernel = _release(release or uname.release)
    held = set(capabilities)
    if given.get("archMap") and given.get("architectures"):
        raise InvalidInput('"architectures" and "archMap" exclude each other')
    resolved = SeccompProfile(str(given.get("defaultAction") or ""))
    resolved.default_errno = _errno(given, "defaultErrnoRet", "defaultErrno")
    resolved.flags = _texts(given, "flags")
    resolved.listener_path = _text(given, "listenerPath")
    resolved.listener_metadata = _text(given, "listenerMetadata")
    resolved.architectures = _texts(given, "architectures")
    for entry in _list(given, "archMap"):
        architecture = _object(entry, "archMap")
        if architecture.get("architecture") == scmp_arch:
            resolved.architectures = [scmp_arch, *_texts(architecture, "subArchitectures")]
    for number, entry in enumerate(_list(given, "syscalls")):
        rule = _object(entry, f"syscalls[{number}]")
        if _applies(rule, go_arch, held, kernel):
            resolved.rules.append(SeccompRule.from_json(rule, f"syscalls[{number}]"))
    return resolved


def _applies(rule: dict[str, object], arch: str, held: set[str], kernel: tuple[int, int]) -> bool:
    includes = _object(rule.get("includes") or {}, "includes")
    excludes = _object(rule.get("excludes") or {}, "excludes")
    if includes.get("arches") and arch not in _texts(includes, "arches"):
        return False
    if arch in _texts(excludes, "arches"):
        return False
    if not held.issuperset(_texts(includes, "caps")):
        return False
    if not held.isdisjoint(_texts(excludes, "caps")):
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


def _errno(holder: dict[str, object], number_key: str, name_key: str) -> int | None:
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


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} is not a JSON object")
    return value


def _list(holder: dict[str, object], key: str) -> list[object]:
    """A list of the profile; Go writes an empty one as null."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f'"{key}" is not a list')
    return value


def _texts(holder: dict[str, object], key: str) -> list[str]:
    values = _list(holder, key)
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) != len(values):
        raise InvalidInput(f'"{key}" is not a list of strings')
    return texts


def _text(holder: dict[str, object], key: str) -> str:
    value = holder.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f'"{key}" is not a string')
    return value


def _number(holder: dict[str, object], key: str, where: str) -> int:
    value = holder.get(key, 0)
    if not isinstance(value, int):
        raise InvalidInput(f"seccomp: {where}: {key} of an argument is not a number")
    return value
