"""A published port as a value. network.ports parses and allocates them, and the network's helpers forward them."""

from __future__ import annotations

from rootless.records.fields import Fields


class Port:
    """One published port. host_ip: "" is every address of the host; host_port: 0 is any free one.

    host_port_last: above host_port, the first free port of that range is meant.
    """

    __slots__ = ("container_port", "host_ip", "host_port", "host_port_last", "protocol")

    def __init__(
        self, host_ip: str, host_port: int, container_port: int, protocol: str = "tcp", host_port_last: int = 0
    ) -> None:
        self.host_ip = host_ip
        self.host_port = host_port
        self.container_port = container_port
        self.protocol = protocol
        self.host_port_last = host_port_last or host_port

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Port) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Port({self})"

    def __str__(self) -> str:
        """`0.0.0.0:8080->80/tcp`, as in docker's PORTS column."""
        last = f"-{self.host_port_last}" if self.host_port_last != self.host_port else ""
        return f"{address_text(self.host_ip)}:{self.host_port}{last}->{self.container_port}/{self.protocol}"

    def _key(self) -> tuple[str, int, int, str, int]:
        return self.host_ip, self.host_port, self.container_port, self.protocol, self.host_port_last

    def to_json(self) -> dict[str, object]:
        """As launch.json lists it."""
        value: dict[str, object] = {
            "host_ip": self.host_ip,
            "host_port": self.host_port,
            "container_port": self.container_port,
            "protocol": self.protocol,
        }
        if self.host_port_last != self.host_port:
            value["host_port_last"] = self.host_port_last
        return value

    @classmethod
    def from_json(cls, fields: Fields) -> Port:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        return cls(
            fields.text("host_ip", ""),
            fields.integer("host_port", 0),
            fields.integer("container_port"),
            fields.text("protocol", "tcp"),
            fields.integer("host_port_last", 0),
        )


def address_text(host_ip: str) -> str:
    """`host_ip` as docker prints it before a port: 0.0.0.0 for every address, brackets around one of IPv6."""
    if not host_ip:
        return "0.0.0.0"  # noqa: S104 - what docker prints
    return f"[{host_ip}]" if ":" in host_ip else host_ip
