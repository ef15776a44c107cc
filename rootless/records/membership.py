"""A container on networks with names: what it asks for, and what it has got. Part of launch.json, and a file while it
runs. It neither reads nor writes a file."""

from __future__ import annotations

from rootless.records.fields import Fields
from rootless.records.port import Port

VERSION = 1
_HINT = "stop the containers on networks with names, and start them again"


class Attachment:
    """One network of one container.

    name, network_id: the network's; subnet, gateway, ip_range: as in its record; mtu: bytes; internal: nothing outside
    is reached; names: containers find each other by name. aliases: further names of the container on this network; ip,
    mac: those that were asked for, "" for any, and once it is connected those that it has.
    """

    __slots__ = (
        "aliases", "gateway", "internal", "ip", "ip_range", "mac", "mtu", "name", "names", "network_id", "subnet",
    )  # fmt: skip

    def __init__(self, name: str, network_id: str, subnet: str, gateway: str) -> None:
        self.name = name
        self.network_id = network_id
        self.subnet = subnet
        self.gateway = gateway
        self.ip_range = ""
        self.mtu = 0
        self.internal = False
        self.names = True
        self.aliases: list[str] = []
        self.ip = ""
        self.mac = ""

    @property
    def prefix(self) -> int:
        """The length of the subnet's prefix, in bits."""
        return int(self.subnet.rpartition("/")[2])

    def to_json(self) -> dict[str, object]:
        """The attachment as JSON values."""
        return {
            "name": self.name,
            "network_id": self.network_id,
            "subnet": self.subnet,
            "gateway": self.gateway,
            "ip_range": self.ip_range,
            "mtu": self.mtu,
            "internal": self.internal,
            "names": self.names,
            "aliases": self.aliases,
            "ip": self.ip,
            "mac": self.mac,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Attachment:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        found = cls(fields.text("name"), fields.text("network_id"), fields.text("subnet"), fields.text("gateway"))
        found.ip_range = fields.text("ip_range", "")
        found.mtu = fields.integer("mtu", 0)
        found.internal = fields.flag("internal")
        found.names = fields.flag("names")
        found.aliases = fields.texts("aliases")
        found.ip = fields.text("ip", "")
        found.mac = fields.text("mac", "")
        return found


class Membership:
    """A container that is on networks with names. dns: those of `--dns`, which are asked in place of the host's."""

    __slots__ = ("attachments", "container_id", "dns", "name", "ports")

    def __init__(self, container_id: str, name: str, attachments: list[Attachment]) -> None:
        self.container_id = container_id
        self.name = name
        self.attachments = attachments
        self.ports: list[Port] = []
        self.dns: list[str] = []

    def to_json(self) -> dict[str, object]:
        """The membership as JSON values."""
        return {
            "container_id": self.container_id,
            "name": self.name,
            "attachments": [attachment.to_json() for attachment in self.attachments],
            "ports": [port.to_json() for port in self.ports],
            "dns": self.dns,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Membership:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        attachments = [Attachment.from_json(entry) for entry in fields.objects("attachments")]
        found = cls(fields.text("container_id"), fields.text("name"), attachments)
        found.ports = [Port.from_json(port) for port in fields.objects("ports")]
        found.dns = fields.texts("dns")
        return found


class MemberFile:
    """The file of a container that is on networks now, by which their process is replaced when it was killed.

    pid, start: of the container's monitor; network_fd: that monitor's descriptor of the container's network namespace;
    shared_fds: network's id → its descriptor of that network's namespace.
    """

    __slots__ = ("membership", "network_fd", "pid", "shared_fds", "start")

    def __init__(self, membership: Membership, monitor: tuple[int, int], network_fd: int) -> None:
        """monitor: its pid, and its start in clock ticks since boot."""
        self.membership = membership
        self.pid, self.start = monitor
        self.network_fd = network_fd
        self.shared_fds: dict[str, int] = {}

    def to_json(self) -> dict[str, object]:
        """The content of the file."""
        return {
            "version": VERSION,
            "pid": self.pid,
            "start": self.start,
            "network_fd": self.network_fd,
            "shared_fds": [{"network_id": name, "fd": fd} for name, fd in self.shared_fds.items()],
            "membership": self.membership.to_json(),
        }

    @classmethod
    def from_json(cls, known: object, file: str) -> MemberFile:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        fields = Fields(known, file, hint=_HINT)
        fields.check_version(VERSION)
        found = cls(
            Membership.from_json(fields.require_member("membership")),
            (fields.integer("pid"), fields.integer("start")),
            fields.integer("network_fd"),
        )
        found.shared_fds = {entry.text("network_id"): entry.integer("fd") for entry in fields.objects("shared_fds")}
        return found
