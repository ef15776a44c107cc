"""Network interfaces: find, make, move to another namespace, addresses, up, routes; veth pairs, tap devices.

Which ones is decided elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

_NETLINK_ROUTE = 0
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK, _RTM_NEWADDR, _RTM_GETADDR = 16, 17, 18, 19, 20, 22
_RTM_NEWROUTE = 24
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE, _NLM_F_DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_PERMANENT, _IFA_F_NOPREFIXROUTE, _SCOPE_GLOBAL, _SCOPE_LINK, _IFF_UP = 0x80, 0x200, 0, 253, 1
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST, _RTN_UNREACHABLE = 254, 4, 1, 7
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_BLOCK = 1 << 16


class Address:
    """A permanent address of global scope: family, length of the prefix, and the attributes that make it."""

    __slots__ = ("attributes", "family", "prefix")

    def __init__(self, family: int, prefix: int, attributes: dict[int, str]) -> None:
        self.family = family
        self.prefix = prefix
        self.attributes = attributes
        """Number of the attribute → its bytes in hexadecimal: an address goes through a message of JSON."""


class VethEnd:
    """One end of a new veth pair: its name, its address as six bytes (b"" = the kernel chooses) and its MTU in bytes.

    namespace_fd: the network namespace that it is made in; -1: that of the connection to the kernel.
    """

    __slots__ = ("mac", "mtu", "name", "namespace_fd")

    def __init__(self, name: str, mtu: int, *, mac: bytes = b"", namespace_fd: int = -1) -> None:
        self.name = name
        self.mtu = mtu
        self.mac = mac
        self.namespace_fd = namespace_fd

    def attributes(self) -> bytes:
        """The attributes of the interface in a message of rtnetlink."""
        block = _attribute(_IFLA_IFNAME, self.name.encode() + b"\0") + _attribute(
            _IFLA_MTU, struct.pack("=I", self.mtu)
        )
        if self.mac:
            block += _attribute(_IFLA_ADDRESS, self.mac)
        if self.namespace_fd >= 0:
            block += _attribute(_IFLA_NET_NS_FD, struct.pack("=I", self.namespace_fd))
        return block


class Route:
    """An IPv4 route. destination: an address in four bytes, prefix: how many of its bits count, 0 for the default.

    index: of the interface; gateway: in four bytes, b"" where the destination is on the interface; source: the address
    of ours that connections get, b"" for the kernel's choice. Without interface and gateway nobody is there.
    """

    __slots__ = ("destination", "gateway", "index", "prefix", "source")

    def __init__(self, destination: bytes, prefix: int, *, index: int = 0, gateway: bytes = b"") -> None:
        self.destination = destination
        self.prefix = prefix
        self.index = index
        self.gateway = gateway
        self.source = b""


class Routing:
    """A connection to the kernel about the interfaces of this process's network namespace.

    fd: a socket that a process in another network namespace has opened, which the connection is about then. The kernel
    asks for the capability of the process that opened it and of the one that uses it.
    """

    __slots__ = ("_sequence", "_socket")

    def __init__(self, fd: int = -1) -> None:
        if fd >= 0:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE, fd)
        else:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
        self._sequence = 0

    def detach(self) -> int:
        """The descriptor of the socket, which is the caller's from now on; the object cannot be used afterwards."""
        return self._socket.detach()

    def close(self) -> None:
        """Close the socket; the object cannot be used afterwards."""
        self._socket.close()

    def index(self, name: str) -> int:
        """The number of an interface; OSError ENODEV."""
        body = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
        for kind, answer in self._ask(_RTM_GETLINK, _NLM_F_ACK, body):
            if kind == _RTM_NEWLINK:
                return int(_LINK.unpack_from(answer)[2])
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name)

    def move(self, index: int, namespace_fd: int, name: str) -> None:
        """Put an interface into another network namespace, as `name` (`eth%d`: the first free one). It goes down."""
        body = _LINK.pack(0, 0, index, 0, 0)
        body += _attribute(_IFLA_NET_NS_FD, struct.pack("=I", namespace_fd))
        body += _attribute(_IFLA_IFNAME, name.encode() + b"\0")
        self._ask(_RTM_SETLINK, _NLM_F_ACK, body)

    def up(self, index: int) -> None:
        """Switch an interface on."""
        self._ask(_RTM_SETLINK, _NLM_F_ACK, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP))

    def addresses(self, index: int) -> list[Address]:
        """Its permanent addresses of global scope."""
        found = []
        for kind, answer in self._ask(_RTM_GETADDR, _NLM_F_DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
            family, prefix, flags, scope, owner = _ADDRESS.unpack_from(answer)
            if kind == _RTM_NEWADDR and owner == index and scope == _SCOPE_GLOBAL and flags & _IFA_F_PERMANENT:
                kept = {
                    number: value.hex()
                    for number, value in _attributes(answer[_ADDRESS.size :])
                    if number in (_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST)
                }
                found.append(Address(family, prefix, kept))
        return found

    def add(self, index: int, address: Address) -> None:
        """Give an interface an address."""
        body = _ADDRESS.pack(address.family, address.prefix, _IFA_F_PERMANENT, _SCOPE_GLOBAL, index)
        for number, value in address.attributes.items():
            body += _attribute(number, bytes.fromhex(value))
        self._ask(_RTM_NEWADDR, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL, body)

    def add_veth(self, near: VethEnd, far: VethEnd) -> None:
        """Make two interfaces that are connected; what one sends the other receives."""
        peer = _attribute(_VETH_INFO_PEER, _LINK.pack(0, 0, 0, 0, 0) + far.attributes())
        info = _attribute(_IFLA_INFO_KIND, b"veth") + _attribute(_IFLA_INFO_DATA, peer)
        body = _LINK.pack(0, 0, 0, 0, 0) + near.attributes() + _attribute(_IFLA_LINKINFO, info)
        self._ask(_RTM_NEWLINK, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL, body)

    def delete(self, index: int) -> None:
        """Remove an interface, and with one end of a veth pair the other."""
        self._ask(_RTM_DELLINK, _NLM_F_ACK, _LINK.pack(0, 0, index, 0, 0))

    def add_host_address(self, index: int, address: bytes, prefix: int) -> None:
        """Give an interface an IPv4 address in four bytes, without a route to the others of its prefix."""
        flags = _IFA_F_PERMANENT | _IFA_F_NOPREFIXROUTE
        body = _ADDRESS.pack(socket.AF_INET, prefix, _IFA_F_PERMANENT, _SCOPE_GLOBAL, index)
        body += _attribute(_IFA_LOCAL, address) + _attribute(_IFA_ADDRESS, address)
        body += _attribute(_IFA_FLAGS, struct.pack("=I", flags))
        self._ask(_RTM_NEWADDR, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL, body)

    def add_route(self, route: Route) -> None:
        """Add a route to the main table."""
        is_dead = not route.index and not route.gateway
        kind = _RTN_UNREACHABLE if is_dead else _RTN_UNICAST
        scope = _SCOPE_LINK if route.index and not route.gateway else _SCOPE_GLOBAL
        body = _ROUTE.pack(socket.AF_INET, route.prefix, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, scope, kind, 0)
        if route.prefix:
            body += _attribute(_RTA_DST, route.destination)
        if route.index:
            body += _attribute(_RTA_OIF, struct.pack("=I", route.index))
        if route.gateway:
            body += _attribute(_RTA_GATEWAY, route.gateway)
        if route.source:
            body += _attribute(_RTA_PREFSRC, route.source)
        self._ask(_RTM_NEWROUTE, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL, body)

    def _ask(self, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        """Send one request and gather the answers. Raises OSError with the kernel's errno."""
        self._sequence += 1
        size = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(size, kind, _NLM_F_REQUEST | flags, self._sequence, 0) + body)
        answers: list[tuple[int, bytes]] = []
        while True:
            block = self._socket.recv(_BLOCK)
            while len(block) >= _HEADER.size:
                length, answer, _, _, _ = _HEADER.unpack_from(block)
                payload = block[_HEADER.size : length]
                block = block[(length + 3) & ~3 :]
                if answer == _NLMSG_DONE:
                    return answers
                if answer == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return answers
                answers.append((answer, payload))


def ipv4_address(address: str, prefix: int) -> Address:
    """The value for `Routing.add` of an IPv4 address in dotted form."""
    packed = socket.inet_aton(address).hex()
    return Address(socket.AF_INET, prefix, {_IFA_ADDRESS: packed, _IFA_LOCAL: packed})


def open_tap(name: str) -> int:
    """Make the tap device `name` in this process's network namespace; it goes with the last copy of the returned fd.

    Raises OSError: no /dev/net/tun, or no CAP_NET_ADMIN here.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _attribute(number: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, number) + value + bytes(-size % 4)


def _attributes(block: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(block) >= 4:
        size, number = struct.unpack_from("=HH", block)
        if size < 4:
            break
        found.append((number & 0x3FFF, block[4:size]))
        block = block[(size + 3) & ~3 :]
    return found
