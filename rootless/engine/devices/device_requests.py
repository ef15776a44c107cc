"""From the names in --device and --gpus to the edits of a container: which devices are meant, and what the host has."""

from __future__ import annotations

import os
import stat

from rootless.engine.devices.cdi_files import Devices, Found, spec_directories
from rootless.engine.devices.cdi_spec import is_kind, is_name
from rootless.engine.plan.bundle import BundleMount, device_mount, unenforced_permissions
from rootless.engine.plan.device_edits import DeviceEdits, parse_gpus
from rootless.engine.plan.security import is_cdi_name
from rootless.errors import HostLimit, InvalidInput, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.engine.devices.cdi_spec import ContainerEdits, EditedNode
    from rootless.errors import RootlessError
    from rootless.records.container_options import ContainerOptions
    from rootless.records.id_map import IdMap

_GPUS = "nvidia.com/gpu"
_WRITER = 'nvidia-ctk cdi generate --format=json --output="$HOME/.config/cdi/nvidia.json"'


def edits_of_devices(engine: Engine, options: ContainerOptions, id_map: IdMap) -> DeviceEdits:
    """What the devices that `options` names by CDI change in a container with the id map `id_map`.

    Raises UsageError for a name that is none, HostLimit for a device that no specification describes or that needs a
    file which the host lacks, InvalidInput for a specification that this host contradicts.
    """
    devices = Devices(spec_directories(engine))
    chosen: dict[str, Found] = {}
    for text in options.device:
        if is_cdi_name(text):
            chosen.update((found.name, found) for found in _named(devices, text))
    for text in options.gpus:
        chosen.update((found.name, found) for found in _gpus(devices, text))
    collected = _Collected()
    specs = {found.spec.path: found.spec for found in chosen.values()}
    # a specification's own edits are made once, and before those of its devices
    for path, spec in specs.items():
        collected.add(spec.edits, path)
        for found in chosen.values():
            if found.spec is spec:
                collected.add(spec.devices[found.short], path)
    return collected.edits(id_map, keeps_groups="keep-groups" in options.group_add)


def _named(devices: Devices, text: str) -> list[Found]:
    """The devices of one --device. A specification may have a device `all` of its own; else it means each one."""
    kind, _, short = text.partition("=")
    if not is_kind(kind) or not is_name(short):
        raise UsageError(f"invalid --device '{text}'", hint="write VENDOR/CLASS=NAME, or the path of a device")
    if text in devices.by_name:
        return [devices.by_name[text]]
    every = devices.of_kind(kind) if short == "all" else []
    if not every:
        raise HostLimit(f"unresolvable CDI devices {text}", hint=_reason(devices, text))
    return every


def _reason(devices: Devices, name: str) -> str:
    """Why the device `name` was not found: files that contradict each other, another name, a file that was refused."""
    for conflict in devices.conflicts:
        if f"'{name}'" in conflict.message:
            return _in_brackets(conflict)
    names = [found.name for found in devices.of_kind(name.partition("=")[0])]
    if not names and devices.problems:
        return _in_brackets(devices.problems[0])
    if names := names or list(devices.by_name):
        return f"there are {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
    return "no CDI specification was found: 'rootless cdi list' shows the devices that --device can name"


def _in_brackets(problem: RootlessError) -> str:
    """A problem with its remedy, as a part of a text that stands in brackets already."""
    return f"{problem.message}: {problem.hint}" if problem.hint else problem.message


def _gpus(devices: Devices, text: str) -> list[Found]:
    request = parse_gpus(text)
    if not devices.of_kind(_GPUS):
        others = sorted({found.spec.kind for found in devices.by_name.values()})
        reason = f"no CDI specification describes {_GPUS}: as you, '{_WRITER}' writes one"
        if problems := [*devices.problems, *devices.conflicts]:
            reason = _in_brackets(problems[0])
        elif others:
            reason += f"; for other devices give --device, such as {others[0]}=all"
        raise HostLimit('could not select device driver "" with capabilities: [[gpu]]', hint=reason)
    if request.names:
        return [found for name in request.names for found in _named(devices, f"{_GPUS}={name}")]
    if request.number < 0:
        return _named(devices, f"{_GPUS}=all")
    # the same GPU may be there by its number, by its UUID and in `all`: docker counts by numbers as well
    numbered = sorted((f for f in devices.of_kind(_GPUS) if f.short.isdigit()), key=lambda found: int(found.short))
    if len(numbered) < request.number:
        raise HostLimit(
            f"--gpus {text}: this host has {len(numbered)} devices {_GPUS} with a number", hint="rootless cdi list"
        )
    return numbered[: request.number]


class _Collected:
    """The edits of several devices, which often name the same nodes and files: the last one for a target counts."""

    __slots__ = ("_edits", "_foreign", "_gids", "_missing", "_mounts")

    def __init__(self) -> None:
        self._edits = DeviceEdits()
        self._mounts: dict[str, BundleMount] = {}
        self._missing: dict[str, str] = {}  # host path of a node: the specification
        self._foreign: dict[str, None] = {}  # paths of nodes that were to have another owner or mode
        self._gids: dict[int, None] = {}

    def add(self, edits: ContainerEdits, path: str) -> None:
        """Add what one object `containerEdits` of the specification `path` asks for."""
        found = self._edits
        for node in edits.nodes:
            self._add_node(node, path)
        for mount in edits.mounts:
            if mount.source and not os.path.lexists(mount.source):
                raise HostLimit(
                    f"the CDI specification '{path}' mounts '{mount.source}', which this host does not have",
                    hint="write it again after a change of the driver",
                )
            source = mount.source or mount.kind
            self._mounts[mount.target] = BundleMount(mount.target, mount.kind, source, mount.options)
        for entry in edits.env:
            name = entry.partition("=")[0]
            found.env = [other for other in found.env if other.partition("=")[0] != name] + [entry]
        found.hooks += [hook for hook in edits.hooks if hook not in found.hooks]
        self._gids |= dict.fromkeys(edits.gids)
        if edits.wants_resctrl:
            found.warnings.append(
                f"intelRdt of the CDI specification '{path}' is ignored: resctrl is the host's root's"
            )

    def edits(self, id_map: IdMap, *, keeps_groups: bool) -> DeviceEdits:
        """All that was added. keeps_groups: the process has the caller's own groups, beside which no others can be."""
        found = self._edits
        found.mounts = sorted(self._mounts.values(), key=lambda mount: mount.target.strip("/").count("/"))
        found.gids = [gid for gid in self._gids if id_map.has_gid(gid) and not keeps_groups]
        if lost := [str(gid) for gid in self._gids if gid not in found.gids]:
            reason = "beside those of keep-groups" if keeps_groups else "as the id map lacks them"
            found.warnings.append(f"the groups {', '.join(lost)} of a CDI specification are left out {reason}")
        if self._missing:
            nodes, path = ", ".join(self._missing), next(iter(self._missing.values()))
            found.warnings.append(f"left out, as this host lacks them: {nodes} of the CDI specification '{path}'")
        if self._foreign:
            nodes = ", ".join(self._foreign)
            found.warnings.append(f"{nodes}: the owner and mode are those of the host, and not a CDI specification's")
        return found

    def _add_node(self, node: EditedNode, path: str) -> None:
        try:
            mode = os.stat(node.host_path).st_mode
        except OSError:
            self._missing[node.host_path] = path
            return
        kind = "c" if stat.S_ISCHR(mode) else "b" if stat.S_ISBLK(mode) else "p" if stat.S_ISFIFO(mode) else ""
        wanted = "c" if node.kind == "u" else node.kind  # mknod(1): u is a character device that is not buffered
        if not kind or wanted not in ("", kind):
            what = "is not a device" if not kind else f"is a device of type {kind}, not {wanted}"
            raise InvalidInput(f"'{node.host_path}', which the CDI specification '{path}' names, {what}")
        if node.wants_owner:
            self._foreign[node.path] = None
        warning = unenforced_permissions(node.path, node.permissions)
        if warning and warning not in self._edits.warnings:
            self._edits.warnings.append(warning)
        self._mounts[node.path] = device_mount(node.host_path, node.path, node.permissions)
