"""OCI resources as files of cgroup version 2 (config-linux.md), values of version 1 converted. Pure."""

from __future__ import annotations

from rootless.errors import InvalidInput
from rootless.runtime.cgroups.limit_values import (
    Setting,
    cpu_sets,
    device_rates,
    device_weights,
    huge_pages,
    is_asked,
    limit_text,
    member,
    number,
    process_limit,
    swap_beyond_memory,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_THROTTLE_KEYS = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}


def settings(resources: dict[str, Any]) -> list[Setting]:
    """The writes that `linux.resources` asks for, in an order in which each can follow the one before.

    Raises InvalidInput for what version 2 does not have, or what contradicts itself; the property is named.
    """
    if not is_asked(resources):
        return []
    return [
        *_memory(resources),
        *_cpu(resources),
        *process_limit(resources),
        *_block_io(resources),
        *_others(resources),
        *_unified(resources),
    ]


def _memory(resources: dict[str, Any]) -> list[Setting]:
    if number(resources, "memory.swappiness") is not None:
        raise _none("memory.swappiness")
    if member(resources, "memory.disableOOMKiller"):
        raise _none("memory.disableOOMKiller")
    found = []
    swap, limit = swap_beyond_memory(resources), number(resources, "memory.limit")
    reservation = number(resources, "memory.reservation")
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


def _cpu(resources: dict[str, Any]) -> list[Setting]:
    found = []
    for name in ("realtimeRuntime", "realtimePeriod"):
        if number(resources, f"cpu.{name}"):
            raise _none(f"cpu.{name}")
    shares, quota, period = (number(resources, f"cpu.{name}") for name in ("shares", "quota", "period"))
    if shares:
        found.append(Setting("cpu", "cpu.weight", str(weight_of_shares(shares)), "cpu.shares"))
    if quota or period:
        most = str(quota) if quota and quota > 0 else "max"
        found.append(Setting("cpu", "cpu.max", f"{most} {period or 100000}", "cpu.quota"))
    burst = number(resources, "cpu.burst")
    if burst is not None:
        found.append(Setting("cpu", "cpu.max.burst", str(burst), "cpu.burst"))
    idle = number(resources, "cpu.idle")
    if idle is not None:
        found.append(Setting("cpu", "cpu.idle", str(idle), "cpu.idle"))
    return found + cpu_sets(resources)


def io_weight(weight: int) -> int:
    """io.weight (1 to 10000) of blkio.weight (10 to 1000)."""
    return 1 + (weight - 10) * 9999 // 990


def _block_io(resources: dict[str, Any]) -> list[Setting]:
    found = []
    weight = number(resources, "blockIO.weight")
    if weight:
        found.append(Setting("io", "io.weight", f"default {io_weight(_weight(weight))}", "blockIO.weight"))
    if number(resources, "blockIO.leafWeight"):
        raise _none("blockIO.leafWeight")
    for where, value in device_weights(resources):
        text = f"{where} {io_weight(_weight(value))}"
        found.append(Setting("io", "io.weight", text, "blockIO.weightDevice"))
    for name, where, rate in device_rates(resources):
        text = f"{where} {_THROTTLE_KEYS[name]}={rate if rate > 0 else 'max'}"
        found.append(Setting("io", "io.max", text, f"blockIO.{name}"))
    return found


def _weight(weight: int) -> int:
    if not 10 <= weight <= 1000:
        raise InvalidInput(f"config property 'linux.resources.blockIO.weight' {weight} is out of range 10 to 1000")
    return weight


def _others(resources: dict[str, Any]) -> list[Setting]:
    found = []
    for size, most in huge_pages(resources):
        found.append(Setting("hugetlb", f"hugetlb.{size}.max", limit_text(most), "hugepageLimits"))
    rdma = member(resources, "rdma") or {}
    for name in rdma if isinstance(rdma, dict) else ():
        words = [str(name)]
        for key, short in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
            limit = number(rdma[name], key)
            if limit is not None:
                words.append(f"{short}={limit}")
        found.append(Setting("rdma", "rdma.max", " ".join(words), "rdma"))
    for name in ("classID", "priorities"):
        if member(resources, f"network.{name}"):
            raise _none(f"network.{name}")
    return found


def _unified(resources: dict[str, Any]) -> list[Setting]:
    """Written as they are, whether we know the key or not; a key is the name of one file."""
    unified = member(resources, "unified") or {}
    if not isinstance(unified, dict):
        raise InvalidInput("config property 'linux.resources.unified' must be an object")
    found = []
    for key, value in unified.items():
        controller, dot, rest = key.partition(".")
        if not dot or not rest or "/" in key or "\0" in key or not isinstance(value, str):
            raise InvalidInput(f"config property 'linux.resources.unified' has no file of a cgroup: '{key}'")
        if key in ("cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.subtree_control"):
            raise InvalidInput(f"config property 'linux.resources.unified': '{key}' is this runtime's own to write")
        controller = "" if controller == "cgroup" else controller
        found += [Setting(controller, key, line, f"unified.{key}") for line in value.splitlines() or [""]]
    return found


def _none(origin: str) -> InvalidInput:
    return InvalidInput(
        f"config property 'linux.resources.{origin}' cannot be had: cgroup version 2 has nothing like it",
        hint="leave it out",
    )
