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
import socket
import struct
import sys

from rootless.errors import HostLimit, InvalidInput, InvalidState, NotFound, RootlessError
from rootless.host import userns
from rootless.host.answer import error_to_json
from rootless.host.subid import default_id_map, read_map
from rootless.kernel.namespaces import owner_of
from rootless.kernel.netlink import Routing
from rootless.kernel.procfs import start_time
from rootless.network import slirp4netns
from rootless.network.shared import links
from rootless.network.shared.member_paths import LOCK, SOCKET, member_file
from rootless.network.shared.poller import NO_ROOM, Later
from rootless.network.shared.served_network import Guest, Served, ServedNetwork
from rootless.paths import Lock
from rootless.records.fields import Fields, parse_json
from rootless.records.id_map import IdMap, extents_between
from rootless.records.membership import Attachment, MemberFile, Membership

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

LISTENER_FD = 3
MESSAGE = 1 << 18  # bytes of a request or an answer
_GRACE = 2.0  # seconds without a container until the process ends: `run` in a loop finds it still there
_UCRED = struct.Struct("=iII")
_MOST_FDS = 64
_DESCRIPTORS = 1 << 16


class Hub:
    """Answers the monitors' requests at `listener`, whose socket lies in `directory`. done: it has nobody to serve."""

    def __init__(self, directory: str, listener: socket.socket) -> None:
        self.served = Served(directory)
        self.done = False
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
        slirp4netns.remove_sockets(self.served.directory)  # of helpers that were killed with an earlier process
        owner = -1
        for _, _, shared in left:
            for fd in shared.values():
                if owner < 0:
                    owner = owner_of(fd)
        if owner >= 0:
            userns.join_namespace(owner)
        else:
            userns.enter_new_namespace(default_id_map(), mount_namespace=False)
        self.served.owner_fd = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        for file, network_fd, shared in left:
            try:
                self._restore(file.membership, network_fd, shared)
            except Exception as e:  # whatever is wrong with one file, the other containers have their networks
                _complain(f"cannot restore container {file.membership.name}: {e!r}")
        self.served.poller.watch(self._listener.fileno(), self._accept)
        self._look_for_end()

    def _find_left(self) -> list[tuple[MemberFile, int, dict[str, int]]]:
        """The files of members whose monitors live, with their namespaces: the container's, and each network's."""
        found = []
        for entry in sorted(os.listdir(self.served.directory)):
            if not entry.endswith(".json") or entry.startswith("."):
                continue
            path = f"{self.served.directory}/{entry}"
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
                self.served.poller.rest(self._listener.fileno())
            return
        _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid != os.geteuid():  # as this namespace counts users: every other one is the overflow id
            connection.close()
            return
        self._clients += 1
        connection.settimeout(10.0)
        self.served.poller.watch(connection.fileno(), lambda: self._serve(connection))

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
        self.served.poller.forget(connection.fileno())
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
        member = Guest(membership, self.served)
        member.connection = connection
        warnings: list[str] = []
        namespaces = None
        try:
            for attachment in membership.attachments:
                if attachment.network_id not in self.served.networks:
                    self.served.networks[attachment.network_id] = ServedNetwork(
                        attachment, links.make_network(attachment), self.served
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
        shared = [os.dup(self.served.networks[one.network_id].namespace.fd) for one in membership.attachments]
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
        if attachment.network_id not in self.served.networks:
            namespace = links.make_network(attachment)
            self.served.networks[attachment.network_id] = ServedNetwork(attachment, namespace, self.served)
        try:
            member.attach(attachment, fds[0])
        finally:
            self._end_empty_networks()
        network = self.served.networks[attachment.network_id]
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
            network = self.served.networks.get(request.text("network_id"))
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
        member = Guest(membership, self.served)
        try:
            for attachment in membership.attachments:
                fd = shared.pop(attachment.network_id, -1)
                if fd < 0:
                    raise InvalidInput(f"no namespace of network {attachment.name}")
                known = self.served.networks.get(attachment.network_id)
                if known is None:
                    namespace = links.open_network(fd, attachment.gateway)
                    self.served.networks[attachment.network_id] = ServedNetwork(attachment, namespace, self.served)
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
                os.unlink(member_file(self.served.directory, container_id))
            except OSError:
                pass
        try:
            member.leave()
        except (RootlessError, OSError) as e:
            _complain(f"container {member.membership.name}: {e}")
        self._end_empty_networks()

    def _end_empty_networks(self) -> None:
        for network in [network for network in self.served.networks.values() if not network.members]:
            del self.served.networks[network.id]
            network.close()

    def _look_for_end(self) -> None:
        """End this process when for a while there was neither a container nor a connection."""
        if self._end is None:
            self._end = self.served.poller.later(_GRACE, self._end_unless_used)

    def _end_unless_used(self) -> None:
        self._end = None
        # Members of an earlier process whose monitors have ended meanwhile never connect
        for member in list(self._members.values()):
            if member.connection is None and not _is_alive(self.served.directory, member):
                self._remove(member)
        if self._members or self._clients:
            if any(member.connection is None for member in self._members.values()):
                self._look_for_end()
            return
        try:
            with Lock(
                f"{self.served.directory}/{LOCK}"
            ):  # whoever makes a new process waits for it, and finds no socket then
                if _inode(f"{self.served.directory}/{SOCKET}") == self._socket:
                    os.unlink(f"{self.served.directory}/{SOCKET}")
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
        hub.served.poller.turn()
    return 0
