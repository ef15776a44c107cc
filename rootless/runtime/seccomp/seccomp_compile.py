"""OCI `linux.seccomp` → a BPF program, through libseccomp. It reads no file and loads nothing into the kernel."""

from __future__ import annotations

import errno
import struct

from rootless.errors import HostLimit, InvalidInput
from rootless.kernel import libseccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.runtime.seccomp.seccomp_profile import SeccompComparison, SeccompProfile, SeccompRule

# Numbers above libseccomp's own table (2.5.4 ends at Linux 5.17). From 424 on every architecture has the same number,
# so these can be matched without the library. Source: the kernel's scripts/syscall.tbl.
_NEWER = {
    "process_mrelease": 448,
    "futex_waitv": 449,
    "set_mempolicy_home_node": 450,
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
}
_FIXED_ACTIONS = {
    "SCMP_ACT_KILL": libseccomp.ACT_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": libseccomp.ACT_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": libseccomp.ACT_KILL_PROCESS,
    "SCMP_ACT_TRAP": libseccomp.ACT_TRAP,
    "SCMP_ACT_LOG": libseccomp.ACT_LOG,
    "SCMP_ACT_ALLOW": libseccomp.ACT_ALLOW,
    "SCMP_ACT_NOTIFY": libseccomp.ACT_NOTIFY,
}
# The process that has just loaded the filter hands its listener over with it: nobody could answer yet
_NEEDED = ("sendmsg",)
_MAX_ERRNO = 4095  # MAX_ERRNO of the kernel: higher ones are cut
_BINARY_TREE = 2  # SCMP_FLTATR_CTL_OPTIMIZE since 2.5.0: logarithmic instead of linear in the number of calls
_LD_WORD, _JEQ, _JGT, _JGE, _RET = 0x20, 0x15, 0x25, 0x35, 0x06
_AUDIT_ARCH_X86_64, _X32_BIT = 0xC000003E, 0x40000000
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


def compile_profile(profile: SeccompProfile) -> bytes:
    """The BPF program (struct sock_filter, 8 bytes each, native byte order) of an OCI profile.

    System calls that neither libseccomp nor we know are skipped. Where the default is an errno, calls newer than the
    library get ENOSYS instead, so that C libraries fall back to the older call (glibc takes EPERM for an answer).
    Raises InvalidInput for a wrong profile, HostLimit without libseccomp.
    """
    default = action(profile.default_action, profile.default_errno, "defaultAction")
    _check_listener(profile, default)
    try:
        with libseccomp.Filter(default) as building:
            for name in profile.architectures:
                building.arch_add(_architecture(name))
            newer: dict[int, int] = {}
            for number, rule in enumerate(profile.rules):
                _add(building, rule, default, newer, f"syscalls[{number}]")
            try:
                building.attr_set(libseccomp.ATTR_CTL_OPTIMIZE, _BINARY_TREE)
            except OSError:
                pass  # before libseccomp 2.5.0: the same verdicts, found more slowly
            program = _prologue(default, newer) + building.export_bpf()
    except OSError as e:
        if e.errno == errno.ENOENT:
            raise HostLimit(
                "seccomp: libseccomp.so.2 is not installed",
                hint="as root: apt install libseccomp2 (dnf install libseccomp); or --security-opt seccomp=unconfined",
            ) from e
        raise InvalidInput(f"seccomp: libseccomp refused the profile: {e.strerror}") from e
    if len(program) > _MAX_INSTRUCTIONS * 8:
        raise InvalidInput(f"seccomp: the profile needs {len(program) // 8} instructions, the kernel takes 4096")
    return program


def action(name: str, errno_ret: int | None, where: str) -> int:
    """libseccomp's value of an action. An errnoRet beside an action that has none is an error (runtime-spec)."""
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        number = errno.EPERM if errno_ret is None else errno_ret
        limit = _MAX_ERRNO if name == "SCMP_ACT_ERRNO" else 0xFFFF
        if not 0 <= number <= limit:
            raise InvalidInput(f"seccomp: {where}: errnoRet {number} is not in 0..{limit}")
        return libseccomp.act_errno(number) if name == "SCMP_ACT_ERRNO" else libseccomp.act_trace(number)
    if name not in _FIXED_ACTIONS:
        raise InvalidInput(f'seccomp: {where}: unknown action "{name}"')
    if errno_ret is not None:
        raise InvalidInput(f"seccomp: {where}: errnoRet is given, {name} has none")
    return _FIXED_ACTIONS[name]


def _check_listener(profile: SeccompProfile, default: int) -> None:
    """listenerPath, listenerMetadata and SCMP_ACT_NOTIFY go together (config-linux.md)."""
    if default == libseccomp.ACT_NOTIFY:
        raise InvalidInput("seccomp: defaultAction: SCMP_ACT_NOTIFY would wait for a listener that nobody has yet")
    if profile.listener_metadata and not profile.listener_path:
        raise InvalidInput("seccomp: listenerMetadata is given, listenerPath is not")
    for number, rule in enumerate(profile.rules):
        if rule.action != "SCMP_ACT_NOTIFY":
            continue
        if not profile.listener_path:
            raise InvalidInput(f"seccomp: syscalls[{number}]: SCMP_ACT_NOTIFY needs a listenerPath")
        for name in _NEEDED:
            if name in rule.names:
                raise InvalidInput(
                    f'seccomp: syscalls[{number}]: "{name}" cannot be SCMP_ACT_NOTIFY: it hands the listener over'
                )


def _architecture(name: str) -> int:
    token = None
    if name.startswith("SCMP_ARCH_"):
        token = libseccomp.arch_resolve(name.removeprefix("SCMP_ARCH_").lower())
    if token is None:
        raise InvalidInput(f'seccomp: unknown architecture "{name}"')
    return token


def _add(building: libseccomp.Filter, rule: SeccompRule, default: int, newer: dict[int, int], where: str) -> None:
    names = rule.names
    if not names or not all(names):
        raise InvalidInput(f"seccomp: {where}: names is empty")
    verdict = action(rule.action, rule.errno, where)
    comparisons = [_comparison(comparison, where) for comparison in rule.comparisons]
    if verdict == default:
        return  # says nothing; libseccomp refuses it
    for name in names:
        number = libseccomp.syscall_resolve(name)
        if number is None:
            if name in _NEWER and not comparisons:
                newer[_NEWER[name]] = verdict
            continue
        try:
            for group in _groups(comparisons):
                building.rule_add(verdict, number, group)
        except OSError as e:
            if e.errno == errno.ENOENT:
                raise
            raise InvalidInput(f'seccomp: {where}: cannot add the rule for "{name}": {e.strerror}') from e


def _groups(comparisons: list[tuple[int, int, int, int]]) -> list[list[tuple[int, int, int, int]]]:
    """One rule; an argument compared twice, which libseccomp cannot hold, makes one for each comparison, as in runc."""
    indexes = [c[0] for c in comparisons]
    if len(set(indexes)) == len(indexes):
        return [comparisons]
    return [[c] for c in comparisons]


def _comparison(comparison: SeccompComparison, where: str) -> tuple[int, int, int, int]:
    """The comparison as `Filter.rule_add` takes it. Raises InvalidInput for what libseccomp would refuse or cut."""
    operator = comparison.operator
    compare = libseccomp.COMPARE.get(operator.removeprefix("SCMP_CMP_"))
    if compare is None or not operator.startswith("SCMP_CMP_"):
        raise InvalidInput(f'seccomp: {where}: unknown operator "{operator}"')
    index, value, second = comparison.index, comparison.value, comparison.value_two
    if not 0 <= index <= 5:
        raise InvalidInput(f"seccomp: {where}: argument index {index} is not in 0..5")
    for number in (value, second):
        if not 0 <= number < 1 << 64:
            raise InvalidInput(f"seccomp: {where}: argument value {number} is not an unsigned 64-bit number")
    return index, compare, value, second


def _prologue(default: int, newer: dict[int, int]) -> bytes:
    """Instructions before libseccomp's: verdicts for calls it does not know, on the native architecture only.

    newer: number → action. Calls beyond the library's table answer ENOSYS where the default is an errno.
    """
    highest = max((n for name, n in _NEWER.items() if libseccomp.syscall_resolve(name) == n), default=0)
    answers_errno = default & 0xFFFF0000 == libseccomp.act_errno(0)
    if not newer and not (answers_errno and highest):
        return b""
    native = libseccomp.arch_native()
    tests = [(_JEQ, number, verdict) for number, verdict in sorted(newer.items())]
    if answers_errno and highest:
        tests.append((_JGT, highest, libseccomp.act_errno(errno.ENOSYS)))
    body: list[tuple[int, int, int, int]] = []
    for jump, number, verdict in tests:
        body += [(jump, 0, 1, number), (_RET, 0, 0, verdict)]
    if native == _AUDIT_ARCH_X86_64:
        body.insert(0, (_JGE, len(body), 0, _X32_BIT))  # x32 calls are libseccomp's
    body.insert(0, (_LD_WORD, 0, 0, 0))  # seccomp_data.nr
    head = [(_LD_WORD, 0, 0, 4), (_JEQ, 0, len(body), native)]  # seccomp_data.arch
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in (*head, *body))
