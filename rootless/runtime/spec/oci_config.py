"""The OCI configuration (config.json), read with bounds and typed. What follows from it is decided elsewhere.

runtime-spec 1.3 (config.md, config-linux.md). A configuration is hostile input: what `OciConfig.from_json` returns has
the types, and the values, that the rest of the runtime counts on.
"""

from __future__ import annotations

import os
import stat

from rootless.errors import InvalidInput
from rootless.records.id_map import Extent
from rootless.records.properties import HIGHEST_ID, INT64, UINT32, Properties, property_error
from rootless.runtime.spec.process_config import OciProcess, number_list, refuse_duplicates, selinux_is_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.launch import SeccompListener
    from rootless.records.resource_limits import Resources

MAXIMUM = 8 << 20
"""Bytes of config.json."""
NAMESPACES = ("user", "mount", "network", "ipc", "uts", "pid", "cgroup", "time")
"""The types of namespaces that the specification knows."""
STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
"""The stages of hooks, in the order of a container's life."""
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}
"""Execution domains and their numbers in personality(2)."""
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
"""Modes of set_mempolicy(2) and their numbers."""
MEMORY_FLAGS = {"MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15}
"""Flags of set_mempolicy(2) and their bits."""
_PROPAGATIONS = ("shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable", "")
_KEEP_GROUPS = "run.oci.keep_original_groups"
_MOST_EXTENTS = 340  # the lines of uid_map that the kernel takes since Linux 4.15
_MOST = 10_000  # entries of mounts, devices, masked and read-only paths


class Hook:
    """A program that the runtime runs (config.md, "POSIX-platform Hooks"). timeout: seconds, or None.

    env: None where the configuration does not say: nothing, or for a hook inside the process's environment.
    """

    __slots__ = ("args", "env", "path", "timeout")

    def __init__(self, path: str, args: list[str], env: list[str] | None, timeout: int | None) -> None:
        self.path = path
        self.args = args
        self.env = env
        self.timeout = timeout

    @classmethod
    def from_json(cls, given: Properties) -> Hook:
        """The hook that `given` describes."""
        given.require("path")
        timeout = given.optional_integer("timeout", (1, 86400))
        env = None if given.value("env") is None else given.texts("env")
        return cls(given.absolute_path("path"), given.texts("args"), env, timeout)


class HookStage:
    """The hooks of one stage, in the order to run them. name: one of STAGES."""

    __slots__ = ("hooks", "name")

    def __init__(self, name: str, hooks: list[Hook]) -> None:
        self.name = name
        self.hooks = hooks

    @classmethod
    def from_json(cls, name: str, given: Properties | None) -> HookStage:
        """The stage `name` of the object `hooks`; without hooks where that is absent."""
        return cls(name, [] if given is None else [Hook.from_json(hook) for hook in given.objects(name, most=100)])


class HookStages:
    """The object `hooks`: each of STAGES."""

    __slots__ = ("create_container", "create_runtime", "poststart", "poststop", "prestart", "start_container")

    def __init__(self, given: Properties | None = None) -> None:
        self.prestart = HookStage.from_json("prestart", given)
        self.create_runtime = HookStage.from_json("createRuntime", given)
        self.create_container = HookStage.from_json("createContainer", given)
        self.start_container = HookStage.from_json("startContainer", given)
        self.poststart = HookStage.from_json("poststart", given)
        self.poststop = HookStage.from_json("poststop", given)

    def of_creation(self) -> bool:
        """Whether there is a hook that runs before the root is pivoted to."""
        return any(stage.hooks for stage in (self.prestart, self.create_runtime, self.create_container))


class OciMount:
    """An entry of `mounts` (config.md, "Mounts"). fstype, source: "" when they are absent; options: words as given.

    uids, gids: the id map of an idmapped mount, both or neither.
    """

    __slots__ = ("destination", "fstype", "gids", "options", "source", "uids")

    def __init__(self, destination: str, fstype: str, source: str, options: list[str]) -> None:
        self.destination = destination
        self.fstype = fstype
        self.source = source
        self.options = options
        self.uids: list[Extent] = []
        self.gids: list[Extent] = []

    @classmethod
    def from_json(cls, given: Properties) -> OciMount:
        """The mount that `given` describes."""
        destination = given.filled_text("destination")
        mount = cls(destination, given.text("type"), given.text("source"), given.texts("options", most=1000))
        mount.uids = _extents(given, "uidMappings")
        mount.gids = _extents(given, "gidMappings")
        is_asked = bool(mount.uids or mount.gids) or "idmap" in mount.options or "ridmap" in mount.options
        if is_asked and not (mount.uids and mount.gids):
            raise property_error(given.path, "asks for an idmapped mount, which needs uidMappings and gidMappings")
        return mount


class OciNamespace:
    """An entry of `linux.namespaces`. kind: one of NAMESPACES; path: of one to join, "" makes a new one."""

    __slots__ = ("kind", "path")

    def __init__(self, kind: str, path: str = "") -> None:
        self.kind = kind
        self.path = path

    @classmethod
    def from_json(cls, given: Properties) -> OciNamespace:
        """The namespace that `given` describes."""
        given.require("type")
        # an empty path is none, as a program in Go that does not leave it out means it, and as with runc and crun
        path = given.absolute_path("path") if given.text("path") else ""
        return cls(given.choice("type", NAMESPACES), path)


class OciDevice:
    """An entry of `linux.devices`. kind: c, b, u or p; major, minor: None for whatever the host's node has.

    mode: permission bits, None to leave them; uid, gid: as the container counts them.
    """

    __slots__ = ("gid", "kind", "major", "minor", "mode", "path", "uid")

    def __init__(self, path: str, kind: str = "c", major: int | None = None, minor: int | None = None) -> None:
        self.path = path
        self.kind = kind
        self.major = major
        self.minor = minor
        self.mode: int | None = None
        self.uid = 0
        self.gid = 0

    @classmethod
    def from_json(cls, given: Properties) -> OciDevice:
        """The device that `given` describes."""
        given.require("type", "path")
        device = cls(given.absolute_path("path"), given.choice("type", ("c", "b", "u", "p")))
        device.major = given.optional_integer("major", UINT32)
        device.minor = given.optional_integer("minor", UINT32)
        device.mode = given.optional_integer("fileMode", (0, 0o7777 | 0o170000))
        device.uid = given.integer("uid", (0, HIGHEST_ID))
        device.gid = given.integer("gid", (0, HIGHEST_ID))
        return device


class TimeOffset:
    """A member of `linux.timeOffsets`: what the container's clock shows more than the host's."""

    __slots__ = ("clock", "nanoseconds", "seconds")

    def __init__(self, clock: str, seconds: int, nanoseconds: int) -> None:
        self.clock = clock
        self.seconds = seconds
        self.nanoseconds = nanoseconds

    @classmethod
    def from_json(cls, clock: str, given: Properties) -> TimeOffset:
        """The offset of `clock` that `given` describes."""
        return cls(clock, given.integer("secs", INT64), given.integer("nanosecs", (0, 999_999_999)))


class MemoryPolicy:
    """`linux.memoryPolicy`: the arguments of set_mempolicy(2). mode: one of MEMORY_MODES; nodes: such as `0-3,7`."""

    __slots__ = ("flags", "mode", "nodes")

    def __init__(self, mode: str, nodes: str, flags: list[str]) -> None:
        self.mode = mode
        self.nodes = nodes
        self.flags = flags

    @classmethod
    def from_json(cls, given: Properties) -> MemoryPolicy:
        """The policy that `given` describes."""
        given.require("mode")
        flags = given.choices("flags", tuple(MEMORY_FLAGS), most=8)
        return cls(given.choice("mode", tuple(MEMORY_MODES)), number_list(given, "nodes"), flags)


class NetDevice:
    """A member of `linux.netDevices`: an interface of the host that moves in. new_name: its name in the container."""

    __slots__ = ("name", "new_name")

    def __init__(self, name: str, new_name: str) -> None:
        self.name = name
        self.new_name = new_name

    @classmethod
    def from_json(cls, name: str, given: Properties) -> NetDevice:
        """The interface `name` as `given` describes its way."""
        if given.value("name") is None:
            return cls(name, name)
        new_name = given.text("name")
        # what the kernel takes for a name (dev_valid_name in net/core/dev.c): another would be refused only after the
        # container has been half made
        size = len(new_name.encode(errors="replace"))
        if not 0 < size < 16 or new_name in (".", "..") or set(new_name) & set("/: \t\n"):
            raise given.error("name", f"must be the name of an interface, not '{new_name}'")
        return cls(name, new_name)


def seccomp_listener(given: Properties) -> SeccompListener | None:
    """The agent that the seccomp profile `given` names; None where it names none."""
    path, metadata = given.absolute_path("listenerPath"), given.text("listenerMetadata")
    if not path:
        return None
    # loaded here: the format of launch.json is none of a bundle's but for this class
    from rootless.records.launch import SeccompListener

    return SeccompListener(path, metadata)


class LinuxConfig:
    """The object `linux` (config-linux.md). Lists are empty, texts "" and objects None where a member is absent.

    uids, gids: the id map of a new user namespace; personality: of PERSONALITIES; seccomp: as JSON, for
    runtime.seccomp.seccomp_profile.resolve alone, which checks it and whose room is above this one.
    """

    __slots__ = (
        "_resources",
        "cgroups_path",
        "devices",
        "gids",
        "masked_paths",
        "memory_policy",
        "mount_label",
        "namespaces",
        "net_devices",
        "personality",
        "readonly_paths",
        "rootfs_propagation",
        "seccomp",
        "seccomp_listener",
        "sysctl",
        "time_offsets",
        "uids",
    )

    def __init__(self) -> None:
        self.namespaces: list[OciNamespace] = []
        self.uids: list[Extent] = []
        self.gids: list[Extent] = []
        self.time_offsets: list[TimeOffset] = []
        self.devices: list[OciDevice] = []
        self.cgroups_path = ""
        self.sysctl: dict[str, str] = {}
        self.masked_paths: list[str] = []
        self.readonly_paths: list[str] = []
        self.rootfs_propagation = ""
        self.mount_label = ""
        self.personality = ""
        self.memory_policy: MemoryPolicy | None = None
        self.net_devices: list[NetDevice] = []
        self._resources: object = None
        self.seccomp: object = None
        self.seccomp_listener: SeccompListener | None = None

    @property
    def resources(self) -> Resources:
        """What the container may use, read when it is asked for: our own containers have their limits in launch.json.

        Raises InvalidInput naming the property that is wrong.
        """
        from rootless.records.resource_limits import Resources

        return Resources.from_json(self._resources)

    @classmethod
    def from_json(cls, given: Properties) -> LinuxConfig:
        """The object that `given` describes. Raises InvalidInput also for what no ordinary user can have."""
        linux = cls()
        linux.namespaces = [OciNamespace.from_json(entry) for entry in given.objects("namespaces", most=8)]
        refuse_duplicates("linux.namespaces", [namespace.kind for namespace in linux.namespaces])
        linux.uids = _extents(given, "uidMappings")
        linux.gids = _extents(given, "gidMappings")
        linux.devices = [OciDevice.from_json(device) for device in given.objects("devices", most=_MOST)]
        linux.cgroups_path = given.text("cgroupsPath")
        linux.sysctl = given.text_mapping("sysctl")
        linux.masked_paths = given.absolute_paths("maskedPaths", most=_MOST)
        linux.readonly_paths = given.absolute_paths("readonlyPaths", most=_MOST)
        linux.rootfs_propagation = given.choice("rootfsPropagation", _PROPAGATIONS)
        linux._resources = given.value("resources")
        seccomp = given.member("seccomp")
        if seccomp is not None:
            seccomp.filled_text("defaultAction")
            linux.seccomp = given.value("seccomp")
            linux.seccomp_listener = seccomp_listener(seccomp)
        personality = given.member("personality")
        if personality is not None:
            personality.require("domain")
            linux.personality = personality.choice("domain", tuple(PERSONALITIES))
            if personality.value("flags"):
                raise personality.error("flags", "must be empty: the specification defines no such flag")
        policy = given.member("memoryPolicy")
        linux.memory_policy = None if policy is None else MemoryPolicy.from_json(policy)
        linux._read_time_offsets(given)
        linux._read_net_devices(given)
        if given.value("intelRdt"):
            raise given.error("intelRdt", "cannot be had by an ordinary user: /sys/fs/resctrl belongs to root")
        linux.mount_label = given.text("mountLabel")
        return linux

    def _read_time_offsets(self, given: Properties) -> None:
        offsets = given.member("timeOffsets")
        if offsets is None:
            return
        if given.value("timeOffsets") and self.namespace("time") is None:
            raise given.error("timeOffsets", "needs an own time namespace")
        for clock in ("monotonic", "boottime"):
            offset = offsets.member(clock)
            if offset is not None:
                self.time_offsets.append(TimeOffset.from_json(clock, offset))

    def _read_net_devices(self, given: Properties) -> None:
        devices = given.member("netDevices")
        if devices is None:
            return
        for name in devices.names():
            self.net_devices.append(NetDevice.from_json(name, devices.required_member(name)))
        if self.net_devices and self.namespace("network") is None:
            raise given.error("netDevices", "needs an own network namespace")

    def namespace(self, kind: str) -> OciNamespace | None:
        """The entry of this type; None where the container has the caller's namespace."""
        for namespace in self.namespaces:
            if namespace.kind == kind:
                return namespace
        return None

    def makes(self, kind: str) -> bool:
        """Whether the container gets a new namespace of this type, one that nobody else has."""
        namespace = self.namespace(kind)
        return namespace is not None and not namespace.path


class OciConfig:
    """config.json. root: path of the root file system as given, relative to the bundle or absolute.

    process: None where the configuration has none, which `create` refuses (runtime.md).
    """

    __slots__ = (
        "annotations",
        "domainname",
        "hooks",
        "hostname",
        "linux",
        "mounts",
        "process",
        "root",
        "root_is_readonly",
        "version",
    )

    def __init__(self, version: str, root: str) -> None:
        self.version = version
        self.root = root
        self.root_is_readonly = False
        self.hostname = ""
        self.domainname = ""
        self.annotations: dict[str, str] = {}
        self.process: OciProcess | None = None
        self.mounts: list[OciMount] = []
        self.hooks = HookStages()
        self.linux = LinuxConfig()

    @classmethod
    def from_json(cls, value: object) -> OciConfig:
        """The configuration in a JSON value. Raises InvalidInput naming the property that cannot be worked with."""
        given = Properties(value)
        version = given.filled_text("ociVersion")
        root = given.required_member("root")
        config = cls(version, root.filled_text("path"))
        config.root_is_readonly = root.flag("readonly")
        if version.partition(".")[0] != "1":
            raise given.error("ociVersion", f"must be of version 1, not '{version}'")
        linux = given.member("linux")
        for platform in ("vm", "windows", "solaris", "zos"):
            if linux is None and given.value(platform) is not None:
                raise given.error(platform, "is for another platform: this runtime is for Linux")
        config.hostname = given.text("hostname")
        config.domainname = given.text("domainname")
        config.annotations = given.text_mapping("annotations")
        process = given.member("process")
        if process is not None:
            config.process = OciProcess.from_json(process)
        config.mounts = [OciMount.from_json(mount) for mount in given.objects("mounts", most=_MOST)]
        config.hooks = HookStages(given.member("hooks"))
        if linux is not None:
            config.linux = LinuxConfig.from_json(linux)
        return config

    def check_host(self) -> None:
        """Raise InvalidInput when the configuration asks for a label of a security module that this host does not have.

        This is asked when a container is created. Later the host may have changed, and `delete` must work all the same.
        """
        if self.process is not None:
            self.process.check_labels()
        if self.linux.mount_label and not selinux_is_on():
            raise property_error("linux.mountLabel", "cannot be honoured: this host has no SELinux")

    def copy(self) -> OciConfig:
        """A configuration of which each attribute can be replaced without a change of this one."""
        same = OciConfig(self.version, self.root)
        for name in OciConfig.__slots__:
            setattr(same, name, getattr(self, name))
        return same

    def first_process(self) -> OciProcess:
        """The process that the container is made for. Raises InvalidInput where the configuration has none."""
        if self.process is None:
            raise property_error("process", "is missing")
        return self.process

    @property
    def keeps_groups(self) -> bool:
        """Whether crun's annotation asks that the container keeps the caller's supplementary groups."""
        return self.annotations.get(_KEEP_GROUPS) == "1"


def load_config(path: str) -> OciConfig:
    """The configuration in the file `path`, for a new container. Raises InvalidInput."""
    config = OciConfig.from_json(read_json(path))
    config.check_host()
    return config


def read_json(path: str) -> object:
    """The JSON value in `path`: a regular file of at most MAXIMUM bytes. Raises InvalidInput."""
    return parse_json(read_content(path), path)


def parse_json(content: bytes, path: str) -> object:
    """The JSON value of `content`, which was read from `path`. Raises InvalidInput."""
    from rootless.records import fields

    try:
        return fields.parse_json(content)
    except ValueError as e:
        raise InvalidInput(f"cannot read '{path}': it is no JSON: {e}") from e


def read_content(path: str, *, regular: bool = True) -> bytes:
    """The bytes of `path`: at most MAXIMUM, of a regular file. Raises InvalidInput.

    regular: False for a file that the caller names himself, which may be a pipe, and is waited for then.
    """
    try:
        # O_NONBLOCK: to open a FIFO would else wait until somebody writes to it
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_NONBLOCK if regular else 0))
    except OSError as e:
        hint = "is this the bundle's directory? (flag --bundle)" if regular else None
        raise InvalidInput(f"cannot read '{path}': {e.strerror}", hint=hint) from e
    with open(fd, "rb") as file:
        if regular and not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidInput(f"cannot read '{path}': it is no regular file")
        content = file.read(MAXIMUM + 1)
    if len(content) > MAXIMUM:
        raise InvalidInput(f"cannot read '{path}': it is larger than {MAXIMUM} bytes")
    return content


def _extents(given: Properties, name: str) -> list[Extent]:
    """`uidMappings` or `gidMappings`, empty when it is absent."""
    extents = []
    for entry in given.objects(name, most=_MOST_EXTENTS):
        entry.require("containerID", "hostID", "size")
        ids = (0, HIGHEST_ID)
        extents.append(
            Extent(entry.integer("containerID", ids), entry.integer("hostID", ids), entry.integer("size", UINT32))
        )
    return extents
