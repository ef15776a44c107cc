"""From what was delegated to the cgroup of one container, made and limited. It decides where; group does the rest."""

from __future__ import annotations

import errno
import os
import time

from rootless.errors import HostLimit, RootlessError
from rootless.host import cgroups
from rootless.runtime.cgroups.group import Group, Group1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.host.cgroups import Delegation
    from rootless.host.scope import Request
    from rootless.records.resource_limits import Resources
    from rootless.runtime.cgroups.group import Unmet

CONTAINER = "container"
"""The part of a scope that is the container's; systemd's own settings stay at the scope itself."""
SUPERVISOR = "supervisor"
_JOIN_TRIES = 20
_JOIN_PAUSE = 0.01


def in_scope(scope: str) -> Group:
    """The container's group in a fresh scope that this process is in: this process goes to a leaf of its own."""
    cgroups.evacuate_cgroup(scope, SUPERVISOR)
    cgroups.open_to_children(scope, SUPERVISOR)
    return Group(f"{scope}/{CONTAINER}", os.path.basename(scope))


def around(scope: str) -> Group:
    """The container's group in a fresh scope that was made around the container's first process, which is moved there.

    A cgroup that hands controllers down may hold no process itself (cgroup-v2, "no internal process constraint").
    """
    cgroups.evacuate_cgroup(scope, CONTAINER)
    cgroups.open_to_children(scope, CONTAINER)
    return Group(f"{scope}/{CONTAINER}", os.path.basename(scope))


def in_directory(parent: str, name: str) -> Group:
    """The group `name` below a directory that is the user's; processes in the directory itself make room.

    A name of several parts (a/b/c): those above the last are made too, and hand the controllers down.
    """
    cgroups.open_to_children(parent)
    *above, last = [part for part in name.split("/") if part]
    for part in above:
        parent = f"{parent}/{part}"
        try:
            os.makedirs(parent, exist_ok=True)
        except OSError as e:
            raise HostLimit(f"cannot make cgroup '{parent}': {e.strerror}", hint=cgroups.DELEGATION) from e
        cgroups.open_to_children(parent)
    return Group(f"{parent}/{last}")


def of_version_1(delegation: Delegation, name: str) -> Group1:
    """The group `name` in every hierarchy that may be written."""
    return Group1({controller: f"{path}/{name}" for controller, path in delegation.directories.items()})


def limits(group: Group | Group1, resources: Resources | None, unmet: Unmet, *, late: bool | None = None) -> None:
    """Write the limits. unmet: gets the problem of each that cannot be had; raises InvalidInput for impossible ones.

    late: True for those alone that must wait until the launcher's own process has left, False for the others alone.
    """
    if resources is None:
        return
    if group.version == 1:
        from rootless.runtime.cgroups.version1 import settings
    else:
        from rootless.runtime.cgroups.version2 import settings
    group.apply((setting for setting in settings(resources) if late in (None, setting.is_late)), unmet)


def strictly(problem: HostLimit) -> None:
    """The `unmet` of who wants every limit or none."""
    raise problem


def set_up(group: Group | Group1, resources: Resources | None, unmet: Unmet) -> None:
    """Make the group with its early limits; nothing of it is left on an error."""
    group.make()
    try:
        limits(group, resources, unmet, late=False)
    except BaseException:
        discard(group)
        raise


def discard(group: Group | Group1) -> None:
    """Kill what is in the group and remove it, as well as that goes."""
    try:
        group.kill()
        group.remove()
    except (RootlessError, OSError):
        pass  # an earlier error is being told; `system prune` finds the group


def join(group: Group | Group1, pid: int, init: int = 0) -> None:
    """Move process `pid` into the container's group; init: the container's first process, for `exec`.

    EBUSY: an init such as systemd has moved itself into a sub-cgroup: its cgroup then, looked up again while it moves.
    EACCES: only systemd may move a process from a login session: it is asked. Raises HostLimit.
    """
    problem: OSError | None = None
    for _ in range(_JOIN_TRIES):
        try:
            group.join(pid)
            return
        except OSError as e:
            problem = e
        if problem.errno in (errno.EACCES, errno.EPERM) and isinstance(group, Group) and group.unit:
            from rootless.host import scope

            scope.attach_process(group.unit, f"/{group.path.rpartition(f'/{group.unit}/')[2]}", pid)
            return
        if problem.errno != errno.EBUSY or not init or not isinstance(group, Group):
            break
        try:
            cgroups.write_value(f"{cgroups.ROOT}{cgroups.unified_path(init)}/cgroup.procs", str(pid))
            return
        except OSError as e:
            problem = e
        time.sleep(_JOIN_PAUSE)
    assert problem is not None
    raise HostLimit(f"cannot move process {pid} into cgroup '{group.path}': {problem.strerror}") from problem


def request_scope(delegation: Delegation, parent: str) -> Request | None:
    """Ask systemd for this process's scope where that is the way, without waiting. Raises HostLimit."""
    if delegation.kind != "scope":
        return None
    from rootless.host import scope

    return scope.ask_for_scope(slice_name=parent if cgroups.is_slice(parent) else scope.SLICE)
