"""The one process that serves all networks with names of a user and store on this host: links, ports, names, helpers.

The first container that joins a network starts it, and it ends when the last has left. It is root of a user namespace
that owns the networks' namespaces and is the parent of the containers', and stays in the host's network namespace, from
where it asks the host's resolvers. Each monitor keeps a connection to it for as long as its container runs: the end of
that connection is the container's leave. The monitors hold the namespaces of their networks open as well, and note in
files by which descriptors. So when this process is killed, containers go on to reach each other, and the next process,
which the monitors start at once, finds all networks, enters the same user namespace and brings back ports and names.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
import time

from rootless.errors import HostLimit, InvalidInput, InvalidState, NotFound, RootlessError
from rootless.host import userns
from rootless.host.answer import error_to_json
from rootless.host.facts import find_helper
from rootless.host.subid import default_id_map, read_map
from rootless.kernel.namespaces import OpenNetwork, owner_of
from rootless.kernel.netlink import Routing
from rootless.kernel.procfs import start_time
from rootless.network import addresses, slirp4netns
from rootless.network.shared import links
from rootless.network.shared.member_paths import LOCK, SOCKET, member_file
from rootless.network.shared.name_server import HostResolvers, NameServer, Resolver, Zone, parse_resolvers
from rootless.network.shared.poller import NO_ROOM, Later, Poller
from rootless.paths import Lock
from rootless.records.fields import Fields, parse_json
from rootless.records.id_map import IdMap, extents_between
from rootless.records.membership import Attachment, MemberFile, Membership

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.network.shared.links import SharedNamespace
    from rootless.network.slirp4netns import SharedHelper

LISTENER_FD = 3
MESSAGE = 1 << 18  # bytes of a request or an answer
_GRACE = 2.0  # seconds without a container until the process ends: `run` in a loop finds it still there
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 30.0  # seconds until a helper that has ended is started again
_STABLE = 60.0  # seconds after which the end of a helper is no sign that the next one will end too
_UCRED = struct.Struct("=iII")
_MOST_FDS = 64
_DESCRIPTORS = 1 << 16


class ServedNetwork:
    """A network that a container is on. members: container id → the container."""

    def __init__(self, attachment: Attachment, namespace: SharedNamespace, hub: Hub) -> None:
        self.id = attachment.network_id
        self.name = attachment.name
        self.internal = attachment.internal
        self.namespace = namespace
        self.members: dict[str, Guest] = {}
        self._hub = hub
        self._helper: SharedHelper | None = None
        self._retry: Later | None = None
        self._delay = _FIRST_DELAY
        self._since = 0.0
        self._server: NameServer | None = None
        if attachment.names:
            zone = Zone(self._find, self._reverse, self._resolvers)
            self._server = NameServer(hub.poller, namespace.datagrams, namespace.listener, zone)
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
            program, OpenNetwork(self.namespace.fd, self._hub.owner_fd), self._hub.directory
        )
        try:
            links.answer_for_containers(self.namespace.fd, addresses.SHARED_INTERFACE)
        except OSError as e:
            helper.stop()
            raise HostLimit(f"cannot let network {self.name} answer its helper: {e.strerror}") from e
        self._helper = helper
        self._since = time.monotonic()
        self._hub.poller.watch(helper.helper.error_fd(), self._has_spoken)
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
            self._hub.poller.forget(helper.helper.error_fd())
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
        self._retry = self._hub.poller.later(self._delay, self._reconnect)
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
        return parse_resolvers(asker.membership.dns) or self._hub.resolvers.addresses()


class Guest:
    """A container on networks. way_out: the network by which it reaches the outside, None where all are internal."""

    def __init__(self, membership: Membership, hub: Hub) -> None:
        self.membership = membership
        self.connection: socket.socket | None = None
        self.links: list[tuple[ServedNetwork, links.Link]] = []
        self.forwards: list[int] = []
        self.way_out: ServedNetwork | None = None
        self._hub = hub

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
        network = self._hub.networks[attachment.network_id]
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


class Hub:
    """All networks. owner_fd: the user namespace that owns them, which this process is in; directory: of its socket."""

    def __init__(self, directory: str, listener: socket.socket) -> None:
        self.poller = Poller()
        self.networks: dict[str, ServedNetwork] = {}
        self.resolvers = HostResolvers()
        self.owner_fd = -1
        self.done = False
        self.directory = directory
        self._listener = listener
        self._members: dict[str, Guest] = {}
        self._clients = 0
        self._end: Later | None = None
        self._socket = _inode(f"{directory}/{SOCKET}")
        listener.setblocking(False)

    def begin(self) -> None:
        """Enter the user namespace of the networks that an earlier process has left, or a new one, and restore those.

        What the monitors hold is opened before: from inside of the namespace this process may not look at them.
        """
        left = self._find_left()
        slirp4netns.remove_sockets(self.directory)  # of helpers that were killed with an earlier process
        owner = -1
        for _, _, shared in left:
            for fd in shared.values():
                if owner < 0:
                    owner = owner_of(fd)
        if owner >= 0:
            userns.join_namespace(owner)
        else:
            userns.enter_new_namespace(default_id_map(), mount_namespace=False)
        self.owner_fd = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        for file, network_fd, shared in left:
            try:
                self._restore(file.membership, network_fd, shared)
            except Exception as e:  # whatever is wrong with one file, the other containers have their networks
                _complain(f"cannot restore container {file.membership.name}: {e!r}")
        self.poller.watch(self._listener.fileno(), self._accept)
        self._look_for_end()

    def _find_left(self) -> list[tuple[MemberFile, int, dict[str, int]]]:
        """The files of members whose monitors live, with their namespaces: the container's, and each network's."""
        found = []
        for entry in sorted(os.listdir(self.directory)):
            if not entry.endswith(".json") or entry.startswith("."):
                continue
            path = f"{self.directory}/{entry}"
            fds: list[int] = []
            try:
                with open(path, "rb") as content:
                    file = MemberFile.from_json(parse_json(content.read(MESSAGE)), path)
                if start_time(file.pid) != file.start:
                    raise NotFound("another process has its number")
                for number in (file.network_fd, *file.shared_fds.values()):
                    fds.append(os.open(f"/proc/{file.pid}/fd/{number}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
                    os.close(owner_of(fds[-1]))
            except (RootlessError, OSError, ValueError):
                for fd in fds:
                    os.close(fd)
                try:
                    os.unlink(path)
                except OSError:
                    pass
                continue
            found.append((file, fds[0], dict(zip(file.shared_fds, fds[1:], strict=True))))
        return found

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as e:
            if e.errno in NO_ROOM:
                self.poller.rest(self._listener.fileno())
            return
        _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid != os.geteuid():  # as this namespace counts users: every other one is the overflow id
            connection.close()
            return
        self._clients += 1
        connection.settimeout(10.0)
        self.poller.watch(connection.fileno(), lambda: self._serve(connection))

    def _serve(self, connection: socket.socket) -> None:
        """Answer one request; at the end of a connection its container leaves."""
        fds: list[int] = []
        try:
            content, fds, _, _ = socket.recv_fds(connection, MESSAGE, _MOST_FDS)
        except OSError:
            content = b""
        if not content:
            self._disconnect(connection)
            return
        for fd in fds:
            os.set_inheritable(fd, False)
        answer: dict[str, object]
        given: list[int] = []
        try:
            request = Fields(parse_json(content), "request")
            answer, given = self._do(request, connection, fds)
        except Exception as e:  # a request that nobody foresaw must not end what all containers use
            answer = {"error": error_to_json(e)}
        finally:
            for fd in fds:
                os.close(fd)
        import json

        try:
            socket.send_fds(connection, [json.dumps(answer).encode()], given)
        except OSError:
            self._disconnect(connection)
        finally:
            for fd in given:
                os.close(fd)

    def _disconnect(self, connection: socket.socket) -> None:
        self.poller.forget(connection.fileno())
        connection.close()
        self._clients -= 1
        for member in list(self._members.values()):
            if member.connection is connection:
                self._remove(member)
        self._look_for_end()

    def _do(self, request: Fields, connection: socket.socket, fds: list[int]) -> tuple[dict[str, object], list[int]]:
        """Do what a request asks for; the answer, and descriptors that go with it and are closed then."""
        match request.text("op"):
            case "join":
                return self._join(request, connection)
            case "resume":
                membership = Membership.from_json(request.require_member("membership"))
                member = self._members.get(membership.container_id)
                if member is None:
                    ids = request.texts("networks")
                    if len(fds) != len(ids) + 1:
                        raise InvalidInput("a request without its namespaces")
                    if len(set(ids)) < len(ids):
                        raise InvalidInput("a request that names a network twice")
                    own, *shared = map(os.dup, fds)
                    member = self._restore(membership, own, dict(zip(ids, shared, strict=True)))
                member.connection = connection
                return {}, []
            case "rename":
                known = self._members.get(request.text("container_id"))
                if known is not None:
                    known.membership.name = request.text("name")
                return {}, []
            case "attach":
                return self._attach(request, connection, fds)
            case "detach":
                return self._detach(request, connection, fds)
            case other:
                raise InvalidInput(f"request '{other}' is not known")

    def _join(self, request: Fields, connection: socket.socket) -> tuple[dict[str, object], list[int]]:
        membership = Membership.from_json(request.require_member("membership"))
        id_map = IdMap.from_fields(request.require_member("id_map"))
        kinds = [kind for kind in links.KINDS if kind in request.texts("kinds")]
        if "user" not in kinds or "network" not in kinds:
            raise InvalidInput("a container on a network needs a user namespace and a network namespace of its own")
        earlier = self._members.get(membership.container_id)
        if earlier is not None:
            self._remove(earlier)
        member = Guest(membership, self)
        member.connection = connection
        warnings: list[str] = []
        namespaces = None
        try:
            for attachment in membership.attachments:
                if attachment.network_id not in self.networks:
                    self.networks[attachment.network_id] = ServedNetwork(
                        attachment, links.make_network(attachment), self
                    )
            planned = member.plan_links()
            namespaces = links.make_namespaces(
                kinds,
                extents_between(id_map.uids, read_map("uid_map")),
                extents_between(id_map.gids, read_map("gid_map")),
            )
            for network, link in planned:
                link.make(network.namespace.routing, namespaces.fds["network"], namespaces.routing)
                member.enter(network, link)
            self._members[membership.container_id] = member
            warnings += self._lead_out(member)
        except BaseException:
            if namespaces is not None:
                namespaces.close()
            self._remove(member)
            raise
        namespaces.routing.close()
        shared = [os.dup(self.networks[one.network_id].namespace.fd) for one in membership.attachments]
        answer: dict[str, object] = {"membership": membership.to_json(), "kinds": kinds, "warnings": warnings}
        return answer, [*(namespaces.fds[kind] for kind in kinds), *shared]

    def _member_of(self, connection: socket.socket) -> Guest:
        """The container whose monitor has sent a request. Raises InvalidState."""
        for member in self._members.values():
            if member.connection is connection:
                return member
        raise InvalidState("the container is on no network with a name")

    def _attach(
        self, request: Fields, connection: socket.socket, fds: list[int]
    ) -> tuple[dict[str, object], list[int]]:
        """Put a container that runs on one more network; fds: its network namespace."""
        member = self._member_of(connection)
        attachment = Attachment.from_json(request.require_member("attachment"))
        if any(network.id == attachment.network_id for network in member.networks()):
            raise InvalidState(
                f"endpoint with name {member.membership.name} already exists in network {attachment.name}"
            )
        if attachment.network_id not in self.networks:
            namespace = links.make_network(attachment)
            self.networks[attachment.network_id] = ServedNetwork(attachment, namespace, self)
        try:
            member.attach(attachment, fds[0])
        finally:
            self._end_empty_networks()
        network = self.networks[attachment.network_id]
        warnings: list[str] = []
        if member.way_out is network:
            try:
                warnings = self._lead_out(member)
            except HostLimit as e:
                warnings = [e.message]
        answer: dict[str, object] = {"membership": member.membership.to_json(), "warnings": warnings}
        return answer, [os.dup(network.namespace.fd)]

    def _detach(
        self, request: Fields, connection: socket.socket, fds: list[int]
    ) -> tuple[dict[str, object], list[int]]:
        """Let a container that runs leave a network; fds: its network namespace."""
        warnings: list[str] = []
        try:
            member = self._member_of(connection)
            network = self.networks.get(request.text("network_id"))
            if network is None or network not in member.networks():
                raise InvalidState(f"container {member.membership.name} is not connected to the network")
            way_out = member.way_out
            try:
                member.detach(network, fds[0])
            except OSError as e:
                warnings.append(f"container {member.membership.name} has no default route by another network: {e}")
            if member.way_out is not way_out and member.way_out is not None:
                try:
                    warnings += self._lead_out(member)
                except HostLimit as e:
                    warnings.append(e.message)
        finally:
            self._end_empty_networks()
        return {"membership": member.membership.to_json(), "warnings": warnings}, []

    def _lead_out(self, member: Guest) -> list[str]:
        """Connect the network by which a container reaches the outside, and publish its ports; lines for its user.

        Raises HostLimit where ports cannot be published. Without any the container starts, and reaches its neighbours.
        """
        if member.way_out is None:
            return ["published ports are discarded on internal networks"] if member.membership.ports else []
        try:
            member.way_out.connect()
        except HostLimit as e:
            if member.membership.ports:
                raise
            return [f"network {member.way_out.name} reaches nothing outside: {e}"]
        member.publish()
        return []

    def _restore(self, membership: Membership, network_fd: int, shared: dict[str, int]) -> Guest:
        """Take over a container that has joined an earlier process. Both namespaces' descriptors become ours."""
        member = Guest(membership, self)
        try:
            for attachment in membership.attachments:
                fd = shared.pop(attachment.network_id, -1)
                if fd < 0:
                    raise InvalidInput(f"no namespace of network {attachment.name}")
                known = self.networks.get(attachment.network_id)
                if known is None:
                    namespace = links.open_network(fd, attachment.gateway)
                    self.networks[attachment.network_id] = ServedNetwork(attachment, namespace, self)
                    continue
                is_same = os.path.samestat(os.fstat(fd), os.fstat(known.namespace.fd))
                os.close(fd)
                if not is_same:
                    raise InvalidState(f"network {attachment.name} was made again meanwhile")
            container: Routing | None = None
            for network, link in member.plan_links():
                try:
                    network.namespace.routing.index(link.near)
                except OSError:
                    container = container or links.routing_in(network_fd)
                    link.make(network.namespace.routing, network_fd, container)
                member.enter(network, link)
            if container is not None:
                container.close()
        except BaseException:
            self._remove(member)
            raise
        finally:
            for fd in (network_fd, *shared.values()):
                os.close(fd)
        self._members[membership.container_id] = member
        try:
            self._lead_out(member)
        except (RootlessError, OSError) as e:
            _complain(f"cannot connect container {membership.name} again: {e}")
            member.withdraw()
            if member.way_out is not None:
                member.way_out.retry()
        return member

    def _remove(self, member: Guest) -> None:
        """Let a container leave all networks, and end those that are empty then."""
        container_id = member.membership.container_id
        if self._members.get(container_id) is member:
            del self._members[container_id]
            try:
                os.unlink(member_file(self.directory, container_id))
            except OSError:
                pass
        try:
            member.leave()
        except (RootlessError, OSError) as e:
            _complain(f"container {member.membership.name}: {e}")
        self._end_empty_networks()

    def _end_empty_networks(self) -> None:
        for network in [network for network in self.networks.values() if not network.members]:
            del self.networks[network.id]
            network.close()

    def _look_for_end(self) -> None:
        """End this process when for a while there was neither a container nor a connection."""
        if self._end is None:
            self._end = self.poller.later(_GRACE, self._end_unless_used)

    def _end_unless_used(self) -> None:
        self._end = None
        # Members of an earlier process whose monitors have ended meanwhile never connect
        for member in list(self._members.values()):
            if member.connection is None and not _is_alive(self.directory, member):
                self._remove(member)
        if self._members or self._clients:
            if any(member.connection is None for member in self._members.values()):
                self._look_for_end()
            return
        try:
            with Lock(f"{self.directory}/{LOCK}"):  # whoever makes a new process waits for it, and finds no socket then
                if _inode(f"{self.directory}/{SOCKET}") == self._socket:
                    os.unlink(f"{self.directory}/{SOCKET}")
        except OSError:
            pass  # the store was reset, and the directory is gone; or another process serves a new one by now
        self.done = True  # who has connected in this moment sees the end of the connection, and tries again


def _inode(path: str) -> int:
    """The number of the file at `path`; 0 where none is."""
    try:
        return os.lstat(path).st_ino
    except OSError:
        return 0


def _is_alive(directory: str, member: Guest) -> bool:
    """Does the monitor of a restored member still run?"""
    path = member_file(directory, member.membership.container_id)
    try:
        with open(path, "rb") as content:
            file = MemberFile.from_json(parse_json(content.read(MESSAGE)), path)
        return start_time(file.pid) == file.start
    except (RootlessError, OSError, ValueError):
        return False


def _complain(text: str) -> None:
    os.write(2, f"{text}\n".encode(errors="replace"))


def _allow_descriptors() -> None:
    """Let this process have more descriptors than its caller: each container, question and connection takes some."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    """Serve the networks whose directory is the argument, at the listening socket LISTENER_FD."""
    import signal

    directory = sys.argv[1]
    os.set_inheritable(LISTENER_FD, False)
    os.chdir("/")
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        with open("/proc/self/comm", "w") as file:
            file.write("rootless-net")
    except OSError:
        pass  # the name serves people who read `ps`
    _allow_descriptors()
    hub = Hub(directory, socket.socket(fileno=LISTENER_FD))
    hub.begin()
    while not hub.done:
        hub.poller.turn()
    return 0
