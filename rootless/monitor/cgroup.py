"""The cgroup of a monitor's container: requested early, made for each run, emptied and removed after the run."""

from __future__ import annotations

import os

from rootless.errors import HostLimit, RootlessError
from rootless.host import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.host.cgroups import Delegation
    from rootless.host.scope import Request
    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.runtime.cgroups.group import Group, Group1, Unmet

    AnyGroup = Group | Group1

_PATIENCE = 2.0  # seconds for an answer of systemd, in which the monitor's loop stands still


class Holder:
    """Gives each run of the container its cgroup.

    scope: the directory of the systemd scope that this process is in, "" without one.
    """

    __slots__ = ("_found", "_is_used", "_request", "scope")

    def __init__(self, scope: str = "") -> None:
        self.scope = scope
        self._is_used = bool(scope)
        self._request: Request | None = None
        self._found: Delegation | None = None

    def begin(self) -> None:
        """Ask systemd for a scope, where the host needs one, before it is known which container is wanted.

        systemd works on the request while this process and the engine do the rest; the launch waits for what is left.
        """
        try:
            self._found = cgroups.find_delegation()
            if self._found.kind == "scope":
                from rootless.host import scope

                self._request = scope.ask_for_scope()
        except RootlessError:
            pass  # the launch asks again, and tells the user what failed

    @property
    def may_have_group(self) -> bool:
        """Whether a run may get a cgroup, as far as that is known before the launch."""
        return self._found is None or self._found.kind != "none"

    def close(self) -> None:
        """Close the connection to systemd, which drops the request for a scope that nobody wanted."""
        if self._request is not None:
            self._request.close()
            self._request = None

    def make(self, spec: LaunchSpec, warn: Callable[[str], None]) -> AnyGroup | None:
        """The cgroup of the next run, with all limits but the late ones (`apply_late`); None where none can be had.

        Raises HostLimit where the container is strict about its limits or names a place for its cgroup, and does not
        get that. Else a lack is noted by `warn`, and the user is told in `spec.warnings` which limits have no effect.
        """
        if self._is_used:
            spec.plan.cgroup = spec.now().cgroup  # a further run: `update` may have changed the limits meanwhile
        self._is_used = True
        wanted = spec.plan.cgroup
        resources = wanted.resources
        if wanted.mode == "disabled":
            self.close()
            return None
        try:
            group = self._place(spec)
            if group is None:
                return None
            from rootless.runtime.cgroups import place

            place.set_up(group, spec.plan.cgroup.resources, limit_reporter(spec))
        except HostLimit as e:
            if wanted.strict or wanted.parent or wanted.mode == "split":
                raise  # a user who names a place for the cgroup wants that place or no container
            warn(f"the container has no cgroup: {e}")
            if resources:
                spec.warnings.append(f"limits have no effect: {e}")
            return None
        return group

    def _place(self, spec: LaunchSpec) -> AnyGroup | None:
        wanted = spec.plan.cgroup
        parent = wanted.parent
        name = f"{cgroups.PREFIX}{spec.id}"
        if self.scope:
            from rootless.runtime.cgroups.group import Group
            from rootless.runtime.cgroups.place import CONTAINER

            return Group(f"{self.scope}/{CONTAINER}", os.path.basename(self.scope))
        if self._request is not None and (parent or wanted.mode == "split"):
            self.close()  # the early request was for the usual place, and this container names another one
        request = self._request
        if request is None:
            split = wanted.mode == "split"
            found = None if parent or split else self._found
            if found is None:
                found = cgroups.find_delegation(parent=parent, current=split)
            if found.kind == "none":
                if wanted.resources and wanted.strict:
                    raise HostLimit(f"the limits of the container cannot be met: {found.reason}", hint=found.remedy)
                return None
            from rootless.runtime.cgroups import place

            if found.kind == "directory":
                return place.in_directory(found.path, name)
            if found.kind == "v1":
                return place.of_version_1(found, name)
            request = place.request_scope(found, parent)
        self._request = None
        if request is None:
            return None
        from rootless.runtime.cgroups.place import in_scope

        self.scope = request.finish()
        return in_scope(self.scope)


def limit_reporter(spec: LaunchSpec) -> Unmet:
    """The function that gets a limit which cannot be enforced: it raises an error, or adds a line for the user.

    A limit whose controller was not delegated gives no line: the engine has warned of it when the container was made.
    """
    from rootless.runtime.cgroups.group import NoController
    from rootless.runtime.cgroups.place import strictly

    if spec.plan.cgroup.strict:
        return strictly

    def tell(problem: HostLimit) -> None:
        if not isinstance(problem, NoController):
            spec.warnings.append(problem.message)

    return tell


def make_joiner(known: dict[str, object] | None, init: int) -> Callable[[int], None] | None:
    """The function that moves a further process into the group of the container whose first process is `init`.

    known: the cgroup as the container's state has it. None where the container has no cgroup.
    """
    from rootless.runtime.cgroups import place
    from rootless.runtime.cgroups.group import restore

    group = restore(known)
    return None if group is None else lambda pid: place.join(group, pid, init)


def attach_helpers(scope_path: str, helpers: list[tuple[int, int]]) -> None:
    """Move helper processes that were started before the scope existed into the scope at `scope_path`.

    helpers: (pid, start time). In the login's scope they would be killed at the logout, and the container would lose
    its network. systemd is asked, because no user may move a process out of a login's scope by writing to cgroup.procs.
    """
    from rootless.host import scope
    from rootless.runtime.cgroups import place

    unit = os.path.basename(scope_path)
    for pid, _ in helpers:
        try:
            if f"/{unit}" not in cgroups.unified_path(pid):
                scope.attach_process(unit, f"/{place.SUPERVISOR}", pid, _PATIENCE)
        except (HostLimit, OSError):
            continue  # the helper goes on to serve the container from where it is


def enter_group(group: AnyGroup | None) -> list[str]:
    """Move this process into the group; return the directories of its earlier cgroups, which `leave_group` takes."""
    if group is None:
        return []
    from rootless.runtime.cgroups import place
    from rootless.runtime.cgroups.group import Group1

    if isinstance(group, Group1):
        own = [os.path.dirname(path) for path in group.paths.values()]
    else:
        own = [f"{cgroups.ROOT}{cgroups.unified_path()}"]
    place.join(group, os.getpid())
    return own


def leave_group(directories: list[str]) -> None:
    """Move this process back to `directories`; where that is not allowed, it counts among the container's."""
    for directory in directories:
        try:
            cgroups.write_value(f"{directory}/cgroup.procs", str(os.getpid()))
        except OSError:
            pass


def remove_group(group: AnyGroup, userns_fd: int | None, note: Callable[[str], None]) -> None:
    """Kill whatever is left in the group, and remove it. A group that stays is noted, and `system prune` finds it.

    userns_fd: the container's user namespace, None where it is not open; note: gets the line for monitor.log.
    """
    try:
        group.kill()
        try:
            group.remove()
        except PermissionError:
            if userns_fd is None:
                raise
            from rootless.host.userns import call_in_namespace

            def remove() -> bytes:
                group.remove()
                return b""

            # The container made sub-cgroups in a directory that was given to one of its ids
            # (runtime.cgroups.ownership). Only from inside the user namespace may we remove what another id owns
            call_in_namespace(userns_fd, remove)
    except (RootlessError, OSError) as e:
        note(f"cannot remove cgroup '{group.path}': {e}")


def apply_late(group: AnyGroup, spec: LaunchSpec) -> None:
    """Set the limits that had to wait until only the container's own processes are in the group."""
    from rootless.runtime.cgroups import place

    place.limits(group, spec.plan.cgroup.resources, limit_reporter(spec), late=True)
