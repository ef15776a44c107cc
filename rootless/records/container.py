"""The format of record.json, what `create` notes of a container. It neither reads nor writes the file."""

from __future__ import annotations

from rootless.records.container_options import ContainerOptions
from rootless.records.fields import Fields
from rootless.records.id_map import IdMap
from rootless.records.launch import HealthPlan, RestartPlan, read_ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.port import Port

VERSION = 1


class RecordedMount:
    """A mount as inspect, ps and --volumes-from show it. kind: bind, volume, tmpfs or image; name: of a volume, or "".

    source: a path of the host, an image's name, or ""; options: words of the mount beside read_only and propagation;
    nocopy: an empty volume does not get the image's files; anonymous: a volume that was made for this container alone.
    """

    __slots__ = ("anonymous", "kind", "name", "nocopy", "options", "propagation", "read_only", "source", "target")

    def __init__(self, kind: str, source: str, target: str, *, name: str = "", read_only: bool = False) -> None:
        self.kind = kind
        self.name = name
        self.source = source
        self.target = target
        self.read_only = read_only
        self.propagation = ""
        self.options: tuple[str, ...] = ()
        self.nocopy = False
        self.anonymous = False

    def to_json(self) -> dict[str, object]:
        """An entry of "mounts"."""
        return {
            "kind": self.kind,
            "name": self.name,
            "source": self.source,
            "target": self.target,
            "read_only": self.read_only,
            "propagation": self.propagation,
            "options": self.options,
            "nocopy": self.nocopy,
            "anonymous": self.anonymous,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> RecordedMount:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        kind, source, target = fields.text("kind"), fields.text("source", ""), fields.text("target")
        mount = cls(kind, source, target, name=fields.text("name", ""), read_only=fields.flag("read_only"))
        mount.propagation = fields.text("propagation", "")
        mount.options = tuple(fields.texts("options"))
        mount.nocopy = fields.flag("nocopy")
        mount.anonymous = fields.flag("anonymous")
        return mount


class RecordedNetwork:
    """How the container is connected. mode: a name of network.modes; container: id of the one whose network it shares,
    or None; ports: what is published, with the host ports of its last start; networks: the names of those it is on."""

    __slots__ = ("container", "mode", "networks", "ports")

    def __init__(self, mode: str = "none", container: str | None = None, ports: list[Port] | None = None) -> None:
        self.mode = mode
        self.container = container
        self.ports = ports or []
        self.networks: list[str] = []

    def to_json(self) -> dict[str, object]:
        """The member "network" of record.json."""
        ports = [port.to_json() for port in self.ports]
        value: dict[str, object] = {"mode": self.mode, "container": self.container, "ports": ports}
        return {**value, "networks": self.networks} if self.networks else value

    @classmethod
    def from_json(cls, fields: Fields | None) -> RecordedNetwork:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        if fields is None:
            return cls()
        recorded = cls(fields.text("mode", "none"), fields.optional_text("container"), read_ports(fields))
        recorded.networks = fields.texts("networks")
        return recorded


class StopSettings:
    """How `stop` ends a container: the signal that it sends first, and the seconds until SIGKILL (-1: never)."""

    __slots__ = ("signal", "timeout")

    def __init__(self, signal: int = 15, timeout: int = 10) -> None:
        self.signal = signal
        self.timeout = timeout

    def to_json(self) -> dict[str, object]:
        """The member "stop" of record.json."""
        return {"stop_signal": self.signal, "stop_timeout": self.timeout}

    @classmethod
    def from_json(cls, fields: Fields | None) -> StopSettings:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        return cls() if fields is None else cls(fields.integer("stop_signal", 15), fields.integer("stop_timeout", 10))


class ContainerRecord:
    """record.json. A new one has nothing but its names and its id map.

    created: seconds since the epoch; image: the name that was asked for, image_id and manifest_digest: what it was
    then; layers: chain ids, bottom first; volumes: names of all that it uses; options: those of `create`, read
    when they are first asked for, since a listing asks for none; exposed: as "80/tcp"; host: where it was made (a home
    may be shared); driver: the storage driver's name; hostname: inside; runtime: path of another OCI runtime, "" for
    ours; names_directory: where its hosts, hostname and resolv.conf are; command: the arguments of its process;
    default_home: nobody set HOME, so that exec chooses it by the user.
    """

    __slots__ = (
        "_options",
        "command",
        "created",
        "default_home",
        "driver",
        "exposed",
        "health",
        "host",
        "hostname",
        "id",
        "id_map",
        "image",
        "image_id",
        "labels",
        "layers",
        "manifest_digest",
        "mounts",
        "name",
        "names_directory",
        "network",
        "restart",
        "runtime",
        "stop",
        "volumes",
    )

    def __init__(self, container_id: str, name: str, id_map: IdMap) -> None:
        self.id = container_id
        self.name = name
        self.id_map = id_map
        self.created = 0.0
        self.image = ""
        self.image_id = ""
        self.manifest_digest = ""
        self.layers: list[str] = []
        self.volumes: list[str] = []
        self.labels: dict[str, str] = {}
        self._options: ContainerOptions | Fields = Fields({}, "record.json", "options")
        self.exposed: list[str] = []
        self.network = RecordedNetwork()
        self.host = ""
        self.mounts: list[RecordedMount] = []
        self.driver = ""
        self.stop = StopSettings()
        self.restart = RestartPlan()
        self.health: HealthPlan | None = None
        self.hostname = ""
        self.runtime = ""
        self.names_directory = ""
        self.command: list[str] = []
        self.default_home = False

    @property
    def options(self) -> ContainerOptions:
        """The options of `create`. Raises InvalidInput naming the file and the option that has the wrong type."""
        if isinstance(self._options, Fields):
            self._options = ContainerOptions.from_json(self._options)
        return self._options

    @options.setter
    def options(self, options: ContainerOptions) -> None:
        self._options = options

    def to_json(self) -> dict[str, object]:
        """The content of record.json."""
        return {
            "version": VERSION,
            "id": self.id,
            "name": self.name,
            "created": self.created,
            "image": self.image,
            "image_id": self.image_id,
            "manifest_digest": self.manifest_digest,
            "layers": self.layers,
            "volumes": self.volumes,
            "labels": self.labels,
            "id_map": self.id_map.to_json(),
            "options": self._options.to_json(),
            "exposed": self.exposed,
            "network": self.network.to_json(),
            "host": self.host,
            "mounts": [mount.to_json() for mount in self.mounts],
            "driver": self.driver,
            "stop": self.stop.to_json(),
            "restart": self.restart.to_json(),
            "health": None if self.health is None else self.health.to_json(),
            "hostname": self.hostname,
            "runtime": self.runtime,
            "names_directory": self.names_directory,
            "command": self.command,
            "default_home": self.default_home,
        }

    @classmethod
    def from_json(cls, known: object, file: str = "record.json") -> ContainerRecord:
        """The record that `known`, the content of `file`, describes.

        Raises InvalidInput naming the file and the key when a value is missing or has the wrong type, or the format is
        a newer one.
        """
        fields = Fields(known, file)
        fields.check_version(VERSION)
        record = cls(fields.text("id"), fields.text("name"), IdMap.from_fields(fields.require_member("id_map")))
        record.created = fields.number("created", 0.0)
        record.image = fields.text("image", "")
        record.image_id = fields.text("image_id", "")
        record.manifest_digest = fields.text("manifest_digest", "")
        record.layers = fields.texts("layers")
        record.volumes = fields.texts("volumes")
        record.labels = fields.text_mapping("labels")
        record._options = fields.member("options") or record._options
        record.exposed = fields.texts("exposed")
        record.network = RecordedNetwork.from_json(fields.member("network"))
        record.host = fields.text("host", "")
        record.mounts = [RecordedMount.from_json(mount) for mount in fields.objects("mounts")]
        record.driver = fields.text("driver", "")
        record.stop = StopSettings.from_json(fields.member("stop"))
        record.restart = RestartPlan.from_json(fields.member("restart"))
        health = fields.member("health")
        record.health = None if health is None else HealthPlan.from_json(health)
        record.hostname = fields.text("hostname", "")
        record.runtime = fields.text("runtime", "")
        record.names_directory = fields.text("names_directory", "")
        record.command = fields.texts("command")
        record.default_home = fields.flag("default_home")
        return record


class ContainerNeeds:
    """What a container needs of the rest of the store: all that garbage collection must know of it.

    It is read by itself, so that a wrong value elsewhere in record.json keeps neither images nor volumes from being
    collected, and what it names is safe as long as it can be read. layers: chain ids; mounts_images: whether it mounts
    other images than its own (--mount type=image), whose layers config.json names.
    """

    __slots__ = ("layers", "manifest_digest", "mounts_images", "volumes")

    def __init__(self, layers: list[str], manifest_digest: str, volumes: list[str]) -> None:
        self.layers = layers
        self.mounts_images = False
        self.manifest_digest = manifest_digest
        self.volumes = volumes

    @classmethod
    def from_json(cls, known: object, file: str = "record.json") -> ContainerNeeds:
        """Those that `known`, the content of record.json, names. Raises InvalidInput for what is no record, and for a
        newer format."""
        fields = Fields(known, file)
        fields.check_version(VERSION)
        # A JSON object without an id is no record. That it names no layers must not be taken for a container that needs
        # none: what it needed would be collected.
        fields.text("id")
        needs = cls(fields.texts("layers"), fields.text("manifest_digest", ""), fields.texts("volumes"))
        needs.mounts_images = any(mount.text("kind", "") == "image" for mount in fields.objects("mounts"))
        return needs
