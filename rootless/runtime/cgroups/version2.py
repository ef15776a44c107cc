"""OCI resources as files of cgroup version 2 (config-linux.md), values of version 1 converted. Pure."""

from __future__ import annotations

from rootless.errors import InvalidInput
from rootless.runtime.cgroups.limit_values import Setting, cpu_sets, limit_text, process_limit, rdma_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.resource_limits import BlockIoLimits, CpuLimits, MemoryLimits, Resources

_OURS = ("cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.subtree_control")


def settings(resources: Resources) -> list[Setting]:
    """The writes that `linux.resources` asks for, in an order in which each can follow the one before.

    Raises InvalidInput for what version 2 does not have, or what contradicts itself; the property is named.
    """
    if not resources.is_asked:
        return []
    return [
        *_memory(resources.memory),
        *_cpu(resources.cpu),
        *process_limit(resources),
        *_block_io(resources.block_io),
        *_others(resources),
        *_unified(resources.unified),
    ]


def _memory(memory: MemoryLimits) -> list[Setting]:
    if memory.swappiness is not None:
        raise _none("memory.swappiness")
    if memory.disable_oom_killer:
        raise _none("memory.disableOOMKiller")
    found = []
    swap, limit, reservation = memory.swap_alone(), memory.limit, memory.reservation
    if limit and reservation and 0 < limit < reservation:
        raise InvalidInput("config property 'linux.resources.memory.reservation' is above 'memory.limit'")
    if swap is not None:
        found.append(Setting("memory", "memory.swap.max", limit_text(swap), "memory.swap"))
    if limit:
        found.append(Setting("memory", "memory.max", limit_text(limit), "memory.limit"))
    if reservation:
        found.append(Setting("memory", "memory.low", limit_text(reservation), "memory.reservation"))
    return found


def weight_of_shares(shares: int) -> int:
    """cpu.weight (1 to 10000) of cpu.shares (2 to 262144), so that both defaults, 1024 and 100, mean the same.

    The curve that runc 1.3.2 and crun 1.23 use; the straight line before it made 39 of 1024.
    """
    from math import ceil, log2

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    power = log2(shares)
    return ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))


def _cpu(cpu: CpuLimits) -> list[Setting]:
    found = []
    if cpu.realtime_runtime:
        raise _none("cpu.realtimeRuntime")
    if cpu.realtime_period:
        raise _none("cpu.realtimePeriod")
    if cpu.shares:
        found.append(Setting("cpu", "cpu.weight", str(weight_of_shares(cpu.shares)), "cpu.shares"))
    if cpu.quota or cpu.period:
        most = str(cpu.quota) if cpu.quota and cpu.quota > 0 else "max"
        found.append(Setting("cpu", "cpu.max", f"{most} {cpu.period or 100000}", "cpu.quota"))
    if cpu.burst is not None:
        found.append(Setting("cpu", "cpu.max.burst", str(cpu.burst), "cpu.burst"))
    if cpu.idle is not None:
        found.append(Setting("cpu", "cpu.idle", str(cpu.idle), "cpu.idle"))
    return found + cpu_sets(cpu)


def io_weight(weight: int) -> int:
    """io.weight (1 to 10000) of blkio.weight (10 to 1000)."""
    return 1 + (weight - 10) * 9999 // 990


def _block_io(limits: BlockIoLimits) -> list[Setting]:
    found = []
    if limits.weight:
        found.append(Setting("io", "io.weight", f"default {io_weight(_weight(limits.weight))}", "blockIO.weight"))
    if limits.leaf_weight:
        raise _none("blockIO.leafWeight")
    for one in limits.weight_devices:
        text = f"{one.device} {io_weight(_weight(one.value))}"
        found.append(Setting("io", "io.weight", text, "blockIO.weightDevice"))
    rates = (
        (limits.read_bytes, "rbps", "throttleReadBpsDevice"),
        (limits.write_bytes, "wbps", "throttleWriteBpsDevice"),
        (limits.read_operations, "riops", "throttleReadIOPSDevice"),
        (limits.write_operations, "wiops", "throttleWriteIOPSDevice"),
    )
    for devices, key, origin in rates:
        for one in devices:
            text = f"{one.device} {key}={one.value if one.value > 0 else 'max'}"
            found.append(Setting("io", "io.max", text, f"blockIO.{origin}"))
    return found


def _weight(weight: int) -> int:
    if not 10 <= weight <= 1000:
        raise InvalidInput(f"config property 'linux.resources.blockIO.weight' {weight} is out of range 10 to 1000")
    return weight


def _others(resources: Resources) -> list[Setting]:
    found = [
        Setting("hugetlb", f"hugetlb.{page.size}.max", limit_text(page.limit), "hugepageLimits")
        for page in resources.huge_pages
    ]
    found += rdma_limits(resources)
    for name in resources.network:
        raise _none(f"network.{name}")
    return found


def _unified(unified: dict[str, str]) -> list[Setting]:
    """Written as they are, whether we know the key or not; a key is the name of one file.

    CVE-2023-25809: a key with a slash would be a file outside of the container's own cgroup.
    """
    found = []
    for key, value in unified.items():
        controller, dot, rest = key.partition(".")
        if not dot or not rest or "/" in key:
            raise InvalidInput(f"config property 'linux.resources.unified' has no file of a cgroup: '{key}'")
        if key in _OURS:
            raise InvalidInput(f"config property 'linux.resources.unified': '{key}' is this runtime's own to write")
        controller = "" if controller == "cgroup" else controller
        found += [Setting(controller, key, line, f"unified.{key}") for line in value.splitlines() or [""]]
    return found


def _none(origin: str) -> InvalidInput:
    return InvalidInput(
        f"config property 'linux.resources.{origin}' cannot be had: cgroup version 2 has nothing like it",
        hint="leave it out",
    )
