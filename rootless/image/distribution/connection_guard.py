"""Where a connection may lead that a registry, a token server or a Dockerfile names: judged by address, not by text.

At link-local addresses clouds give their machines' credentials to whoever asks, so nobody but the user may send us
there. A text is not enough to see it: 169.254.169.254 is 2852039166, 0xa9fea9fe, ::ffff:a9fe:a9fe, 64:ff9b::a9fe:a9fe,
and any name that its owner lets resolve to it, if need be the second time only. So a connection is made to the very
address that was judged.
"""

from __future__ import annotations

import ipaddress
import socket

from rootless.errors import RegistryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import PoolManager
    from urllib3.connection import HTTPConnection

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291, 2.5.5.1: the last 32 bits are an IPv4 address too


def connection_objection(address: str) -> str:
    """Why we do not connect to the numeric `address` ("it is a link-local address"); "" when nothing is wrong."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    for each in (ip, *_inner(ip)):
        if each.is_link_local:
            return "it is a link-local address"
        if each.is_unspecified or each.is_multicast:
            return "it is the address of no single host"
    return ""


def _inner(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that packets to an IPv6 address may be sent on to."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    found = [each for each in (ip.ipv4_mapped, ip.sixtofour) if each is not None]
    if ip in _NAT64 or (ip in _COMPATIBLE and int(ip) > 1):
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return found


def resolve_addresses(host: str, port: int | None, *, numeric: bool = False) -> list[str]:
    """The addresses that the system would connect to for `host`.

    numeric: only addresses in any spelling are read; a name is not looked up and has no addresses.

    Raises OSError (socket.gaierror) when a name does not resolve.
    """
    flags = socket.AI_NUMERICHOST if numeric else 0
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as e:
        if numeric:
            return []
        raise OSError(f"'{host}' does not resolve") from e
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def literal_objection(host: str) -> str:
    """The `connection_objection` to a host that is written as an address, in any spelling; "" for a name."""
    return next(filter(None, map(connection_objection, [host, *resolve_addresses(host, None, numeric=True)])), "")


def guard_pool(pool: PoolManager) -> PoolManager:
    """Let the new `pool` connect only to addresses without a `connection_objection`; else requests raise RegistryError.

    urllib3 offers no hook for that, so its classes of connections are extended.
    """
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class GuardedConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self, super()._new_conn)

    class GuardedTlsConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self, super()._new_conn)

    class GuardedPool(HTTPConnectionPool):
        ConnectionCls = GuardedConnection

    class GuardedTlsPool(HTTPSConnectionPool):
        ConnectionCls = GuardedTlsConnection

    pool.pool_classes_by_scheme = {"http": GuardedPool, "https": GuardedTlsPool}
    return pool


def _connect(connection: HTTPConnection, connect: Callable[[], socket.socket]) -> socket.socket:
    """A socket to the first address of `connection`'s name that was judged harmless and answers.

    connect: urllib3's own method, which resolves the name. Were the name given to it after the judgement, a second look
    into the DNS could bring another address (DNS rebinding): so it gets the judged address in the name's place.
    """
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    name = connection._dns_host
    try:
        found = resolve_addresses(name, connection.port)
    except OSError:
        return connect()  # urllib3's own words for a name that does not resolve
    allowed = [address for address in found if not connection_objection(address)]
    if not allowed:
        raise RegistryError(f"'{name[:200]}' leads to {found[0]}: refused, {connection_objection(found[0])}")
    try:
        for address in allowed[:-1]:
            connection._dns_host = address
            try:
                return connect()
            except (NewConnectionError, ConnectTimeoutError):
                continue
        connection._dns_host = allowed[-1]
        return connect()
    finally:
        connection._dns_host = name  # TLS compares the certificate with the name, which urllib3 takes from here
