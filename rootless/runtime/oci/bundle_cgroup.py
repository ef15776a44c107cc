"""The cgroup of a container of rootless-oci: where `linux.cgroupsPath` says, else where it may be; update, freeze, use.

A property of `linux.resources` that cannot be enforced is an error that names it, unless the caller wants a warning.
"""

from __future__ import annotations

import os

from rootless.errors import HostLimit, InvalidInput, InvalidState, UsageError
from rootless.host import cgroups
from rootless.records.resource_limits import Resources
from rootless.runtime.cgroups import place, version1, version2
from rootless.runtime.cgroups.group import Group, Group1, restore
from rootless.runtime.spec.oci_config import read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rootless.host.cgroups import Delegation
    from rootless.runtime.oci.oci_records import OciRecord
    from rootless.runtime.process.running import Process
    from rootless.runtime.spec.oci_config import OciConfig

    AnyGroup = Group | Group1

_WARN = "or warn in place of failing: rootless-oci --limits warn (ROOTLESS_OCI_LIMITS=warn)"


class Policy:
    """What the global flags say. manager: cgroupfs, systemd or disabled; strict: all limits or none."""

    __slots__ = ("manager", "strict")

    def __init__(self, manager: str = "cgroupfs", *, strict: bool = True) -> None:
        self.manager = manager
        self.strict = strict


class CgroupPlacing:
    """Makes the cgroup of one container on its way into life. group: None before `join`, and where there is none."""

    __slots__ = ("_config", "_id", "_policy", "_resources", "group", "warn")

    def __init__(self, config: OciConfig, container_id: str, policy: Policy, warn: Callable[[str], None]) -> None:
        self._config = config
        self._resources = config.linux.resources
        self._id = container_id
        self._policy = policy
        self.warn = warn
        self.group: AnyGroup | None = None

    def join(self, pid: int) -> None:
        """Make the group, limit it and move `pid`, the container's first process, into it. Raises HostLimit."""
        path = self._config.linux.cgroups_path
        if self._policy.manager == "disabled":
            if self._resources.is_asked:
                self.warn("limits are not applied: cgroups are disabled")
            return
        if self._policy.manager != "systemd":
            cgroups.check_relative(path.strip("/"))
        found = cgroups.find_delegation()
        try:
            if self._policy.manager == "systemd" and (found.kind == "scope" or cgroups.manager_sockets()):
                self._in_unit(*unit_of(path, self._id), pid)
            elif found.kind == "scope" and (path or self._resources.is_asked) and not _is_ours(path):
                self._in_unit("", f"{cgroups.PREFIX}oci-{self._id}.scope", pid)
            else:
                self._in_tree(found, path, pid)
        except HostLimit as e:
            self._forget()
            if self._resources.is_asked:
                self._unmet(e)
            return
        if self.group is None and self._resources.is_asked:
            self._report_no_group(found)

    def _in_unit(self, slice_name: str, unit: str, pid: int) -> None:
        from rootless.host import scope

        request = scope.ask_for_scope(slice_name=slice_name or scope.SLICE, unit=unit, pid=pid)
        group = self.group = place.around(request.finish())
        place.limits(group, self._resources, self._unmet, late=False)

    def _in_tree(self, found: Delegation, path: str, pid: int) -> None:
        name = f"{cgroups.PREFIX}oci-{self._id}"
        group: AnyGroup
        if found.kind == "v1":
            group = place.of_version_1(found, path.strip("/") or name)
        elif path.startswith("/"):
            if not _is_ours(path):
                return
            directory = f"{cgroups.ROOT}{path}".rstrip("/")
            parent = os.path.dirname(directory)
            while not os.path.isdir(parent):
                parent = os.path.dirname(parent)
            group = place.in_directory(parent, directory.removeprefix(f"{parent}/"))
        elif found.kind == "directory":
            group = place.in_directory(found.path, path or name)
        else:
            return
        place.set_up(group, self._resources, self._unmet)
        self.group = group
        place.join(group, pid)

    def _unmet(self, problem: HostLimit) -> None:
        """One limit cannot be enforced: that is an error, or a warning where the caller has said so."""
        if self._policy.strict:
            if problem.hint and _WARN in problem.hint:
                raise problem
            raise HostLimit(problem.message, hint=f"{problem.hint}; {_WARN}" if problem.hint else _WARN)
        self.warn(str(problem))

    def _report_no_group(self, found: Delegation) -> None:
        settings = (version1 if found.kind == "v1" else version2).settings(self._resources)
        origins = ", ".join(dict.fromkeys(setting.origin for setting in settings)) or "linux.resources"
        cause = found.reason or "its cgroup cannot be made where linux.cgroupsPath says"
        self._unmet(HostLimit(f"{origins} cannot be enforced: {cause}", hint=found.remedy))

    def complete(self, process: Process) -> None:
        """The limits and the owner that had to wait until only the container's own process is in the group."""
        if self.group is None:
            return
        process.release()
        place.limits(self.group, self._resources, self._unmet, late=True)
        from rootless.runtime.cgroups.ownership import delegate

        delegate(self.group, self._config, process.userns_fd)

    def _forget(self) -> None:
        """Remove the group that was made, if any."""
        if self.group is not None:
            group, self.group = self.group, None
            place.discard(group)

    def undo(self) -> None:
        """The container came to nothing: so does its group."""
        self._forget()


def _is_ours(path: str) -> bool:
    """May this process make the cgroup at `path` of the tree? Its nearest ancestor that exists decides."""
    if not path.startswith("/"):
        return False
    directory = f"{cgroups.ROOT}{path}".rstrip("/")
    if cgroups.left_job(cgroups.Host(), directory):
        return False
    while not os.path.isdir(directory) and len(directory) > len(cgroups.ROOT):
        directory = os.path.dirname(directory)
    return cgroups.is_ours(directory)


def unit_of(path: str, container_id: str) -> tuple[str, str]:
    """(slice, unit) of `SLICE:PREFIX:NAME`, runc's form of linux.cgroupsPath for systemd; without one our own names.

    Raises InvalidInput for another form.
    """
    if not path:
        return "", f"{cgroups.PREFIX}oci-{container_id}.scope"
    fields = path.split(":")
    if len(fields) != 3 or "/" in path:
        raise InvalidInput(f"config property 'linux.cgroupsPath' must be SLICE:PREFIX:NAME for systemd, not '{path}'")
    slice_name, prefix, name = fields
    if slice_name and not slice_name.endswith(".slice"):
        raise InvalidInput(f"config property 'linux.cgroupsPath': '{slice_name}' is no .slice")
    if not name:
        raise InvalidInput(f"config property 'linux.cgroupsPath': '{path}' has no name")
    return slice_name, f"{prefix}-{name}.scope" if prefix else f"{name}.scope"


def group_of(record: OciRecord) -> AnyGroup | None:
    """The cgroup that `create` has made; None without one."""
    return restore(record.facts.cgroup)


def remove(record: OciRecord, warn: Callable[[str], None]) -> None:
    """Kill what is left in the container's cgroup and remove that."""
    group = group_of(record)
    if group is None:
        return
    try:
        group.kill()
        group.remove()
    except (HostLimit, OSError) as e:
        warn(f"cannot remove cgroup '{group.path}': {e}")


def require(record: OciRecord, verb: str) -> AnyGroup:
    """The cgroup, for a verb that is nothing without one. Raises InvalidState."""
    record.require(verb, "created", "running", "paused")
    group = group_of(record)
    if group is None:
        raise InvalidState(
            f"cannot {verb} container '{record.id}': it has no cgroup of its own",
            hint="it needs a delegated cgroup: see docs/cgroups.md",
        )
    return group


def sub_group(group: AnyGroup, words: Sequence[str]) -> AnyGroup:
    """The part of the container's cgroup that `exec --cgroup` means: PATH, or in version 1 also CONTROLLERS:PATH, where
    the controllers that are not named stay with the container's own.

    Raises UsageError for another form, and for a path that leads out of the container's cgroup or to nowhere.
    """
    parts: dict[str, str] = {}
    for word in words:
        names, separator, path = word.rpartition(":")
        if ".." in path.split("/"):
            raise UsageError(f"invalid --cgroup '{word}': it leads out of the container's cgroup")
        for name in names.split(","):
            if name in parts or bool(name) != bool(separator) or (parts and "" in (name, *parts)):
                raise UsageError(f"invalid --cgroup '{word}'", hint="give PATH, or CONTROLLER:PATH for each controller")
            parts[name] = path.strip("/")
    tops = {"": group.path} if isinstance(group, Group) else group.paths
    if "" in parts:
        parts = dict.fromkeys(tops, parts[""])
    found: dict[str, str] = {}
    for name, path in parts.items():
        if name not in tops:
            raise UsageError(f"invalid --cgroup: the container has no cgroup of controller '{name}'")
        found[name] = f"{tops[name]}/{path}".rstrip("/")
        if not os.path.isdir(found[name]):
            raise UsageError(f"invalid --cgroup: there is no cgroup '{found[name]}'")
    return Group(found[""], group.unit) if isinstance(group, Group) else Group1({**tops, **found})


def update(record: OciRecord, changes: dict[str, object]) -> None:
    """Merge `changes` (OCI resources) into the container's limits and write all of them. Raises HostLimit.

    The copy of config.json keeps what this runtime does not know of it.
    """
    import json

    from rootless.paths import atomic_write

    group = require(record, "update")
    config = _object(read_json(record.config_path), "the configuration")
    linux = _object(config.setdefault("linux", {}), "linux")
    merged = {**_object(linux.get("resources") or {}, "linux.resources")}
    for name, values in changes.items():
        known = merged.get(name)
        merged[name] = {**known, **values} if isinstance(values, dict) and isinstance(known, dict) else values
    resources = Resources.from_json(merged)
    problems: list[HostLimit] = []
    place.limits(group, resources, problems.append)
    if problems:
        # a limit may be forbidden until another one has changed: a second time, now that the others are written
        place.limits(group, resources, place.strictly)
    linux["resources"] = merged
    atomic_write(record.config_path, json.dumps(config).encode(), durable=False)


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidInput(f"the copy of the container's config.json is damaged: {what} is no object")
    return value


def statistics(record: OciRecord) -> dict[str, object]:
    """One event of type stats, with the keys of `runc events --stats`."""
    from rootless.runtime.cgroups.usage import read_usage

    usage = read_usage(require(record, "read the use of"))
    memory = {"limit": usage.memory_limit or 0, "usage": usage.memory, "max": usage.peak, "failcnt": usage.oom_kills}
    return {
        "type": "stats",
        "id": record.id,
        "data": {
            "cpu": {"usage": {"total": round(usage.cpu * 1e9)}},
            "memory": {"cache": usage.cache, "usage": memory},
            "pids": {"current": usage.pids, "limit": usage.pids_limit or 0},
            "blkio": {"read": usage.block_read, "written": usage.block_written},
            "pressure": usage.pressure,
        },
    }


def events(record: OciRecord, interval: float) -> Iterator[dict[str, object]]:
    """Statistics every `interval` seconds, and lacks of memory, until the container ends."""
    import time

    group = require(record, "watch")
    kills = group.oom_kills()
    while record.is_alive():
        try:
            told = statistics(record)
        except InvalidState:
            return  # it has just ended
        yield told
        deadline = time.monotonic() + interval
        while time.monotonic() < deadline and record.is_alive():
            time.sleep(min(0.1, interval))
            if group.oom_kills() > kills:
                kills = group.oom_kills()
                yield {"type": "oom", "id": record.id}
