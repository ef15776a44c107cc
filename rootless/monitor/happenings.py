"""What happens to a container as its state and the events log get it: start, end, health, lack of memory."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.monitor.cgroup import AnyGroup
    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.monitor.loop import Loop
    from rootless.monitor.memory import MemoryWatch
    from rootless.monitor.state import State
    from rootless.records.state import HealthState


def record(spec: LaunchSpec, action: str, **attributes: str) -> None:
    """One event of the container; launch.json's "events" is {"log", "attributes"}, without it nothing is written."""
    if spec.plan.events is None:
        return
    from rootless.storage.store import eventlog

    known = spec.plan.events.attributes
    entry = eventlog.EventEntry("container", action, spec.id, {**known, **attributes})
    eventlog.append(spec.plan.events.log, entry)


def healthy(spec: LaunchSpec, tracked: State, result: HealthState) -> None:
    """A health check has a result; only a changed status is an event."""
    before = tracked.facts.health
    tracked.has_health(result)
    if before is not None and before.status != result.status:
        record(spec, f"health_status: {result.status}")


def watch_memory(loop: Loop, spec: LaunchSpec, tracked: State, group: AnyGroup | None) -> MemoryWatch | None:
    """Note when the container runs out of memory; None without a cgroup."""
    if group is None:
        return None
    from rootless.monitor.memory import MemoryWatch

    def report() -> None:
        tracked.ran_out_of_memory()
        record(spec, "oom")

    return MemoryWatch(loop, group, report, is_reported=tracked.facts.oom_killed)
