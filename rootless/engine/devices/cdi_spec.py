"""What one specification of CDI says, as classes that check it (SPEC.md of cncf-tags/container-device-interface).

Versions 0.3 to 1.0 are known. It looks at no host: `device_requests` finds out which of the nodes and files are there.
"""

from __future__ import annotations

from rootless.engine.plan.device_edits import DeviceHook
from rootless.errors import InvalidInput
from rootless.records.properties import HIGHEST_ID, UINT32, Properties
from rootless.runtime.mount_options import KNOWN

_MOST_DEVICES = 4096
_MOST_ENTRIES = 4096  # of each array of the edits of one device
_MOST_HOOKS = 100  # of each stage, which is what runtime.spec reads
_STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_ALNUM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_OLDEST, _NEWEST = (0, 3), (1, 0)
# An idmapped mount needs privileges over the file system that is mounted, which no ordinary user has
_OPTIONS = frozenset(KNOWN) - {"idmap", "ridmap"}


def is_name(text: str) -> bool:
    """Whether `text` can be the name of a device: letters and digits, with `_`, `-`, `.` and `:` between them."""
    return _is_word(text, "_-.:", 253) and text[0] in _ALNUM


def is_kind(text: str) -> bool:
    """Whether `text` is VENDOR/CLASS, both of which begin with a letter."""
    vendor, _, class_name = text.partition("/")
    ends = vendor[:1] in _LETTERS and class_name[:1] in _LETTERS
    return ends and _is_word(vendor, "_-.", 253) and _is_word(class_name, "_-.", 63)


def _is_word(text: str, between: str, most: int) -> bool:
    inner = _ALNUM.union(between)
    return 0 < len(text) <= most and set(text) <= inner and {text[0], text[-1]} <= _ALNUM


class EditedNode:
    """An entry of `deviceNodes`. path: inside; host_path: on the host; kind: b, c, u, p or "" for any.

    permissions: letters of "rwm"; wants_owner: whether it asks for another owner or mode than the host's node has.
    """

    __slots__ = ("host_path", "kind", "path", "permissions", "wants_owner")

    def __init__(self, given: Properties) -> None:
        _know(given, ("path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid"))
        given.require("path")
        self.path = _inside(given, "path")
        self.host_path = given.absolute_path("hostPath") or self.path
        self.kind = given.choice("type", ("b", "c", "u", "p", ""))
        self.permissions = given.text("permissions") or "rwm"
        if not set(self.permissions) <= set("rwm"):
            raise given.error("permissions", f"must be letters of 'rwm', not '{self.permissions}'")
        numbers = [given.optional_integer(name, UINT32) for name in ("major", "minor", "fileMode", "uid", "gid")]
        self.wants_owner = any(number is not None for number in numbers[2:])


class EditedMount:
    """An entry of `mounts`. kind: bind or tmpfs; source: a host path, "" for tmpfs; options: words of the OCI table."""

    __slots__ = ("kind", "options", "source", "target")

    def __init__(self, given: Properties) -> None:
        _know(given, ("hostPath", "containerPath", "type", "options"))
        given.require("hostPath", "containerPath")
        self.target = _inside(given, "containerPath")
        options = given.texts("options", most=100)
        if given.text("type") == "tmpfs":
            self.kind, self.source = "tmpfs", ""
            self.options = tuple(options)
            return
        given.choice("type", ("", "none", "bind"))  # no other file system can be mounted without the host's root
        self.kind, self.source = "bind", given.absolute_path("hostPath")
        if unknown := [word for word in options if word not in _OPTIONS]:
            raise given.error("options", f"has '{unknown[0]}', which cannot be given to a bind mount here")
        self.options = tuple(options if {"bind", "rbind"} & set(options) else ["rbind", *options])


class ContainerEdits:
    """The object `containerEdits`. gids: without 0; wants_resctrl: whether it has `intelRdt`."""

    __slots__ = ("env", "gids", "hooks", "mounts", "nodes", "wants_resctrl")

    def __init__(self, given: Properties | None = None) -> None:
        given = given or Properties({})
        groups = "additionalGids", "additionalGIDs"  # the specification writes it in both ways
        _know(given, ("env", "deviceNodes", "mounts", "hooks", "intelRdt", *groups))
        self.env = _environment(given)
        self.nodes = [EditedNode(node) for node in given.objects("deviceNodes", most=_MOST_ENTRIES)]
        self.mounts = [EditedMount(mount) for mount in given.objects("mounts", most=_MOST_ENTRIES)]
        self.hooks = [_hook(hook) for hook in given.objects("hooks", most=_MOST_HOOKS)]
        self.gids = [gid for name in groups for gid in given.integers(name, (0, HIGHEST_ID), most=1000) if gid]
        self.wants_resctrl = given.member("intelRdt") is not None


class CdiSpec:
    """A file's content. kind: VENDOR/CLASS; edits: made once for each container that has any of `devices`, by name."""

    __slots__ = ("devices", "edits", "kind", "path")

    def __init__(self, path: str, given: Properties) -> None:
        self.path = path
        _know(given, ("cdiVersion", "kind", "annotations", "devices", "containerEdits"))
        _check_version(given)
        self.kind = given.filled_text("kind")
        if not is_kind(self.kind):
            raise given.error("kind", f"must be VENDOR/CLASS, not '{self.kind}'")
        given.member("annotations")
        self.devices: dict[str, ContainerEdits] = {}
        for device in given.objects("devices", most=_MOST_DEVICES):
            _know(device, ("name", "annotations", "containerEdits"))
            name = device.filled_text("name")
            if not is_name(name):
                raise device.error("name", f"cannot be '{name}'")
            if name in self.devices:
                raise device.error("name", f"is '{name}' a second time")
            self.devices[name] = ContainerEdits(device.member("containerEdits"))
        if not self.devices:
            raise given.error("devices", "must have at least one device")
        self.edits = ContainerEdits(given.member("containerEdits"))

    @classmethod
    def from_json(cls, path: str, value: object) -> CdiSpec:
        """The specification that file `path` holds. Raises InvalidInput, naming the file and the property."""
        try:
            return cls(path, Properties(value))
        except InvalidInput as e:
            raise InvalidInput(f"CDI specification '{path}': {e.message.removeprefix('config ')}") from e


def _know(given: Properties, names: tuple[str, ...]) -> None:
    """Refuse members that the specification has not: a misspelt one would leave out a part of a device in silence."""
    for name in given.names():
        if name not in names:
            raise given.error(name, "is unknown")


def _check_version(given: Properties) -> None:
    text = given.filled_text("cdiVersion")
    parts = text.removeprefix("v").split(".")
    numbers = tuple(int(part) if part.isascii() and part.isdigit() and len(part) < 6 else -1 for part in parts)
    if len(numbers) != 3 or min(numbers) < 0 or not _OLDEST <= numbers[:2] <= _NEWEST:
        raise given.error("cdiVersion", f"must be from 0.3.0 to 1.0.0, not '{text}'")


def _inside(given: Properties, name: str) -> str:
    """A path in the container. One with `..` could lead to another place than its text says."""
    path = given.absolute_path(name)
    if ".." in path.split("/") or not path.strip("/"):
        raise given.error(name, f"must be the path of a file inside the container, not '{path}'")
    return path


def _environment(given: Properties) -> list[str]:
    env = given.texts("env", most=_MOST_ENTRIES)
    for entry in env:
        if entry.find("=") < 1:
            raise given.error("env", f"has '{entry}', which is not NAME=VALUE")
    return env


def _hook(given: Properties) -> DeviceHook:
    _know(given, ("hookName", "path", "args", "env", "timeout"))
    given.require("hookName", "path")
    stage, path = given.choice("hookName", _STAGES), given.absolute_path("path")
    args, env = given.texts("args", most=_MOST_ENTRIES), _environment(given)
    return DeviceHook(stage, path, tuple(args), tuple(env), given.optional_integer("timeout", (0, 86400)) or None)
