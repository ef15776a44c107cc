"""The subnets of networks with names: texts of options, a subnet that nobody uses yet, overlaps. IPv4 only."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from rootless.errors import HostLimit, InvalidState, UsageError
from rootless.network import addresses

MTU_OPTIONS = ("com.docker.network.driver.mtu", "mtu")
"""Options of a network that say its MTU, docker's and podman's."""
_HELPERS = ipaddress.IPv4Network(f"{addresses.NETWORK}/{addresses.PREFIX}")  # between a network and its helper
_FIRST = ipaddress.IPv4Network("10.89.0.0/24")
_POOL = 167 * 256  # subnets of 256 addresses from _FIRST on, up to 10.255.255.0/24
_LONGEST_PREFIX = 30  # below it there is no room for a gateway and a container


def parse_subnet(text: str) -> ipaddress.IPv4Network:
    """The subnet that `text` of --subnet names. Raises UsageError: no subnet, IPv6, too small or no container's own."""
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise UsageError(f"invalid subnet {text}: it is no address with the length of its prefix") from None
    if not isinstance(interface, ipaddress.IPv4Interface):
        raise UsageError(f"invalid subnet {text}: networks with names have no IPv6 yet", hint="use an IPv4 subnet")
    network = interface.network
    if "/" not in text or interface.ip != network.network_address:
        raise UsageError(f"invalid subnet {text}: it should be {network}")
    if network.prefixlen > _LONGEST_PREFIX:
        raise UsageError(f"invalid subnet {text}: it has no room for a gateway and a container")
    if network.is_loopback or network.is_multicast or network.is_unspecified or network.prefixlen < 8:
        raise UsageError(f"invalid subnet {text}: containers cannot have its addresses")
    if network.overlaps(_HELPERS):
        raise InvalidState(
            f"invalid pool request: subnet {text} overlaps with {_HELPERS}, by which networks reach their helper"
        )
    return network


def refuse_overlap(network: ipaddress.IPv4Network, taken: Iterable[ipaddress.IPv4Network]) -> None:
    """Raise InvalidState, in docker's words, when `network` has an address of one of `taken`."""
    if any(network.overlaps(other) for other in taken):
        raise InvalidState("invalid pool request: Pool overlaps with other one on this address space")


def free_subnet(taken: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first subnet of 256 addresses that overlaps none of `taken`. Raises HostLimit when all are taken."""
    used = list(taken)
    for number in range(_POOL):
        candidate = ipaddress.IPv4Network((int(_FIRST.network_address) + 256 * number, 24))
        if not candidate.overlaps(_HELPERS) and not any(candidate.overlaps(other) for other in used):
            return candidate
    raise HostLimit("all predefined address pools have been fully subnetted", hint="give one by --subnet")


def parse_gateway(text: str, network: ipaddress.IPv4Network) -> str:
    """The gateway that --gateway asks for, or the first address for "". Raises UsageError for one outside."""
    if not text:
        return str(network.network_address + 1)
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise UsageError(f'invalid argument "{text}" for "--gateway": it is no IPv4 address') from None
    if address not in network or address in (network.network_address, network.broadcast_address):
        raise UsageError(f"no matching subnet for gateway {text}")
    return str(address)


def parse_range(text: str, network: ipaddress.IPv4Network) -> str:
    """The part of `network` that --ip-range names, "" for all of it. Raises UsageError for one outside."""
    if not text:
        return ""
    try:
        part = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageError(f'invalid argument "{text}" for "--ip-range": it is no subnet') from None
    if not isinstance(part, ipaddress.IPv4Network) or not part.subnet_of(network):
        raise UsageError(f"no matching subnet for ip-range {text}")
    return str(part)


def host_subnets(path: str = "/proc/self/net/route") -> list[ipaddress.IPv4Network]:
    """The subnets to which the host has routes (proc(5)), without its default route; none where they are unreadable."""
    found = []
    try:
        with open(path, encoding="ascii") as file:
            lines = file.read().splitlines()[1:]
        for line in lines:
            words = line.split()
            address, mask = (int.from_bytes(bytes.fromhex(words[at]), "little") for at in (1, 7))
            if mask:
                found.append(ipaddress.IPv4Network((address & mask, mask.bit_count())))
    except (OSError, ValueError, IndexError):
        return []
    return found
