"""The addresses of a container behind a helper, the same for pasta and slirp4netns, and the host's. It sends nothing.

A container gets an address of a network of its own, as on docker's bridge, and not the host's address, which is pasta's
default: its /etc/hosts and resolv.conf can so be written before the helper runs, the host stays reachable by its own
address, and both helpers give the container the same one.
"""

from __future__ import annotations

import socket

# This network is rarely used elsewhere. 10.0.2.0/24, slirp's default, is the host's own in VirtualBox and QEMU guests,
# and a container could not reach its host or neighbours there
NETWORK, PREFIX = "10.239.0.0", 24
GATEWAY = "10.239.0.2"
DNS = "10.239.0.3"  # the helper sends queries to it on to a resolver on the host's loopback
CONTAINER = "10.239.0.100"
INTERFACE = "eth0"
SHARED_INTERFACE = "tap0"  # of the helper of a network that containers share, in that network's namespace
MTU = 65520  # bytes; the largest both helpers take: no wire is involved
_DOCUMENTATION = (  # RFC 5737, RFC 3849
    ("192.0.2.1", socket.AF_INET),
    ("2001:db8::1", socket.AF_INET6),
)


def host_address(family: int = socket.AF_INET) -> str | None:
    """The address that the host's outgoing connections have, or None where the host has no route."""
    # connect(2) of a datagram socket chooses route and source address, and sends nothing
    goal = next(address for address, known in _DOCUMENTATION if known == family)
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.connect((goal, 9))
            address = str(probe.getsockname()[0])
    except OSError:
        return None
    return None if is_loopback(address) else address


def is_loopback(address: str) -> bool:
    """Does a numeric address lie in 127.0.0.0/8, or is it ::1 or an IPv4-mapped form of the former?"""
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


def address_family(address: str) -> int:
    """AF_INET or AF_INET6 of a numeric address; raises ValueError for anything else, also for a scope (`%eth0`)."""
    for known in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(known, address)
        except (OSError, ValueError):
            continue
        return known
    raise ValueError(f"{address!r} is not an IP address")
