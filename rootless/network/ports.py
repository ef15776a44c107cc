"""Published ports: the grammar of `-p`, free and busy host ports, and errors in docker's words. It forwards nothing."""

from __future__ import annotations

import errno
import os
import socket

from rootless.errors import HostLimit, UsageError
from rootless.network.addresses import address_family
from rootless.records.port import Port, address_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PROTOCOLS = ("tcp", "udp")
_SCTP_HINT = "neither pasta nor slirp4netns forwards sctp; use --network=host"


def parse_publish(text: str) -> list[Port]:
    """`[hostIP:][hostPort[-last]:]containerPort[-last][/protocol]`, an IPv6 address in brackets; by docker's rules.

    A range of host ports needs a container range of the same length, or one container port, which gets the first free
    host port of the range. Raises UsageError.
    """
    body, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol == "sctp":
        raise UsageError(f'invalid port "{text}": protocol sctp is not supported', hint=_SCTP_HINT)
    if protocol not in PROTOCOLS:
        raise UsageError(f'invalid port "{text}": unknown protocol "{protocol}"', hint="use tcp or udp")
    host_ip, host_text, container_text = _split(text, body)
    if host_ip:
        try:
            address_family(host_ip)
        except ValueError:
            raise UsageError(f'invalid IP address: "{host_ip}" in port "{text}"') from None
    if host_ip in ("0.0.0.0", "::"):  # noqa: S104 - written by the user
        host_ip = "" if host_ip == "0.0.0.0" else host_ip  # noqa: S104
    if not container_text:
        raise UsageError(f'no port specified: "{text}<empty>"')
    first, last = _range(text, container_text, "containerPort")
    if not host_text:
        return [Port(host_ip, 0, port, protocol) for port in range(first, last + 1)]
    host_first, host_last = _range(text, host_text, "hostPort", lowest=0)
    if host_last - host_first == last - first:
        return [
            Port(host_ip, host_first + i if host_first else 0, first + i, protocol) for i in range(last - first + 1)
        ]
    if first != last:
        raise UsageError(f'invalid ranges specified for container and host ports: "{container_text}" and "{host_text}"')
    return [Port(host_ip, host_first, first, protocol, host_last)]


def _split(text: str, body: str) -> tuple[str, str, str]:
    """The texts of host address, host ports and container ports in `body`, "" where one is not given."""
    if body.startswith("["):
        address, bracket, rest = body[1:].partition("]")
        if not bracket or not rest.startswith(":") or not address:
            raise UsageError(f'invalid port "{text}"', hint="write [IPv6]:hostPort:containerPort")
        host, colon, container = rest[1:].rpartition(":")
        if not colon or ":" in host:
            raise UsageError(f'invalid port "{text}"', hint="write [IPv6]:hostPort:containerPort")
        return address, host, container
    parts = body.split(":")
    if len(parts) > 3:
        raise UsageError(f'invalid port "{text}"', hint="an IPv6 address needs brackets: [::1]:8080:80")
    address, host, container = ["", "", *parts][-3:]
    if len(parts) == 3 and not address:
        raise UsageError(f'invalid port "{text}": the host address is empty')
    return address, host, container


def _range(text: str, value: str, name: str, lowest: int = 1) -> tuple[int, int]:
    first, dash, last = value.partition("-")
    numbers = (first, last) if dash else (first, first)
    # int() alone would take digits of other scripts, signs and underscores
    if not all(n.isascii() and n.isdigit() and len(n) <= 5 and lowest <= int(n) <= 65535 for n in numbers):
        raise UsageError(f'invalid {name}: "{value}" in port "{text}"', hint="ports are 1 to 65535")
    if int(numbers[0]) > int(numbers[1]):
        raise UsageError(f'invalid {name}: "{value}" in port "{text}": the range runs backwards')
    return int(numbers[0]), int(numbers[1])


def free_port(host_ip: str = "", protocol: str = "tcp") -> int:
    """A host port that is free now, chosen by the kernel."""
    with _bound(host_ip, 0, protocol) as s:
        return int(s.getsockname()[1])


def allocate_ports(ports: Iterable[Port]) -> list[Port]:
    """Every port with its host port fixed and free at this moment.

    Raises HostLimit in docker's words: in use, not permitted (below the unprivileged range), not an address of this
    host.
    """
    found: list[Port] = []
    taken: set[tuple[str, str, int]] = set()
    for port in ports:
        number = free_port(port.host_ip, port.protocol) if not port.host_port else _first_free(port, taken)
        taken.add((port.host_ip, port.protocol, number))
        found.append(Port(port.host_ip, number, port.container_port, port.protocol))
    return found


def _first_free(port: Port, taken: set[tuple[str, str, int]]) -> int:
    for number in range(port.host_port, port.host_port_last + 1):
        if (port.host_ip, port.protocol, number) in taken:
            if number == port.host_port_last:
                raise in_use_error(port.host_ip, number)
            continue
        try:
            with _bound(port.host_ip, number, port.protocol):
                return number
        except OSError as e:
            if e.errno == errno.EADDRINUSE and number < port.host_port_last:
                continue
            raise bind_error(port.host_ip, number, e) from e
    raise in_use_error(port.host_ip, port.host_port_last)


def _bound(host_ip: str, number: int, protocol: str) -> socket.socket:
    kind = address_family(host_ip) if host_ip else socket.AF_INET
    s = socket.socket(kind, (socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) | socket.SOCK_CLOEXEC)
    try:
        if protocol == "tcp":
            # The helpers set it too: connections of an earlier container in TIME_WAIT do not hold the port then
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host_ip or "0.0.0.0", number))  # noqa: S104 - docker's default
        if protocol == "tcp":
            # bind(2) alone proves nothing: with SO_REUSEADDR two sockets may be bound to a port; only one may listen
            s.listen(1)
    except BaseException:
        s.close()
        raise
    return s


def bind_error(host_ip: str, number: int, error: OSError) -> HostLimit:
    """The error for a host port that could not be bound, in docker's words where it has some."""
    where = f"{address_text(host_ip)}:{number}"
    if error.errno == errno.EADDRINUSE:
        return in_use_error(host_ip, number)
    if error.errno in (errno.EACCES, errno.EPERM):
        lowest = unprivileged_port_start()
        return HostLimit(
            f"cannot publish {where}: an ordinary user may not bind ports below {lowest}",
            hint=f"use a host port from {max(lowest, 1024)} on; or as root: "
            f"sysctl -w net.ipv4.ip_unprivileged_port_start={number}",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return HostLimit(f"cannot publish {where}: the host has no such address", hint="see: ip address")
    return HostLimit(f"cannot publish {where}: {os.strerror(error.errno or 0)}")


def in_use_error(host_ip: str, number: int) -> HostLimit:
    """The error for a host port that another process has, in docker's words."""
    return HostLimit(
        "driver failed programming external connectivity on endpoint: "
        f"Bind for {address_text(host_ip)}:{number} failed: port is already allocated",
        hint=f"choose another host port, or find its owner: ss -lntup 'sport = :{number}'",
    )


def unprivileged_port_start() -> int:
    """The first port that needs no privilege (net.ipv4.ip_unprivileged_port_start; 1024 where unreadable)."""
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "rb") as f:
            return int(f.read())
    except (OSError, ValueError):
        return 1024
