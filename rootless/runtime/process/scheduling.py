"""Scheduling class, processors, I/O priority, memory policy and execution domain of a process. Validated elsewhere."""

from __future__ import annotations

import os

from rootless.errors import RuntimeFailure
from rootless.kernel import process as kernel
from rootless.runtime.spec.oci_config import MEMORY_FLAGS, MEMORY_MODES, PERSONALITIES
from rootless.runtime.spec.process_config import (
    HIGHEST_NUMBER,
    IO_CLASSES,
    POLICIES,
    SCHEDULER_FLAGS,
    parse_numbers,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.runtime.spec.oci_config import LinuxConfig
    from rootless.runtime.spec.process_config import CpuAffinity, OciProcess

_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13


def apply_scheduling(process: OciProcess) -> None:
    """`process.scheduler` and `process.ioPriority`. Raises RuntimeFailure naming the one that is refused."""
    scheduler = process.scheduler
    if scheduler is not None:
        flags = 0
        for name in scheduler.flags:
            flags |= SCHEDULER_FLAGS[name]
        wanted = kernel.SchedulingAttributes(POLICIES[scheduler.policy])
        wanted.flags, wanted.nice, wanted.priority = flags, scheduler.nice, scheduler.priority
        wanted.runtime, wanted.deadline, wanted.period = scheduler.runtime, scheduler.deadline, scheduler.period
        try:
            kernel.sched_setattr(0, wanted)
        except OSError as e:
            raise RuntimeFailure(f"cannot set process.scheduler {scheduler.policy}: {e.strerror}") from e
    priority = process.io_priority
    if priority is not None:
        value = IO_CLASSES[priority.kind] << _IOPRIO_CLASS_SHIFT | priority.priority
        try:
            kernel.ioprio_set(_IOPRIO_WHO_PROCESS, 0, value)
        except OSError as e:
            raise RuntimeFailure(f"cannot set process.ioPriority {priority.kind}: {e.strerror}") from e


def apply_affinity(affinity: CpuAffinity, *, final: bool) -> None:
    """`process.execCPUAffinity`: the processors before the process is in its cgroup, or from then on."""
    if not final:
        name, text = "initial", affinity.initial
        wanted = parse_numbers(text)
    elif affinity.final:
        name, text = "final", affinity.final
        wanted = parse_numbers(text)
    else:
        # back to all that the cgroup allows: the kernel cuts the set to these
        name, text = "final", ""
        wanted = set(range(HIGHEST_NUMBER + 1)) if affinity.initial else set()
    if not wanted:
        return
    try:
        os.sched_setaffinity(0, wanted)
    except OSError as e:
        raise RuntimeFailure(
            f"cannot set process.execCPUAffinity.{name} to processors {text or 'of the cgroup'}: {e.strerror}",
            hint="none of them is among those that you may use (taskset -pc $$)",
        ) from e


def apply_inherited(linux: LinuxConfig) -> None:
    """`linux.personality` and `linux.memoryPolicy`, which all processes of the container inherit."""
    if linux.personality:
        kernel.personality(PERSONALITIES[linux.personality])
    policy = linux.memory_policy
    if policy is not None:
        mode = MEMORY_MODES[policy.mode]
        for name in policy.flags:
            mode |= MEMORY_FLAGS[name]
        try:
            kernel.set_mempolicy(mode, parse_numbers(policy.nodes))
        except OSError as e:
            raise RuntimeFailure(
                f"cannot set linux.memoryPolicy {policy.mode} of nodes '{policy.nodes}': {e.strerror}"
            ) from e
