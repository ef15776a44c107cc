"""Scheduling class, processors, I/O priority, memory policy and execution domain of a process. Validated elsewhere."""

from __future__ import annotations

import os

from rootless.errors import RuntimeFailure
from rootless.kernel import process as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {"MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15}
HIGHEST_NUMBER = 1023
"""Of a processor or a NUMA node."""
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13


def apply_scheduling(process: dict[str, Any]) -> None:
    """`process.scheduler` and `process.ioPriority`. Raises RuntimeFailure naming the one that is refused."""
    scheduler = process.get("scheduler")
    if scheduler:
        flags = 0
        for name in scheduler.get("flags") or ():
            flags |= FLAGS[name]
        try:
            kernel.sched_setattr(
                0,
                policy=POLICIES[scheduler["policy"]],
                flags=flags,
                nice=scheduler.get("nice", 0),
                priority=scheduler.get("priority", 0),
                runtime=scheduler.get("runtime", 0),
                deadline=scheduler.get("deadline", 0),
                period=scheduler.get("period", 0),
            )
        except OSError as e:
            raise RuntimeFailure(f"cannot set process.scheduler {scheduler['policy']}: {e.strerror}") from e
    priority = process.get("ioPriority")
    if priority:
        value = IO_CLASSES[priority["class"]] << _IOPRIO_CLASS_SHIFT | priority.get("priority", 0)
        try:
            kernel.ioprio_set(_IOPRIO_WHO_PROCESS, 0, value)
        except OSError as e:
            raise RuntimeFailure(f"cannot set process.ioPriority {priority['class']}: {e.strerror}") from e


def numbers(text: str) -> set[int]:
    """`0-3,7` → {0, 1, 2, 3, 7}; nothing → the empty set. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(",") if text.strip() else ():
        first, separator, last = part.strip().partition("-")
        low = _number(first)
        high = _number(last) if separator else low
        if high < low:
            raise ValueError(text)
        found.update(range(low, high + 1))
    return found


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 4 or int(text) > HIGHEST_NUMBER:
        raise ValueError(text)
    return int(text)


def apply_affinity(process: dict[str, Any], *, final: bool) -> None:
    """`process.execCPUAffinity`: the processors before the process is in its cgroup, or from then on."""
    affinity = process.get("execCPUAffinity") or {}
    initial, last = affinity.get("initial"), affinity.get("final")
    if not final:
        wanted = numbers(initial) if initial else set()
    elif last:
        wanted = numbers(last)
    else:
        # back to all that the cgroup allows: the kernel cuts the set to these
        wanted = set(range(HIGHEST_NUMBER + 1)) if initial else set()
    if not wanted:
        return
    try:
        os.sched_setaffinity(0, wanted)
    except OSError as e:
        key = "final" if final else "initial"
        raise RuntimeFailure(
            f"cannot set process.execCPUAffinity.{key} to processors {affinity.get(key)}: {e.strerror}",
            hint="none of them is among those that you may use (taskset -pc $$)",
        ) from e


def apply_inherited(linux: dict[str, Any]) -> None:
    """`linux.personality` and `linux.memoryPolicy`, which all processes of the container inherit."""
    personality = linux.get("personality")
    if personality:
        kernel.personality(PERSONALITIES[personality["domain"]])
    policy = linux.get("memoryPolicy")
    if policy:
        mode = MEMORY_MODES[policy["mode"]]
        for name in policy.get("flags") or ():
            mode |= MEMORY_FLAGS[name]
        try:
            kernel.set_mempolicy(mode, numbers(policy.get("nodes") or ""))
        except OSError as e:
            raise RuntimeFailure(
                f"cannot set linux.memoryPolicy {policy['mode']} of nodes '{policy.get('nodes') or ''}': {e.strerror}"
            ) from e
