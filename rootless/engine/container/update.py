"""`update`: other limits, or another restart policy, for a container; they hold at once for one that runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rootless.engine import events
from rootless.engine.container.container_cgroup import group_of
from rootless.engine.container.reconcile import state_of
from rootless.engine.plan.launchfile import cgroup_settings, restart_policy
from rootless.errors import HostLimit, InvalidState, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.records.container_options import ContainerOptions
    from rootless.records.launch import CgroupPlan
    from rootless.records.resource_limits import Resources
    from rootless.records.state import ContainerState
    from rootless.runtime.cgroups.group import Group, Group1
    from rootless.runtime.cgroups.limit_values import Setting

_PREFIX = "linux.resources."
_UNLIMITED = {
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.low": "0",
    "cpu.max": "max 100000",
    "cpu.weight": "100",
    "cpuset.cpus": "",
    "cpuset.mems": "",
    "pids.max": "max",
    "io.weight": "default 100",
    "memory.limit_in_bytes": "-1",
    "memory.memsw.limit_in_bytes": "-1",
    "cpu.cfs_quota_us": "-1",
    "cpu.shares": "1024",
}


def update_container(
    engine: Engine, container: str, given: Mapping[str, str | int], *, restart: str | None = None
) -> None:
    """Change the limits in `given` (fields of ContainerOptions by name), and the restart policy.

    Raises UsageError, NotFound, InvalidState, and HostLimit for a limit that a running container cannot have; nothing
    is changed then.
    """

    if not given and restart is None:
        raise UsageError("update needs something to change", hint="name a limit, such as --memory 1g, or --restart")
    containers = engine.store.containers
    container_id = containers.find(container)
    record = containers.read(container_id)
    state = state_of(engine, container_id)
    if state.remote:
        raise InvalidState(f"container '{container}' runs on host '{state.remote}'", hint="update it there")
    containers.write_moved(container_id)
    launch = containers.read_launch(container_id)
    options = _changed(record.options, given)
    wanted = cgroup_settings(options, engine.settings)
    wanted.mode, wanted.parent = launch.cgroup.mode, launch.cgroup.parent
    if restart is not None:
        options = options._replace(restart=restart)
        launch.restart = restart_policy(restart, rm=options.rm)
        record.restart = launch.restart
    if given:
        _apply(engine, container, state, launch.cgroup, wanted)
        launch.cgroup = wanted
    containers.write_launch(container_id, launch)
    record.options = options
    containers.update(record)
    events.record_container(engine, record, "update")


def _changed(options: ContainerOptions, given: Mapping[str, Any]) -> ContainerOptions:
    """The options with `given` in them, and without older ones that say the same in another way (cpus, cpu_quota)."""
    if "cpus" in given:
        options = options._replace(cpu_quota=None, cpu_period=None)
    elif "cpu_quota" in given or "cpu_period" in given:
        options = options._replace(cpus=None)
    return options._replace(**given)


def _apply(engine: Engine, container: str, state: ContainerState, before: CgroupPlan, wanted: CgroupPlan) -> None:
    if not state.is_running:
        from rootless.engine.plan.resources import judge
        from rootless.host import cgroups

        verdict = judge(wanted, cgroups.find_delegation(parent=wanted.parent, current=wanted.mode == "split"))
        if verdict.warning:
            engine.warn(verdict.warning)
        return
    group = group_of(state)
    if group is None:
        raise HostLimit(
            f"cannot limit container '{container}': it has no cgroup of its own",
            hint="start it again where cgroups are delegated; `rootless doctor` tells what this host lacks",
        )
    from rootless.runtime.cgroups.limit_values import Setting

    old, new = (_settings(group, limits.resources) for limits in (before, wanted))
    left = {setting.name for setting in new}
    gone = [
        Setting(setting.controller, setting.name, _UNLIMITED[setting.name], setting.origin.removeprefix(_PREFIX))
        for setting in old
        if setting.name not in left and setting.name in _UNLIMITED
    ]
    changed = [*gone, *new]
    first: list[HostLimit] = []
    group.apply(changed, first.append)  # Errors are collected, as some may be gone at the second try
    if first:
        # One limit may forbid another until it has changed itself: in version 1 memory.limit_in_bytes may never be
        # above memory.memsw.limit_in_bytes. What was refused for that is accepted at the second try
        second: list[HostLimit] = []
        group.apply(changed, second.append)
        if second:
            group.apply(old, lambda problem: None)
            raise second[0]


def _settings(group: Group | Group1, limits: Resources | None) -> list[Setting]:
    from rootless.runtime.cgroups import version1, version2

    if limits is None:
        return []
    return version1.settings(limits) if group.version == 1 else version2.settings(limits)
