"""A running container's cgroup for the engine's verbs: found by its state, joined, read, emptied.

It makes none: the monitor does, before the container's first process starts.
"""

from __future__ import annotations

import os
import time

from rootless.errors import HostLimit, RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.context import Engine
    from rootless.records.launch import LaunchPlan
    from rootless.records.state import ContainerState
    from rootless.runtime.cgroups.group import Group, Group1
    from rootless.runtime.cgroups.usage import Effective

_HEXADECIMAL = frozenset("0123456789abcdef")
_YOUNG = 60.0  # seconds for which an empty cgroup is kept, as it may be that of a container that just starts


def group_of(state: ContainerState) -> Group | Group1 | None:
    """The cgroup of a container that runs on this host; None where it has no cgroup of its own."""
    known = state.cgroup
    if not known or state.remote:
        return None
    from rootless.runtime.cgroups.group import restore

    return restore(known)


def joiner(engine: Engine, state: ContainerState, launch: LaunchPlan) -> Callable[[int], None] | None:
    """A function that moves a further process of the container, given its pid, into the container's cgroup.

    None where the container has no cgroup. A process that cannot be moved would run outside of the limits: the function
    raises HostLimit then where the limits are strict, and else warns.
    """
    group = group_of(state)
    if group is None:
        return None
    from rootless.runtime.cgroups import place

    def join(pid: int) -> None:
        try:
            place.join(group, pid, state.pid)
        except HostLimit as e:
            if launch.cgroup.strict and launch.cgroup.resources:
                raise
            engine.warn(f"the process is not in the container's cgroup, its limits do not hold for it: {e.message}")

    return join


def kill_all(state: ContainerState) -> None:
    """Send SIGKILL to every process in the container's cgroup, so that none outlives its first process.

    A container that shares another's pid namespace needs that, as no end of a namespace ends its processes.
    """
    group = group_of(state)
    if group is None:
        return
    try:
        group.kill()
    except RootlessError:
        pass  # The caller signals the first process all the same, whose end ends its pid namespace (pid_namespaces(7))


def cgroup_facts() -> dict[str, object]:
    """The members of `info` about cgroups: docker's, what was delegated, and the limits above all our containers."""
    from rootless.host import cgroups
    from rootless.runtime.cgroups.usage import tightest_limits

    found = cgroups.find_delegation()
    host = cgroups.Host()
    controllers = set(found.controllers)
    facts: dict[str, object] = {
        "CgroupVersion": "2" if host.is_unified else "1",
        "CgroupDriver": {"scope": "systemd", "directory": "cgroupfs", "v1": "cgroupfs"}.get(found.kind, "none"),
        "CgroupControllers": list(found.controllers),
        "CgroupParent": found.path or " ".join(sorted(found.directories.values())),
        "CgroupLimitation": found.reason,
        "MemoryLimit": "memory" in controllers,
        "SwapLimit": "memory" in controllers,
        "CpuCfsPeriod": "cpu" in controllers,
        "CpuCfsQuota": "cpu" in controllers,
        "CPUShares": "cpu" in controllers,
        "CPUSet": "cpuset" in controllers,
        "PidsLimit": "pids" in controllers,
    }
    if host.is_unified:
        path = found.path
        if not path:
            try:
                path = f"{cgroups.ROOT}{cgroups.unified_path()}"
            except OSError:
                return facts
        facts["EffectiveLimits"] = shown_limits(tightest_limits(path))
    return facts


def shown_limits(limits: Effective) -> dict[str, object]:
    """Effective limits in docker's units, as `info` and `inspect` show them; 0 (of swap -1) where there is none."""
    return {
        "Memory": limits.memory or 0,
        "MemorySwap": limits.swap if limits.swap is not None else -1,
        "NanoCpus": round((limits.cpus or 0) * 1e9),
        "CpusetCpus": limits.cpuset,
        "PidsLimit": limits.pids or 0,
    }


def effective_limits(state: ContainerState) -> dict[str, object] | None:
    """The limits in force for a running container: the tightest of its own and of those above it.

    None where they are not known: without a cgroup of its own, and with version 1 of cgroups.
    """
    group = group_of(state)
    if group is None or group.version != 2:
        return None
    from rootless.runtime.cgroups.usage import tightest_limits

    return shown_limits(tightest_limits(group.path))


def prune_stale(engine: Engine) -> int:
    """Remove the empty cgroups that ended containers have left, and return how many they were.

    A cgroup with processes stays: it may be that of another store's container. systemd removes its scopes itself, so
    that only directories which are delegated to the user are searched.
    """
    from rootless.host import cgroups
    from rootless.monitor import reap
    from rootless.runtime.cgroups.group import Group, Group1

    found = cgroups.find_delegation()
    parents = [found.path] if found.kind == "directory" else list(found.directories.values())
    if engine.settings.cgroup_parent and not cgroups.is_slice(engine.settings.cgroup_parent):
        parents.append(cgroups.find_delegation(parent=engine.settings.cgroup_parent).path)
    removed = set()
    for parent in filter(None, parents):
        for name in _children(parent):
            path = f"{parent}/{name}"
            container = name.removeprefix(cgroups.PREFIX)
            if reap.is_supervised(engine.store.containers.path(container)) or _is_young(path):
                continue
            group = Group(path) if found.kind != "v1" else Group1({"": path})
            try:
                if not group.pids():
                    group.remove()
                    removed.add(name)
            except (RootlessError, OSError):
                continue
    return len(removed)


def _children(parent: str) -> list[str]:
    from rootless.host.cgroups import PREFIX

    try:
        names = os.listdir(parent)
    except OSError:
        return []
    ids = {name: name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)}
    return [name for name, id in ids.items() if len(id) == 64 and _HEXADECIMAL.issuperset(id)]


def _is_young(path: str) -> bool:
    try:
        return time.time() - os.stat(path).st_ctime < _YOUNG
    except OSError:
        return True
