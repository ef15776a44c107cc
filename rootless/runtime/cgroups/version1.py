"""OCI resources as files of cgroup version 1, for the rare host where a user may write them. Pure."""

from __future__ import annotations

from rootless.errors import InvalidInput
from rootless.runtime.cgroups.limit_values import (
    Setting,
    cpu_sets,
    device_rates,
    device_weights,
    huge_pages,
    is_asked,
    member,
    number,
    process_limit,
    swap_beyond_memory,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_THROTTLE_FILES = {
    "throttleReadBpsDevice": "blkio.throttle.read_bps_device",
    "throttleWriteBpsDevice": "blkio.throttle.write_bps_device",
    "throttleReadIOPSDevice": "blkio.throttle.read_iops_device",
    "throttleWriteIOPSDevice": "blkio.throttle.write_iops_device",
}
_NUMBERS = (
    ("memory", "memory.reservation", "memory.soft_limit_in_bytes"),
    ("memory", "memory.swappiness", "memory.swappiness"),
    ("cpu", "cpu.shares", "cpu.shares"),
    ("cpu", "cpu.period", "cpu.cfs_period_us"),
    ("cpu", "cpu.quota", "cpu.cfs_quota_us"),
    ("cpu", "cpu.realtimePeriod", "cpu.rt_period_us"),
    ("cpu", "cpu.realtimeRuntime", "cpu.rt_runtime_us"),
    ("blkio", "blockIO.weight", "blkio.weight"),
    ("blkio", "blockIO.leafWeight", "blkio.leaf_weight"),
)


def settings(resources: dict[str, Any]) -> list[Setting]:
    """The writes that `linux.resources` asks for. Raises InvalidInput; keys of version 2 are refused by name."""
    if not is_asked(resources):
        return []
    if member(resources, "unified"):
        raise InvalidInput(
            "config property 'linux.resources.unified' cannot be had: this host has cgroup version 1",
            hint="use the properties by name",
        )
    found = _memory(resources)
    for controller, origin, name in _NUMBERS:
        value = number(resources, origin)
        if value:
            found.append(Setting(controller, name, str(value), origin))
    found += cpu_sets(resources)
    found += process_limit(resources)
    for where, weight in device_weights(resources):
        found.append(Setting("blkio", "blkio.weight_device", f"{where} {weight}", "blockIO.weightDevice"))
    for name, where, rate in device_rates(resources):
        found.append(Setting("blkio", _THROTTLE_FILES[name], f"{where} {rate}", f"blockIO.{name}"))
    for size, limit in huge_pages(resources):
        found.append(Setting("hugetlb", f"hugetlb.{size}.limit_in_bytes", str(limit), "hugepageLimits"))
    return found


def _memory(resources: dict[str, Any]) -> list[Setting]:
    found = []
    limit, swap = number(resources, "memory.limit"), number(resources, "memory.swap")
    swap_beyond_memory(resources)  # its checks
    if limit:
        found.append(Setting("memory", "memory.limit_in_bytes", str(limit), "memory.limit"))
    if swap:
        found.append(Setting("memory", "memory.memsw.limit_in_bytes", str(swap), "memory.swap"))
    if member(resources, "memory.disableOOMKiller"):
        found.append(Setting("memory", "memory.oom_control", "1", "memory.disableOOMKiller"))
    return found
