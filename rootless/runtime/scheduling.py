"""Scheduling class, I/O priority and execution domain of a container's process. Values are validated elsewhere."""

from __future__ import annotations

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


def apply_personality(linux: dict[str, Any]) -> None:
    """`linux.personality`."""
    personality = linux.get("personality")
    if personality:
        kernel.personality(PERSONALITIES[personality["domain"]])
