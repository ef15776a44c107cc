"""The limits of a container: from flags to OCI resources, and what becomes of those that the host cannot enforce.

`resources` is pure but for the numbers of devices; `judge` decides by what was delegated.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from rootless.engine.plan.security import ProcessLimit
from rootless.errors import HostLimit, RootlessError, UsageError
from rootless.records.resource_limits import Resources
from rootless.units import parse_size, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootless.host.cgroups import Delegation
    from rootless.records.container_options import ContainerOptions
    from rootless.records.launch import CgroupPlan
    from rootless.records.resource_limits import BlockIoLimits, CpuLimits, DeviceLimit, MemoryLimits

PERIOD = 100_000  # microseconds of a CPU period, the kernel's default, which --cpus counts in
_LEAST_MEMORY = 6 << 20  # bytes, as docker has it: with less the start of a container may itself run out of memory
_FLAGS = {
    "memory.limit": "--memory",
    "memory.swap": "--memory-swap",
    "memory.reservation": "--memory-reservation",
    "memory.swappiness": "--memory-swappiness",
    "memory.disableOOMKiller": "--oom-kill-disable",
    "cpu.shares": "--cpu-shares",
    "cpu.quota": "--cpus",
    "cpu.cpus": "--cpuset-cpus",
    "cpu.mems": "--cpuset-mems",
    "pids.limit": "--pids-limit",
    "blockIO.weight": "--blkio-weight",
    "blockIO.weightDevice": "--blkio-weight-device",
    "blockIO.throttleReadBpsDevice": "--device-read-bps",
    "blockIO.throttleWriteBpsDevice": "--device-write-bps",
    "blockIO.throttleReadIOPSDevice": "--device-read-iops",
    "blockIO.throttleWriteIOPSDevice": "--device-write-iops",
}


class Verdict(NamedTuple):
    """What the host makes of a container's limits.

    warning: one line, "" when all limits hold; rlimits: limits of processes that stand in for those that do not.
    """

    warning: str = ""
    rlimits: tuple[ProcessLimit, ...] = ()


def resources(options: ContainerOptions) -> Resources | None:
    """The flags of limits as `linux.resources` (config-linux.md); None without limits.

    Raises UsageError naming the flag.
    """
    found = Resources()
    _fill_memory(found.memory, options)
    _fill_cpu(found.cpu, options)
    found.pids = None if options.pids_limit is None else _pids(options.pids_limit)
    _fill_block_io(found.block_io, options)
    found.unified = _unified(options)
    return found if found.to_json() else None


def _fill_memory(memory: MemoryLimits, options: ContainerOptions) -> None:
    limit = None
    if options.memory is not None:
        limit = parse_size(options.memory, "--memory") or None
        if limit and limit < _LEAST_MEMORY:
            raise UsageError(f"--memory {options.memory} is too little", hint="the least is 6m")
        memory.limit = limit
    if options.memory_swap is not None:
        both = -1 if options.memory_swap.strip() == "-1" else parse_size(options.memory_swap, "--memory-swap")
        if both > 0 and not limit:
            raise UsageError("--memory-swap needs --memory: it counts memory and swap together")
        if limit and 0 < both < limit:
            raise UsageError(f"--memory-swap {options.memory_swap} is less than --memory: it counts both together")
        memory.swap = both or None
    if limit and memory.swap is None:
        memory.swap = 2 * limit  # docker's default; the number counts memory and swap together
    if options.memory_reservation is not None:
        reservation = parse_size(options.memory_reservation, "--memory-reservation")
        if limit and reservation > limit:
            raise UsageError(f"--memory-reservation {options.memory_reservation} is more than --memory")
        memory.reservation = reservation or None
    if options.memory_swappiness is not None and options.memory_swappiness >= 0:
        memory.swappiness = options.memory_swappiness
    memory.disable_oom_killer = options.oom_kill_disable


def _fill_cpu(cpu: CpuLimits, options: ContainerOptions) -> None:
    if options.cpus is not None:
        if options.cpu_period is not None or options.cpu_quota is not None:
            raise UsageError("conflicting options: --cpus with --cpu-period or --cpu-quota")
        quota = _microseconds(options.cpus)
        if quota:
            cpu.period, cpu.quota = PERIOD, quota
    if options.cpu_period is not None and options.cpu_period:
        if not 1000 <= options.cpu_period <= 1_000_000:
            raise UsageError(f"--cpu-period {options.cpu_period} is out of range 1000 to 1000000")
        cpu.period = options.cpu_period
    if options.cpu_quota is not None and options.cpu_quota > 0:
        if options.cpu_quota < 1000:
            raise UsageError(f"--cpu-quota {options.cpu_quota} is too little", hint="the least is 1000")
        cpu.quota = options.cpu_quota
    if options.cpu_shares:
        if not 2 <= options.cpu_shares <= 262144:
            raise UsageError(f"--cpu-shares {options.cpu_shares} is out of range 2 to 262144")
        cpu.shares = options.cpu_shares
    if options.cpuset_cpus:
        cpu.cpus = _numbers(options.cpuset_cpus, "--cpuset-cpus")
    if options.cpuset_mems:
        cpu.mems = _numbers(options.cpuset_mems, "--cpuset-mems")


def _microseconds(text: str) -> int:
    from math import isfinite

    try:
        number = float(text)
        if not isfinite(number) or number < 0:
            raise ValueError
    except ValueError:
        raise UsageError(f"--cpus '{text}' is not a number of CPUs", hint="write it like 1.5") from None
    available = os.cpu_count() or 1
    if number > available:
        raise UsageError(f"--cpus {text} is more than this host has", hint=f"the range is 0.01 to {available}")
    quota = round(number * PERIOD)
    if number and quota < 1000:
        raise UsageError(f"--cpus {text} is too little", hint=f"the range is 0.01 to {available}")
    return quota


def _numbers(text: str, flag: str) -> str:
    """The same text, which is a list of numbers such as 0-3,8. Raises UsageError for any other."""
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        low, high = whole_number(first), whole_number(last if dash else first)
        if low is None or high is None or low > high:
            raise UsageError(f"{flag} '{text}' is no list of numbers", hint="write it like 0-3,8")
    return text


def _pids(limit: int) -> int:
    if limit < -1:
        raise UsageError(f"--pids-limit {limit} is negative", hint="-1 means no limit")
    return limit or -1


def _fill_block_io(limits: BlockIoLimits, options: ContainerOptions) -> None:
    if options.blkio_weight:
        if not 10 <= options.blkio_weight <= 1000:
            raise UsageError(f"--blkio-weight {options.blkio_weight} is out of range 10 to 1000")
        limits.weight = options.blkio_weight
    limits.weight_devices = [_per_device(text, "--blkio-weight-device") for text in options.blkio_weight_device]
    if any(not 10 <= device.value <= 1000 for device in limits.weight_devices):
        raise UsageError("--blkio-weight-device: a weight is 10 to 1000")
    limits.read_bytes = [_per_device(text, "--device-read-bps") for text in options.device_read_bps]
    limits.write_bytes = [_per_device(text, "--device-write-bps") for text in options.device_write_bps]
    limits.read_operations = [_per_device(text, "--device-read-iops") for text in options.device_read_iops]
    limits.write_operations = [_per_device(text, "--device-write-iops") for text in options.device_write_iops]


def _per_device(text: str, flag: str) -> DeviceLimit:
    import stat

    from rootless.records.resource_limits import DeviceLimit

    path, colon, value = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise UsageError(f"invalid {flag} '{text}'", hint="write it like /dev/sda:1mb")
    if flag.endswith("bps"):
        number = parse_size(value, flag)
    elif (count := whole_number(value)) is not None:
        number = count
    else:
        raise UsageError(f"invalid {flag} '{text}': '{value}' is no number")
    try:
        status = os.stat(path)
    except OSError as e:
        raise UsageError(f"invalid {flag} '{text}': {e.strerror}") from e
    if not stat.S_ISBLK(status.st_mode):
        raise UsageError(f"invalid {flag} '{text}': '{path}' is no block device")
    return DeviceLimit(f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}", number)


def _unified(options: ContainerOptions) -> dict[str, str]:
    found = {}
    for text in options.cgroup_conf:
        name, equals, value = text.partition("=")
        if not equals or "." not in name or "/" in name:
            raise UsageError(f"invalid --cgroup-conf '{text}'", hint="write it like memory.oom.group=1")
        found[name] = value
    return found


def judge(wanted: CgroupPlan, found: Delegation, *, given_rlimits: set[str] | None = None) -> Verdict:
    """What the host makes of the limits in launch.json's "cgroup".

    Raises HostLimit, naming flag, controller, cause and remedy, where the container wants all or nothing
    (--strict-limits); UsageError for what this version of cgroups does not have at all. given_rlimits: the limits that
    the user sets by --ulimit, for which no stand-in is made.
    """
    limits = wanted.resources
    if limits is None:
        return Verdict()
    unmet = unenforceable(limits, found)
    if not unmet:
        return Verdict()
    flags = [flag for flags in unmet.values() for flag in flags]
    controllers = ", ".join(f"'{name}'" for name in unmet)
    plural = "s" if len(unmet) > 1 else ""
    cause = f"{', '.join(flags)}: controller{plural} {controllers} not available: {found.reason}"
    if wanted.strict:
        raise HostLimit(f"limits cannot be enforced: {cause}", hint=found.remedy)
    rlimits, stand_ins = _stand_ins(limits, unmet, given_rlimits or set())
    instead = f"; instead {' and '.join(stand_ins)}" if stand_ins else ""
    remedy = f" ({found.remedy})" if found.remedy else ""
    return Verdict(f"limits have no effect: {cause}{instead}{remedy}", tuple(rlimits))


def unenforceable(limits: Resources, found: Delegation) -> dict[str, list[str]]:
    """The limits that cannot be enforced with the cgroup found: controller that is missing → flags that need it.

    Raises UsageError for what this version of cgroups does not have at all.
    """
    from rootless.runtime.cgroups import version1, version2

    try:
        settings = (version1 if found.kind == "v1" else version2).settings(limits)
    except RootlessError as e:
        raise UsageError(_in_flags(e.message), hint=e.hint) from e
    unmet: dict[str, list[str]] = {}
    for setting in settings:
        controller = {"blkio": "io"}.get(setting.controller, setting.controller)
        if controller and controller not in found.controllers:
            flags = unmet.setdefault(controller, [])
            flag = _flag(setting.origin, limits)
            if flag not in flags and not (flag == "--memory-swap" and _is_default_swap(limits.memory)):
                flags.append(flag)
    return unmet


def _is_default_swap(memory: MemoryLimits) -> bool:
    return bool(memory.limit) and memory.swap == 2 * (memory.limit or 0)


def _flag(origin: str, limits: Resources) -> str:
    name = origin.removeprefix("linux.resources.")
    if name == "cpu.quota" and limits.cpu.period != PERIOD:
        return "--cpu-quota"
    if name.startswith("unified."):
        return f"--cgroup-conf {name.removeprefix('unified.')}"
    return _FLAGS.get(name, name)


def _in_flags(message: str) -> str:
    for name, flag in sorted(_FLAGS.items(), key=lambda pair: -len(pair[0])):
        message = message.replace(f"config property 'linux.resources.{name}'", flag)
    return message


def _stand_ins(
    limits: Resources, unmet: Mapping[str, list[str]], given: set[str]
) -> tuple[list[ProcessLimit], list[str]]:
    """The resource limits (setrlimit(2)) that do a part of what the missing controllers would; and a text for each.

    They hold for each process, or for each user of the container, not for the container as a whole.
    """
    from rootless.host.facts import kernel_version

    rlimits: list[ProcessLimit] = []
    words: list[str] = []
    memory, pids = limits.memory.limit, limits.pids
    # Since Linux 4.7 RLIMIT_DATA counts private writable mappings as well as the heap (setrlimit(2))
    if "memory" in unmet and memory and "RLIMIT_DATA" not in given:
        rlimits.append(ProcessLimit("RLIMIT_DATA", memory, memory))
        words.append("each process may have that much memory of its own (RLIMIT_DATA)")
    # Since Linux 5.14 RLIMIT_NPROC counts by user namespace. Before, all processes of the user on the host counted, and
    # a container could not start at all for what its user runs elsewhere
    if "pids" in unmet and pids and pids > 0 and "RLIMIT_NPROC" not in given and kernel_version() >= (5, 14):
        rlimits.append(ProcessLimit("RLIMIT_NPROC", pids, pids))
        words.append("each user of the container may have that many processes (RLIMIT_NPROC)")
    return rlimits, words
