"""OCI resources as files of cgroup version 1, for the rare host where a user may write them. Pure."""

from __future__ import annotations

from rootless.errors import InvalidInput
from rootless.runtime.cgroups.limit_values import Setting, cpu_sets, process_limit, rdma_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.resource_limits import BlockIoLimits, CpuLimits, MemoryLimits, Resources


def settings(resources: Resources) -> list[Setting]:
    """The writes that `linux.resources` asks for. Raises InvalidInput; keys of version 2 are refused by name."""
    if not resources.is_asked:
        return []
    if resources.unified:
        raise InvalidInput(
            "config property 'linux.resources.unified' cannot be had: this host has cgroup version 1",
            hint="use the properties by name",
        )
    for name in resources.network:
        raise InvalidInput(
            f"config property 'linux.resources.network.{name}' cannot be had: no cgroup that a user can have knows it",
            hint="leave it out",
        )
    return [
        *_memory(resources.memory),
        *_cpu(resources.cpu),
        *process_limit(resources),
        *_block_io(resources.block_io),
        *rdma_limits(resources),
        *(
            Setting("hugetlb", f"hugetlb.{page.size}.limit_in_bytes", str(page.limit), "hugepageLimits")
            for page in resources.huge_pages
        ),
    ]


def _memory(memory: MemoryLimits) -> list[Setting]:
    memory.swap_alone()  # for its checks: the kernel refuses memory and swap below memory, without a reason
    numbers = (
        (memory.limit, "memory.limit_in_bytes", "memory.limit"),
        (memory.swap, "memory.memsw.limit_in_bytes", "memory.swap"),
        (memory.reservation, "memory.soft_limit_in_bytes", "memory.reservation"),
        (memory.swappiness, "memory.swappiness", "memory.swappiness"),
    )
    found = [Setting("memory", name, str(value), origin) for value, name, origin in numbers if value]
    if memory.disable_oom_killer:
        found.append(Setting("memory", "memory.oom_control", "1", "memory.disableOOMKiller"))
    return found


def _cpu(cpu: CpuLimits) -> list[Setting]:
    numbers = (
        (cpu.shares, "cpu.shares", "cpu.shares"),
        (cpu.period, "cpu.cfs_period_us", "cpu.period"),
        (cpu.quota, "cpu.cfs_quota_us", "cpu.quota"),
        (cpu.realtime_period, "cpu.rt_period_us", "cpu.realtimePeriod"),
        (cpu.realtime_runtime, "cpu.rt_runtime_us", "cpu.realtimeRuntime"),
    )
    return [Setting("cpu", name, str(value), origin) for value, name, origin in numbers if value] + cpu_sets(cpu)


def _block_io(limits: BlockIoLimits) -> list[Setting]:
    found = []
    if limits.weight:
        found.append(Setting("blkio", "blkio.weight", str(limits.weight), "blockIO.weight"))
    if limits.leaf_weight:
        found.append(Setting("blkio", "blkio.leaf_weight", str(limits.leaf_weight), "blockIO.leafWeight"))
    by_device = (
        (limits.weight_devices, "blkio.weight_device", "weightDevice"),
        (limits.read_bytes, "blkio.throttle.read_bps_device", "throttleReadBpsDevice"),
        (limits.write_bytes, "blkio.throttle.write_bps_device", "throttleWriteBpsDevice"),
        (limits.read_operations, "blkio.throttle.read_iops_device", "throttleReadIOPSDevice"),
        (limits.write_operations, "blkio.throttle.write_iops_device", "throttleWriteIOPSDevice"),
    )
    for devices, name, origin in by_device:
        found += [Setting("blkio", name, f"{one.device} {one.value}", f"blockIO.{origin}") for one in devices]
    return found
