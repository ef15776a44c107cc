"""A network with a name while containers are on it, and a container with its links, addresses and published ports.

The hub has them in its process (network.shared.hub), and decides who enters and leaves.
"""

from __future__ import annotations

import os
import random
import socket
import time

from rootless.errors import HostLimit, InvalidState, RootlessError
from rootless.host.facts import find_helper
from rootless.kernel.namespaces import OpenNetwork
from rootless.network import addresses, slirp4netns
from rootless.network.shared import links
from rootless.network.shared.name_server import HostResolvers, NameServer, Resolver, Zone, parse_resolvers
from rootless.network.shared.poller import Later, Poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.network.shared.links import SharedNamespace
    from rootless.network.slirp4netns import SharedHelper
    from rootless.records.membership import Attachment, Membership

_FIRST_DELAY, _LONGEST_DELAY = 0.25, 30.0  # seconds until a helper that has ended is started again
_STABLE = 60.0  # seconds after which the end of a helper is no sign that the next one will end too


class Served:
    """All networks of the hub's process by id, and what they share.

    owner_fd: the user namespace that owns them, which the process is in; directory: of the hub's socket.
    """

    __slots__ = ("directory", "networks", "owner_fd", "poller", "resolvers")

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.networks: dict[str, ServedNetwork] = {}
        self.owner_fd = -1
        self.poller = Poller()
        self.resolvers = HostResolvers()


class ServedNetwork:
    """A network that a container is on. members: container id → the container."""

    def __init__(self, attachment: Attachment, namespace: SharedNamespace, served: Served) -> None:
        self.id = attachment.network_id
        self.name = attachment.name
        self.internal = attachment.internal
        self.namespace = namespace
        self.members: dict[str, Guest] = {}
        self._served = served
        self._helper: SharedHelper | None = None
        self._retry: Later | None = None
        self._delay = _FIRST_DELAY
        self._since = 0.0
        self._server: NameServer | None = None
        if attachment.names:
            zone = Zone(self._find, self._reverse, self._resolvers)
            self._server = NameServer(served.poller, namespace.datagrams, namespace.listener, zone)
        else:
            namespace.datagrams.close()
            namespace.listener.close()

    def connect(self) -> SharedHelper:
        """The helper that connects the network with the host's, started if it does not run. Raises HostLimit."""
        if self._helper is not None:
            return self._helper
        program = find_helper(slirp4netns.PROGRAM)
        if program is None:
            raise HostLimit(
                "networks with names need slirp4netns to reach anything outside, which is not installed",
                hint="ask the administrator for: apt-get install slirp4netns",
            )
        helper = slirp4netns.SharedHelper(
            program, OpenNetwork(self.namespace.fd, self._served.owner_fd), self._served.directory
        )
        try:
            links.answer_for_containers(self.namespace.fd, addresses.SHARED_INTERFACE)
        except OSError as e:
            helper.stop()
            raise HostLimit(f"cannot let network {self.name} answer its helper: {e.strerror}") from e
        self._helper = helper
        self._since = time.monotonic()
        self._served.poller.watch(helper.helper.error_fd(), self._has_spoken)
        return helper

    def _has_spoken(self) -> None:
        """The helper has written a message, which is dropped, or has ended, and another one is started."""
        helper = self._helper
        if helper is None:
            return
        helper.helper.last_words()
        try:
            pid, _ = os.waitpid(helper.helper.pid, os.WNOHANG)
        except ChildProcessError:
            pid = helper.helper.pid
        if not pid:
            return
        helper.helper.pid = -1  # its number may be another process's by now
        self._drop_helper()
        self.retry()

    def _drop_helper(self) -> None:
        helper, self._helper = self._helper, None
        if helper is not None:
            self._served.poller.forget(helper.helper.error_fd())
            helper.stop()
        for member in self.members.values():
            if member.way_out is self:
                member.forwards.clear()

    def retry(self) -> None:
        """Start the helper again, or publish what could not be published, in a while."""
        if time.monotonic() - self._since > _STABLE:
            self._delay = _FIRST_DELAY
        self._since = time.monotonic()
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._served.poller.later(self._delay, self._reconnect)
        self._delay = min(self._delay * 2, _LONGEST_DELAY)

    def _reconnect(self) -> None:
        """Start the helper, and publish the ports of all containers whose ports it does not publish.

        A port that somebody else has taken meanwhile is tried again; the other containers do not wait for it.
        """
        if not self.members:
            return
        try:
            self.connect()
        except (RootlessError, OSError):
            self.retry()
            return
        is_complete = True
        for member in self.members.values():
            if member.way_out is self and not member.forwards:
                try:
                    member.publish()
                except (RootlessError, OSError):
                    member.withdraw()
                    is_complete = False
        if not is_complete:
            self.retry()

    def close(self) -> None:
        """End the network, on which no container is any more."""
        if self._retry is not None:
            self._retry.cancel()
        self._drop_helper()
        if self._server is not None:
            self._server.close()
        self.namespace.close()

    def free_address(self, attachment: Attachment) -> str:
        """The address that the container asks for, or the lowest free one. Raises InvalidState in docker's words."""
        taken = {one.ip for member in self.members.values() for one in member.on(self)}
        if attachment.ip:
            if attachment.ip in taken or attachment.ip == attachment.gateway:
                raise InvalidState("Address already in use")
            return attachment.ip
        first, last = _span(attachment.subnet)
        low, high = _span(attachment.ip_range or attachment.subnet)
        for number in range(max(low, first + 1), min(high, last - 1) + 1):
            address = socket.inet_ntoa(number.to_bytes(4, "big"))
            if address not in taken and address != attachment.gateway:
                return address
        raise InvalidState(f"no available IPv4 addresses on this network's address pools: {self.name} ({self.id})")

    def _asker(self, address: str) -> Guest | None:
        """The container that a packet comes from. The kernel has dropped those with another's address."""
        return next((m for m in self.members.values() if any(one.ip == address for one in m.on(self))), None)

    def _visible(self, address: str) -> list[ServedNetwork]:
        """The networks whose names the asker at `address` may know: those that it is on."""
        asker = self._asker(address)
        return [self] if asker is None else [self, *(network for network in asker.networks() if network is not self)]

    def _find(self, name: str, asker: str) -> list[str] | None:
        found: list[str] = []
        for network in self._visible(asker):
            wanted = {name, name.removesuffix(f".{network.name.lower()}")}
            for member in network.members.values():
                found += [one.ip for one in member.on(network) if wanted & member.names(one)]
        random.shuffle(found)
        return found or None

    def _reverse(self, address: str, asker: str) -> str | None:
        for network in self._visible(asker):
            for member in network.members.values():
                if any(one.ip == address for one in member.on(network)):
                    return f"{member.membership.name}.{network.name}"
        return None

    def _resolvers(self, address: str) -> Sequence[Resolver]:
        asker = self._asker(address)
        if asker is None or asker.way_out is None:
            return ()  # a container that reaches nothing outside asks nobody outside: names can carry anything
        return parse_resolvers(asker.membership.dns) or self._served.resolvers.addresses()


class Guest:
    """A container on networks. way_out: the network by which it reaches the outside, None where all are internal."""

    def __init__(self, membership: Membership, served: Served) -> None:
        self.membership = membership
        self.connection: socket.socket | None = None
        self.links: list[tuple[ServedNetwork, links.Link]] = []
        self.forwards: list[int] = []
        self.way_out: ServedNetwork | None = None
        self._served = served

    def networks(self) -> list[ServedNetwork]:
        """The networks that it is on."""
        return [network for network, _ in self.links]

    def on(self, network: ServedNetwork) -> list[Attachment]:
        """How it is attached to `network`."""
        return [link.attachment for one, link in self.links if one is network]

    def names(self, attachment: Attachment) -> set[str]:
        """Its names on a network, in lower case."""
        own = self.membership
        return {own.name.lower(), own.container_id[:12], own.container_id, *map(str.lower, attachment.aliases)}

    def plan_links(self) -> list[tuple[ServedNetwork, links.Link]]:
        """Its links, which are not made yet; its addresses are chosen. Raises InvalidState for one that is taken."""
        way_out = next((one for one in self.membership.attachments if not one.internal), None)
        return [
            self.plan_link(attachment, f"eth{number}", leads_out=attachment is way_out)
            for number, attachment in enumerate(self.membership.attachments)
        ]

    def plan_link(self, attachment: Attachment, interface: str, *, leads_out: bool) -> tuple[ServedNetwork, links.Link]:
        """A link to a network that is there; the address is chosen. Raises InvalidState for one that is taken."""
        network = self._served.networks[attachment.network_id]
        attachment.ip = network.free_address(attachment)
        packed = links.pack(attachment.ip)
        # docker's rule: an address of the link layer that follows from the IP address is never given twice
        attachment.mac = attachment.mac or f"02:42:{packed.hex(':')}"
        return network, links.Link(attachment, f"v{packed.hex()}", interface, leads_out=leads_out)

    def enter(self, network: ServedNetwork, link: links.Link) -> None:
        """Count as a member of a network that it is linked to."""
        self.links.append((network, link))
        network.members[self.membership.container_id] = self
        if link.leads_out:
            self.way_out = network

    def publish(self) -> None:
        """Forward its ports from the host. Raises HostLimit; those before the failed one stay in `forwards`."""
        if self.way_out is None:
            return
        (guest,) = (one.ip for one in self.on(self.way_out))
        for port in self.membership.ports:
            self.forwards.append(self.way_out.connect().publish(port, guest))

    def withdraw(self) -> None:
        """Forward its ports no longer."""
        if self.way_out is not None and self.forwards:
            helper = self.way_out.connect()
            for number in self.forwards:
                helper.withdraw(number)
            self.forwards.clear()

    def attach(self, attachment: Attachment, container_fd: int) -> None:
        """Go on one more network, which is there. container_fd: the container's network namespace. Raises OSError,
        InvalidState."""
        used = {link.far for _, link in self.links}
        interface = next(f"eth{number}" for number in range(len(used) + 1) if f"eth{number}" not in used)
        leads_out = self.way_out is None and not attachment.internal
        network, link = self.plan_link(attachment, interface, leads_out=leads_out)
        container = links.routing_in(container_fd)
        try:
            link.make(network.namespace.routing, container_fd, container)
        finally:
            container.close()
        self.membership.attachments.append(attachment)
        self.enter(network, link)

    def detach(self, network: ServedNetwork, container_fd: int) -> None:
        """Leave a network. Its next one that leads outside is its way out then, if this one was.

        Raises OSError, when it has left: with CAP_NET_ADMIN a container can have a default route of its own already.
        """
        is_way_out = network is self.way_out
        if is_way_out:
            self.withdraw()
            self.way_out = None
        for one, link in self.links:
            if one is network:
                link.remove(network.namespace.routing)
                self.membership.attachments.remove(link.attachment)
        self.links = [(one, link) for one, link in self.links if one is not network]
        network.members.pop(self.membership.container_id, None)
        following = next(((one, link) for one, link in self.links if not one.internal), None)
        if is_way_out and following is not None:
            self.way_out, link = following
            link.leads_out = True
            container = links.routing_in(container_fd)
            try:
                link.lead_out(container)
            finally:
                container.close()

    def leave(self) -> None:
        """Withdraw ports and links, and end the networks that have no member any more."""
        self.withdraw()
        for network, link in self.links:
            network.members.pop(self.membership.container_id, None)
            if network.members:
                link.remove(network.namespace.routing)
        self.links.clear()


def _span(subnet: str) -> tuple[int, int]:
    """The first and the last address of a subnet, as numbers."""
    text, _, prefix = subnet.partition("/")
    first = int.from_bytes(links.pack(text), "big")
    return first, first + (1 << 32 - int(prefix)) - 1
