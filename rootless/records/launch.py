"""The format of launch.json, what the engine asks of a container's monitor. It neither reads nor writes the file."""

from __future__ import annotations

from rootless.errors import InvalidInput
from rootless.records.fields import Fields
from rootless.records.id_map import IdMap
from rootless.records.rootfs import RootfsPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.membership import Attachment
    from rootless.records.port import Port
    from rootless.records.resource_limits import Resources

VERSION = 1


def read_ports(fields: Fields) -> list[Port]:
    """The ports in member "ports". What a port is, is loaded only for a container that publishes one."""
    listed = list(fields.objects("ports"))
    if not listed:
        return []
    from rootless.records.port import Port

    return [Port.from_json(port) for port in listed]


class NetworkPlan:
    """How the container is to be connected. mode: a name of network.modes; ports: those to publish, with host ports.

    options: words for the mode's helper, as the user gave them. attachments: the networks with names that it is on;
    host_names: how its own lines in /etc/hosts end, which get its addresses there at each start.
    """

    __slots__ = ("attachments", "dns", "host_names", "mode", "options", "ports")

    def __init__(self, mode: str = "none", ports: list[Port] | None = None, dns: list[str] | None = None) -> None:
        self.mode = mode
        self.ports = ports or []
        self.dns = dns or []
        self.options: list[str] = []
        self.attachments: list[Attachment] = []
        self.host_names = ""

    def to_json(self) -> dict[str, object]:
        """The member "network" of launch.json."""
        ports = [port.to_json() for port in self.ports]
        value: dict[str, object] = {"mode": self.mode, "ports": ports, "dns": self.dns}
        if self.options:
            value["options"] = self.options
        if self.attachments:
            value["attachments"] = [attachment.to_json() for attachment in self.attachments]
        if self.host_names:
            value["host_names"] = self.host_names
        return value

    @classmethod
    def from_json(cls, fields: Fields | None) -> NetworkPlan:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        if fields is None:
            return cls()
        plan = cls(fields.text("mode", "none"), read_ports(fields), fields.texts("dns"))
        plan.options = fields.texts("options")
        if fields.has("attachments"):
            from rootless.records.membership import Attachment

            plan.attachments = [Attachment.from_json(entry) for entry in fields.objects("attachments")]
        plan.host_names = fields.text("host_names", "")
        return plan


class LogPlan:
    """Where the output goes. driver: json-file or none; max_size: bytes of one file, 0 or less without a bound."""

    __slots__ = ("driver", "max_file", "max_size", "path")

    def __init__(self, driver: str = "none", path: str = "", max_size: int = 0, max_file: int = 1) -> None:
        self.driver = driver
        self.path = path
        self.max_size = max_size
        self.max_file = max_file

    def to_json(self) -> dict[str, object]:
        """The member "log" of launch.json."""
        return {"driver": self.driver, "path": self.path, "max_size": self.max_size, "max_file": self.max_file}

    @classmethod
    def from_json(cls, fields: Fields | None) -> LogPlan:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        if fields is None:
            return cls()
        return cls(
            fields.text("driver", "none"),
            fields.text("path", ""),
            fields.integer("max_size", 0),
            fields.integer("max_file", 1),
        )


class RestartPlan:
    """docker's restart policy. name: no, on-failure, always, unless-stopped; the count is on-failure's, 0: no limit."""

    __slots__ = ("maximum_retry_count", "name")

    def __init__(self, name: str = "no", maximum_retry_count: int = 0) -> None:
        self.name = name
        self.maximum_retry_count = maximum_retry_count

    def to_json(self) -> dict[str, object]:
        """The member "restart" of launch.json."""
        return {"name": self.name, "maximum_retry_count": self.maximum_retry_count}

    @classmethod
    def from_json(cls, fields: Fields | None) -> RestartPlan:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        if fields is None:
            return cls()
        return cls(fields.text("name", "") or "no", fields.integer("maximum_retry_count", 0))


class HealthPlan:
    """A health check. test: as an image's Healthcheck.Test; times in seconds; 0 retries: the default."""

    __slots__ = ("interval", "retries", "shell", "start_interval", "start_period", "test", "timeout")

    def __init__(self, test: list[str]) -> None:
        self.test = test
        self.interval = 30.0
        self.timeout = 30.0
        self.retries = 3
        self.start_period = 0.0
        self.start_interval = 5.0
        self.shell = ["/bin/sh", "-c"]

    def to_json(self) -> dict[str, object]:
        """The member "health" of launch.json."""
        return {
            "test": self.test,
            "interval": self.interval,
            "timeout": self.timeout,
            "retries": self.retries,
            "start_period": self.start_period,
            "start_interval": self.start_interval,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> HealthPlan:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        plan = cls(fields.texts("test"))
        plan.interval = fields.number("interval", 0.0) or plan.interval
        plan.timeout = fields.number("timeout", 0.0) or plan.timeout
        plan.retries = fields.integer("retries", 0) or plan.retries
        plan.start_period = fields.number("start_period", 0.0)
        plan.start_interval = fields.number("start_interval", 0.0) or plan.start_interval
        plan.shell = fields.texts("shell") or plan.shell
        return plan


class RemovePlan:
    """What goes with a --rm container: its name file, its directory, the directories of its anonymous volumes."""

    __slots__ = ("directory", "name_file", "volumes")

    def __init__(self, name_file: str, directory: str, volumes: list[str]) -> None:
        self.name_file = name_file
        self.directory = directory
        self.volumes = volumes

    def to_json(self) -> dict[str, object]:
        """The member "remove" of launch.json."""
        return {"name_file": self.name_file, "directory": self.directory, "volumes": self.volumes}

    @classmethod
    def from_json(cls, fields: Fields) -> RemovePlan:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        return cls(fields.text("name_file", ""), fields.text("directory", ""), fields.texts("volumes"))


class EventsPlan:
    """Where events of the container are written, and the attributes that each of them has."""

    __slots__ = ("attributes", "log")

    def __init__(self, log: str, attributes: dict[str, str]) -> None:
        self.log = log
        self.attributes = attributes

    def to_json(self) -> dict[str, object]:
        """The member "events" of launch.json."""
        return {"log": self.log, "attributes": self.attributes}

    @classmethod
    def from_json(cls, fields: Fields) -> EventsPlan:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        return cls(fields.text("log"), fields.text_mapping("attributes"))


class CgroupPlan:
    """The container's cgroup. mode: enabled, disabled or split; resources: the limits, None without any.

    parent: "" where the host decides; strict: a limit that cannot be enforced is an error.
    """

    __slots__ = ("mode", "parent", "resources", "strict")

    def __init__(
        self, mode: str = "enabled", parent: str = "", resources: Resources | None = None, *, strict: bool = False
    ) -> None:
        self.mode = mode
        self.parent = parent
        self.resources = resources
        self.strict = strict

    def to_json(self) -> dict[str, object]:
        """The member "cgroup" of launch.json."""
        limits = {} if self.resources is None else self.resources.to_json()
        return {"mode": self.mode, "parent": self.parent, "resources": limits, "strict": self.strict}

    @classmethod
    def from_json(cls, fields: Fields | None) -> CgroupPlan:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        if fields is None:
            return cls()
        plan = cls(fields.text("mode", "enabled"), fields.text("parent", ""), strict=fields.flag("strict"))
        limits = fields.mapping("resources")
        if limits:
            from rootless.records.resource_limits import Resources  # loaded only for a container that has limits

            plan.resources = Resources.from_json(limits)
        return plan


class VolumeSeed:
    """A volume that gets the files of the image at `target` when it is empty. source: its directory on the host."""

    __slots__ = ("source", "target")

    def __init__(self, source: str, target: str) -> None:
        self.source = source
        self.target = target

    def to_json(self) -> dict[str, object]:
        """An entry of "seed_volumes" in launch.json."""
        return {"source": self.source, "target": self.target}

    @classmethod
    def from_json(cls, fields: Fields) -> VolumeSeed:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        return cls(fields.text("source"), fields.text("target"))


class LoginEntry:
    """The user who gets a line in the container's /etc/passwd, and his group one in /etc/group, if none has his ids.

    name: of both; home: his home directory.
    """

    __slots__ = ("gid", "home", "name", "uid")

    def __init__(self, name: str, uid: int, gid: int, home: str) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.home = home

    def to_json(self) -> dict[str, object]:
        """The member "login" of launch.json."""
        return {"name": self.name, "uid": self.uid, "gid": self.gid, "home": self.home}

    @classmethod
    def from_json(cls, fields: Fields | None) -> LoginEntry | None:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        if fields is None:
            return None
        return cls(fields.text("name"), fields.integer("uid"), fields.integer("gid"), fields.text("home"))


class SeccompListener:
    """`listenerPath` and `listenerMetadata` of a seccomp profile: the agent that answers the calls of SCMP_ACT_NOTIFY.

    config-linux.md, "Seccomp". path: the unix socket on which the agent listens; metadata: text that it gets.
    """

    __slots__ = ("metadata", "path")

    def __init__(self, path: str, metadata: str = "") -> None:
        self.path = path
        self.metadata = metadata

    def to_json(self) -> dict[str, object]:
        """The member "seccomp_listener" of launch.json."""
        return {"listenerPath": self.path, "listenerMetadata": self.metadata}

    @classmethod
    def from_json(cls, fields: Fields | None) -> SeccompListener | None:
        """What `to_json` wrote, read back, or None where no agent is named."""
        path = "" if fields is None else fields.text("listenerPath", "")
        return None if fields is None or not path else cls(path, fields.text("listenerMetadata", ""))


class RootEmulation:
    """The two seccomp filters of an emulated root, as paths of files, and what the calls mean that they report.

    filter: the one whose calls wait for the supervisor, "" where the kernel lets none wait; plain: the one that answers
    them all with success; calls: `"ARCH:NUMBER"` → the call, as `storage.owners.emulator.EmulationSupervisor` knows it.
    """

    __slots__ = ("calls", "filter", "plain")

    def __init__(self, filter: str, plain: str, calls: dict[str, str]) -> None:
        self.filter = filter
        self.plain = plain
        self.calls = calls

    def paths(self) -> list[str]:
        """The files that must be there when the container starts."""
        return [path for path in (self.filter, self.plain) if path]

    def to_json(self) -> dict[str, object]:
        """The member "root_emulation" of launch.json."""
        return {"filter": self.filter, "plain": self.plain, "calls": self.calls}

    @classmethod
    def from_json(cls, fields: Fields | None) -> RootEmulation | None:
        """What `to_json` wrote, read back, or None where root is not emulated."""
        if fields is None or fields.is_null("plain"):
            return None
        return cls(fields.text("filter", ""), fields.text("plain"), fields.text_mapping("calls"))


class LaunchPlan:
    """launch.json: what to run and what shall happen when it ends.

    bundle, runtime_dir: "" for the container's directory; rootfs: the plan of a storage driver, None for a bundle with
    a root of its own; stop_timeout: seconds, below 0: never kill; init: our own reaper is the first process; runtime:
    another OCI runtime's program, None for ours.
    """

    __slots__ = (
        "bundle",
        "cgroup",
        "events",
        "health",
        "id",
        "id_map",
        "init",
        "joined_user",
        "keep_groups",
        "log",
        "login",
        "name",
        "network",
        "open_stdin",
        "outer_map",
        "remove",
        "restart",
        "root_emulation",
        "rootfs",
        "runtime",
        "runtime_dir",
        "seccomp_bpf",
        "seccomp_flags",
        "seccomp_listener",
        "seed_volumes",
        "stdin_once",
        "stop_signal",
        "stop_timeout",
        "terminal",
    )

    def __init__(self, container_id: str, id_map: IdMap) -> None:
        self.id = container_id
        self.id_map = id_map
        self.name = container_id[:12]
        self.bundle = ""
        self.rootfs: RootfsPlan | None = None
        self.joined_user = False
        self.outer_map: IdMap | None = None
        self.network = NetworkPlan()
        self.seed_volumes: list[VolumeSeed] = []
        self.login: LoginEntry | None = None
        self.seccomp_bpf: str | None = None
        self.seccomp_flags = 0
        self.seccomp_listener: SeccompListener | None = None
        self.root_emulation: RootEmulation | None = None
        self.log = LogPlan()
        self.cgroup = CgroupPlan()
        self.events: EventsPlan | None = None
        self.terminal = False
        self.open_stdin = False
        self.stdin_once = False
        self.stop_signal = 15
        self.stop_timeout: float = 10
        self.restart = RestartPlan()
        self.health: HealthPlan | None = None
        self.keep_groups = False
        self.init = False
        self.remove: RemovePlan | None = None
        self.runtime: str | None = None
        self.runtime_dir = ""

    def require_rootfs(self) -> RootfsPlan:
        """The plan of the storage driver. Raises InvalidInput for a container that runs on a bundle's own root."""
        if self.rootfs is None:
            raise InvalidInput(f"container '{self.name}' has no root file system that a storage driver made")
        return self.rootfs

    def rename(self, name: str, names_directory: str) -> None:
        """Another name, wherever the plan has it."""
        self.name = name
        if self.events is not None:
            self.events.attributes["name"] = name
        if self.remove is not None:
            self.remove.name_file = f"{names_directory}/{name}"

    def to_json(self) -> dict[str, object]:
        """The content of launch.json."""
        return {
            "version": VERSION,
            "id": self.id,
            "name": self.name,
            "bundle": self.bundle,
            "rootfs": None if self.rootfs is None else self.rootfs.to_json(),
            "id_map": self.id_map.to_json(),
            "joined_user": self.joined_user,
            "outer_map": None if self.outer_map is None else self.outer_map.to_json(),
            "network": self.network.to_json(),
            "seed_volumes": [seed.to_json() for seed in self.seed_volumes],
            "login": None if self.login is None else self.login.to_json(),
            "seccomp_bpf": self.seccomp_bpf,
            "seccomp_flags": self.seccomp_flags,
            "seccomp_listener": None if self.seccomp_listener is None else self.seccomp_listener.to_json(),
            "root_emulation": None if self.root_emulation is None else self.root_emulation.to_json(),
            "log": self.log.to_json(),
            "cgroup": self.cgroup.to_json(),
            "events": None if self.events is None else self.events.to_json(),
            "terminal": self.terminal,
            "open_stdin": self.open_stdin,
            "stdin_once": self.stdin_once,
            "stop_signal": self.stop_signal,
            "stop_timeout": self.stop_timeout,
            "restart": self.restart.to_json(),
            "health": None if self.health is None else self.health.to_json(),
            "keep_groups": self.keep_groups,
            "init": self.init,
            "remove": None if self.remove is None else self.remove.to_json(),
            "runtime": self.runtime,
            "runtime_dir": self.runtime_dir,
        }

    @classmethod
    def from_json(cls, known: object, file: str = "launch.json") -> LaunchPlan:
        """The plan that `known`, the content of `file`, describes.

        Raises InvalidInput naming the file and the key when a value is missing or has the wrong type, or the format is
        a newer one.
        """
        fields = Fields(known, file)
        fields.check_version(VERSION)
        plan = cls(fields.text("id"), IdMap.from_fields(fields.require_member("id_map")))
        plan.name = fields.text("name", "") or plan.name
        plan.bundle = fields.text("bundle", "")
        rootfs = fields.member("rootfs")
        plan.rootfs = None if rootfs is None else RootfsPlan.from_json(rootfs)
        plan.joined_user = fields.flag("joined_user")
        outer_map = fields.member("outer_map")
        plan.outer_map = None if outer_map is None else IdMap.from_fields(outer_map)
        plan.network = NetworkPlan.from_json(fields.member("network"))
        plan.seed_volumes = [VolumeSeed.from_json(seed) for seed in fields.objects("seed_volumes")]
        plan.login = LoginEntry.from_json(fields.member("login"))
        plan.seccomp_bpf = fields.optional_text("seccomp_bpf")
        plan.seccomp_flags = fields.integer("seccomp_flags", 0)
        plan.seccomp_listener = SeccompListener.from_json(fields.member("seccomp_listener"))
        plan.root_emulation = RootEmulation.from_json(fields.member("root_emulation"))
        plan.log = LogPlan.from_json(fields.member("log"))
        plan.cgroup = CgroupPlan.from_json(fields.member("cgroup"))
        events = fields.member("events")
        plan.events = None if events is None else EventsPlan.from_json(events)
        plan.terminal = fields.flag("terminal")
        plan.open_stdin = fields.flag("open_stdin")
        plan.stdin_once = fields.flag("stdin_once")
        plan.stop_signal = fields.integer("stop_signal", 0) or 15
        if fields.has("stop_timeout"):
            plan.stop_timeout = fields.number("stop_timeout", -1)
        plan.restart = RestartPlan.from_json(fields.member("restart"))
        health = fields.member("health")
        plan.health = None if health is None else HealthPlan.from_json(health)
        plan.keep_groups = fields.flag("keep_groups")
        plan.init = fields.flag("init")
        remove = fields.member("remove")
        plan.remove = None if remove is None else RemovePlan.from_json(remove)
        plan.runtime = fields.optional_text("runtime")
        plan.runtime_dir = fields.text("runtime_dir", "")
        return plan
