"""OCI resources as files of cgroup version 1, for the rare host where a user may write them. Pure."""

from __future__ import annotations

from rootless.errors import InvalidInput
from rootless.runtime.cgroups.limit_values import (
    Setting,
    device,
    is_asked,
    listed,
    member,
    number,
    swap_beyond_memory,
    word,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)
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
    for name in ("cpus", "mems"):
        chosen = word(resources, f"cpu.{name}")
        if chosen:
            found.append(Setting("cpuset", f"cpuset.{name}", chosen, f"cpu.{name}"))
    limit = number(resources, "pids.limit")
    if limit is not None:
        found.append(Setting("pids", "pids.max", "max" if limit < 0 else str(limit), "pids.limit"))
    for entry in listed(resources, "blockIO.weightDevice"):
        if number(entry, "weight"):
            text = f"{device(entry, 'blockIO.weightDevice')} {entry['weight']}"
            found.append(Setting("blkio", "blkio.weight_device", text, "blockIO.weightDevice"))
    for name, file in _THROTTLES:
        for entry in listed(resources, f"blockIO.{name}"):
            if number(entry, "rate") is not None:
                text = f"{device(entry, f'blockIO.{name}')} {entry['rate']}"
                found.append(Setting("blkio", file, text, f"blockIO.{name}"))
    for entry in listed(resources, "hugepageLimits"):
        size = word(entry, "pageSize")
        if size is None or "/" in size:
            raise InvalidInput("config property 'linux.resources.hugepageLimits' needs 'pageSize' and 'limit'")
        text = str(number(entry, "limit") or 0)
        found.append(Setting("hugetlb", f"hugetlb.{size}.limit_in_bytes", text, "hugepageLimits"))
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
