"""Lists and maps that are absent: in Go they have a type, so that a template prints `[]`, and JSON says null.

The values that a template is given come from JSON, where an absent list is null like everything absent. Which members
are lists or maps is known by their names in docker's API.
"""

from __future__ import annotations

_LISTS = frozenset((
    "Args", "Binds", "BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps", "BlkioDeviceWriteIOps",
    "BlkioWeightDevice", "CapAdd", "CapDrop", "Cmd", "DeviceCgroupRules", "DeviceRequests", "Devices", "Dns",
    "DnsOptions", "DnsSearch", "Entrypoint", "Env", "ExecIDs", "ExtraHosts", "GroupAdd", "Layers", "Links", "Log",
    "MaskedPaths", "Mounts", "OnBuild", "ReadonlyPaths", "RepoDigests", "RepoTags", "SecurityOpt", "Shell",
    "Test", "Ulimits", "VolumesFrom",
))  # fmt: skip
_MAPS = frozenset((
    "Annotations", "ExposedPorts", "Labels", "Networks", "Options", "PortBindings", "Ports", "StorageOpt", "Sysctls",
    "Tmpfs", "Volumes",
))  # fmt: skip


class NilList(list[object]):
    """A list of Go that was never made: empty for a template, null in JSON."""


class NilMap(dict[str, object]):
    """A map of Go that was never made: empty for a template, null in JSON."""


def with_type(name: str, value: object) -> object:
    """The value of the member `name`; an absent list or map of docker's API has its type."""
    if value is not None:
        return value
    return NilList() if name in _LISTS else NilMap() if name in _MAPS else None
