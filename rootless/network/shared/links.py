"""Interfaces and namespaces of networks with names. It decides neither who is on a network nor which address he has.

A network is a network namespace that routes between its containers. Each container has an interface of its own there,
to which only the container's address leads (a route of 32 bits), and the kernel drops every packet from that interface
with another source (rp_filter, strict). So no container can take the address of another one or of the name server, by
ARP or otherwise, and networks cannot reach each other. What it takes is veth and routing: no bridge, no packet filter.

The caller is root of the user namespace that owns all networks and is the parent of the containers' user namespaces,
which gives it CAP_NET_ADMIN in all of them (user_namespaces(7)). It stays in the host's network namespace: forked
children enter the others and send back sockets that they have opened there.
"""

from __future__ import annotations

import errno
import os
import socket

from rootless.errors import HostLimit, RootlessError
from rootless.host.answer import error_from_json, error_to_json
from rootless.kernel.namespaces import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    setns,
    switch_on_loopback,
    unshare,
)
from rootless.kernel.netlink import Route, Routing, VethEnd
from rootless.records.fields import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.records.id_map import Extent
    from rootless.records.membership import Attachment

_KINDS = {
    "user": (CLONE_NEWUSER, "user"),
    "network": (CLONE_NEWNET, "net"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "uts": (CLONE_NEWUTS, "uts"),
}
KINDS = tuple(_KINDS)
"""The types of namespaces that `make_namespaces` makes, by the words of the OCI runtime specification."""
_MOST_FDS = 8
_SETTINGS = {
    "ip_forward": "1",
    "conf/all/rp_filter": "1",
    "conf/default/rp_filter": "1",
    "conf/all/send_redirects": "0",
    "conf/default/send_redirects": "0",
    "conf/default/accept_redirects": "0",
}
MTU = 65520  # bytes, as the helper's interface has: no wire is involved


def pack(address: str) -> bytes:
    """The four bytes of an IPv4 address."""
    return socket.inet_pton(socket.AF_INET, address)


def _in_child(work: Callable[[], list[int]]) -> list[int]:
    """Run `work` in a forked child and return copies of the descriptors that it returned. Raises what it raised."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            try:
                socket.send_fds(theirs, [b"+"], work())
            except (RootlessError, OSError) as e:
                import json

                theirs.send(json.dumps(error_to_json(e)).encode())
        finally:
            os._exit(0)
    theirs.close()
    try:
        content, fds, _, _ = socket.recv_fds(ours, 1 << 16, _MOST_FDS)
    finally:
        ours.close()
        os.waitpid(child, 0)
    if content != b"+":
        raise error_from_json(parse_json(content) if content else None)
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds


class SharedNamespace:
    """The network namespace of a network, and what was opened in it. fd: the namespace; routing: about its interfaces;
    datagrams, listener: the sockets of the name server, at the gateway's address."""

    __slots__ = ("datagrams", "fd", "listener", "routing")

    def __init__(self, fds: Sequence[int]) -> None:
        self.fd = fds[0]
        self.routing = Routing(fds[1])
        self.datagrams = socket.socket(fileno=fds[2])
        self.listener = socket.socket(fileno=fds[3])

    def close(self) -> None:
        """Close it; the kernel ends the network with its last descriptor. The name server closes its sockets itself."""
        self.routing.close()
        os.close(self.fd)


def make_network(attachment: Attachment) -> SharedNamespace:
    """The namespace of a new network, whose gateway is there and reaches nobody yet. Raises OSError, HostLimit."""

    def work() -> list[int]:
        unshare(CLONE_NEWNET)
        switch_on_loopback()
        for name, value in _SETTINGS.items():
            _set(name, value)
        try:
            _set("conf/default/disable_ipv6", "1", family="ipv6")
        except OSError:
            pass  # the kernel has no IPv6
        routing = Routing()
        subnet, _, prefix = attachment.subnet.partition("/")
        routing.add_host_address(routing.index("lo"), pack(attachment.gateway), 32)
        # An address that no container has must not go to the helper by the default route
        routing.add_route(Route(pack(subnet), int(prefix)))
        return [os.open("/proc/self/ns/net", os.O_RDONLY), routing.detach(), *_name_sockets(attachment.gateway)]

    return SharedNamespace(_in_child(work))


def open_network(fd: int, gateway: str) -> SharedNamespace:
    """The namespace of a network that an earlier process has made. `fd` is closed, also by an error. Raises OSError."""

    def work() -> list[int]:
        setns(fd, CLONE_NEWNET)
        return [fd, Routing().detach(), *_name_sockets(gateway)]

    try:
        return SharedNamespace(_in_child(work))
    finally:
        os.close(fd)


def _name_sockets(gateway: str) -> list[int]:
    """Sockets at port 53 of the gateway: UDP, and TCP that listens."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((gateway, 53))
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((gateway, 53))
    listener.listen(16)
    return [datagrams.detach(), listener.detach()]


def _set(name: str, value: str, *, family: str = "ipv4") -> None:
    """Write a setting of the network namespace that this process is in."""
    fd = os.open(f"/proc/sys/net/{family}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def answer_for_containers(fd: int, interface: str) -> None:
    """Let the namespace answer, on the helper's interface, who has the addresses of the containers (proxy ARP).

    The helper looks for containers as for neighbours. Without a delay of zero the kernel waits up to 0.8 seconds.
    """

    def work() -> list[int]:
        setns(fd, CLONE_NEWNET)
        _set(f"neigh/{interface}/proxy_delay", "0")
        _set(f"conf/{interface}/proxy_arp", "1")
        return []

    _in_child(work)


class NewNamespaces:
    """New namespaces of a container, by their type's word; `routing` is about the interfaces in its network one."""

    __slots__ = ("fds", "routing")

    def __init__(self, fds: dict[str, int], routing: Routing) -> None:
        self.fds = fds
        self.routing = routing

    def close(self) -> None:
        """Close all of it; the namespaces live on as long as somebody else has them."""
        self.routing.close()
        for fd in self.fds.values():
            os.close(fd)


def make_namespaces(kinds: Sequence[str], uids: Sequence[Extent], gids: Sequence[Extent]) -> NewNamespaces:
    """Make a user namespace below ours, with these ids, and other namespaces that belong to it.

    kinds: some of KINDS, user and network among them. Raises OSError, HostLimit.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            try:
                flags = 0
                for kind in kinds:
                    flags |= _KINDS[kind][0]
                unshare(flags)
                switch_on_loopback()
                socket.send_fds(theirs, [b"+"], [Routing().detach()])
            except OSError as e:
                theirs.send(f"{e.errno}".encode())
            theirs.recv(1)  # the caller opens the namespaces meanwhile
        finally:
            os._exit(0)
    theirs.close()
    fds: dict[str, int] = {}
    try:
        content, sockets, _, _ = socket.recv_fds(ours, 64, 1)
        if content != b"+" or not sockets:
            number = int(content or errno.EIO)
            raise HostLimit(f"cannot make the namespaces of a container on a network: {os.strerror(number)}")
        os.set_inheritable(sockets[0], False)
        routing = Routing(sockets[0])
        try:
            for name, extents in (("uid_map", uids), ("gid_map", gids)):
                lines = "".join(f"{e.container} {e.host} {e.size}\n" for e in extents)
                fd = os.open(f"/proc/{child}/{name}", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, lines.encode())
                finally:
                    os.close(fd)
            for kind in kinds:
                fds[kind] = os.open(f"/proc/{child}/ns/{_KINDS[kind][1]}", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            routing.close()
            for fd in fds.values():
                os.close(fd)
            raise
        return NewNamespaces(fds, routing)
    finally:
        ours.close()
        os.waitpid(child, 0)


def routing_in(fd: int) -> Routing:
    """A connection about the interfaces in the network namespace `fd`. Raises OSError."""

    def work() -> list[int]:
        setns(fd, CLONE_NEWNET)
        return [Routing().detach()]

    return Routing(_in_child(work)[0])


class Link:
    """The connection of a container to one network.

    near: the interface in the network's namespace; far: the name of that in the container's, which gets a default route
    where `leads_out`.
    """

    __slots__ = ("attachment", "far", "leads_out", "near")

    def __init__(self, attachment: Attachment, near: str, far: str, *, leads_out: bool) -> None:
        self.attachment = attachment
        self.near = near
        self.far = far
        self.leads_out = leads_out

    def make(self, shared: Routing, container_fd: int, container: Routing) -> None:
        """Make both interfaces, with addresses and routes. Raises OSError; nothing is left then.

        shared: about the network's namespace; container_fd, container: the container's namespace, and about it.
        """
        own = self.attachment
        mtu = own.mtu or MTU
        mac = bytes.fromhex(own.mac.replace(":", ""))
        shared.add_veth(VethEnd(self.near, mtu), VethEnd(self.far, mtu, mac=mac, namespace_fd=container_fd))
        try:
            address, gateway = pack(own.ip), pack(own.gateway)
            near = shared.index(self.near)
            shared.up(near)
            route = Route(address, 32, index=near)
            route.source = gateway
            shared.add_route(route)
            far = container.index(self.far)
            # All containers are reached through the gateway: on the link itself there is nobody else
            container.add_host_address(far, address, own.prefix)
            container.up(far)
            container.add_route(Route(gateway, 32, index=far))
            neighbours = Route(pack(own.subnet.partition("/")[0]), own.prefix, index=far, gateway=gateway)
            neighbours.source = address
            container.add_route(neighbours)
            if self.leads_out:
                self.lead_out(container)
        except BaseException:
            self.remove(shared)
            raise

    def lead_out(self, container: Routing) -> None:
        """Give the container its default route by this network. Raises OSError."""
        index = container.index(self.far)
        container.add_route(Route(bytes(4), 0, index=index, gateway=pack(self.attachment.gateway)))

    def remove(self, shared: Routing) -> None:
        """Remove both interfaces; harmless when they are gone with the container's namespace."""
        try:
            shared.delete(shared.index(self.near))
        except OSError:
            pass
