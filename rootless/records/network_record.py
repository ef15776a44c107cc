"""The format of a network's record, `networks/<name>.json`. It neither reads nor writes the file."""

from __future__ import annotations

from rootless.errors import InvalidInput
from rootless.records.fields import Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
HINT = "restore the file, or remove the network by `rootless network rm`"
"""What the user can do about a damaged record."""


class NetworkRecord:
    """A network with a name, which `network create` has made; its driver is always bridge.

    id: 64 hexadecimal digits; created_at: in the form of RFC 3339; subnet: as `10.89.0.0/24`; gateway: its address in
    the subnet; ip_range: the part of the subnet from which addresses are given, "" for all of it; internal: nothing
    outside of it can be reached; names: containers on it find each other by name; options: those of `-o`.
    """

    __slots__ = (
        "created_at",
        "gateway",
        "id",
        "internal",
        "ip_range",
        "labels",
        "name",
        "names",
        "options",
        "subnet",
    )

    def __init__(self, name: str, id: str, *, subnet: str, gateway: str) -> None:
        self.name = name
        self.id = id
        self.subnet = subnet
        self.gateway = gateway
        self.created_at = ""
        self.ip_range = ""
        self.internal = False
        self.names = True
        self.labels: Mapping[str, str] = {}
        self.options: Mapping[str, str] = {}

    def to_json(self) -> dict[str, object]:
        """The content of the file."""
        return {
            "version": VERSION,
            "name": self.name,
            "id": self.id,
            "driver": "bridge",
            "created_at": self.created_at,
            "subnet": self.subnet,
            "gateway": self.gateway,
            "ip_range": self.ip_range,
            "internal": self.internal,
            "names": self.names,
            "labels": dict(self.labels),
            "options": dict(self.options),
        }

    @classmethod
    def from_json(cls, known: object, file: str) -> NetworkRecord:
        """The network that `known`, the content of `file`, describes. Raises InvalidInput naming file and key."""
        fields = Fields(known, file, hint=HINT)
        fields.check_version(VERSION)
        record = cls(
            fields.text("name"), fields.text("id"), subnet=fields.text("subnet"), gateway=fields.text("gateway")
        )
        record.created_at = fields.text("created_at", "")
        record.ip_range = fields.text("ip_range", "")
        record.internal = fields.flag("internal")
        record.names = fields.flag("names")
        record.labels = fields.text_mapping("labels")
        record.options = fields.text_mapping("options")
        record._check(file)
        return record

    def _check(self, file: str) -> None:
        """Raise InvalidInput for addresses that no network has: a container would be refused without a reason."""
        import ipaddress

        try:
            subnet = ipaddress.IPv4Network(self.subnet)
            part = ipaddress.IPv4Network(self.ip_range or subnet)
            is_good = ipaddress.IPv4Address(self.gateway) in subnet and part.subnet_of(subnet)
        except ValueError:
            is_good = False
        if not is_good:
            raise InvalidInput(
                f"'{file}' has no subnet with a gateway and a range in it: "
                f"'{self.subnet}', '{self.gateway}', '{self.ip_range}'",
                hint=HINT,
            )
