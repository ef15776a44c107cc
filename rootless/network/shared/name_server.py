"""The name server of networks: names of containers by a function, everything else from the host's resolvers.

One object serves one network: its sockets are in the network's namespace, at the gateway's address, while those that
ask the host's resolvers are in the host's. So a resolver on the host's loopback is asked like any other one.
"""

from __future__ import annotations

import os
import socket

from rootless.network.shared import dns_message
from rootless.network.shared.dns_message import FORMAT_ERROR, NO_SUCH_NAME, NOT_IMPLEMENTED, Question
from rootless.network.shared.poller import NO_ROOM, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.network.shared.poller import Later, Poller

PORT = 53
_MOST_UDP = 65535  # bytes of a message
_TRY = 2.0  # seconds until the next resolver is asked
_TRIES = 4  # resolvers, in turn, until the question is dropped
_AT_ONCE = 512  # questions that wait for a resolver; those above are dropped, and the client asks again
_CONNECTIONS = 64  # by TCP at once; those above are closed
_PATIENCE = 10.0  # seconds that a connection may take for one question and its answer

# An address of a resolver as connect(2) takes it, with its family
Resolver = tuple[int, tuple[str, int] | tuple[str, int, int, int]]


class Zone:
    """What a name server answers by itself.

    find: the addresses of a name for the asker at an address, None for a name of no container; reverse: the name of an
    address, likewise; resolvers: whom to ask about all other names, none where nothing outside may be reached.
    """

    __slots__ = ("find", "resolvers", "reverse")

    def __init__(
        self,
        find: Callable[[str, str], list[str] | None],
        reverse: Callable[[str, str], str | None],
        resolvers: Callable[[str], Sequence[Resolver]],
    ) -> None:
        self.find = find
        self.reverse = reverse
        self.resolvers = resolvers

    def answer(self, question: Question, asker: str) -> bytes | None:
        """The answer to a question, None where a resolver is to be asked."""
        if not question.is_query:
            return question.answer_nothing(NOT_IMPLEMENTED)
        if question.kind == dns_message.PTR:
            address = dns_message.reverse_address(question.name)
            name = self.reverse(address, asker) if address else None
            if name is not None:
                return question.answer_name(name)
        else:
            addresses = self.find(question.name, asker)
            if addresses is not None:
                if question.kind in (dns_message.A, dns_message.ANY):
                    return question.answer_addresses(addresses)
                return question.answer_nothing()  # the name is there, and has no IPv6 address nor anything else
        if not self.resolvers(asker):
            return question.answer_nothing(NO_SUCH_NAME)
        return None


class _Places:
    """What waits, at most `most`. When all places are taken, whoever has most of them loses his oldest to one who has
    less: a container that asks without end keeps no other one from asking."""

    __slots__ = ("_askers", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._askers: dict[str, list[_Asked | _Connection]] = {}

    def make_room(self, asker: str) -> bool:
        """Whether there is a place for the asker at this address."""
        if sum(map(len, self._askers.values())) < self._most:
            return True
        taken = max(self._askers.values(), key=len)
        if len(taken) <= len(self._askers.get(asker, ())) + 1:
            return False
        taken[0].end()
        return True

    def add(self, asker: str, waiting: _Asked | _Connection) -> None:
        """Give a place away."""
        self._askers.setdefault(asker, []).append(waiting)

    def remove(self, asker: str, waiting: _Asked | _Connection) -> None:
        """Take a place back; harmless when that was done."""
        taken = self._askers.get(asker, [])
        if waiting in taken:
            taken.remove(waiting)
        if not taken:
            self._askers.pop(asker, None)

    def end(self) -> None:
        """End all that waits."""
        for taken in list(self._askers.values()):
            for waiting in list(taken):
                waiting.end()


class NameServer:
    """Answers at the two sockets of one network: `datagrams` (UDP), `listener` (TCP). They are closed with it."""

    __slots__ = ("_connections", "_datagrams", "_listener", "_poller", "_waiting", "_zone")

    def __init__(self, poller: Poller, datagrams: socket.socket, listener: socket.socket, zone: Zone) -> None:
        self._poller = poller
        self._datagrams = datagrams
        self._listener = listener
        self._zone = zone
        self._waiting = _Places(_AT_ONCE)
        self._connections = _Places(_CONNECTIONS)
        for one in (datagrams, listener):
            one.setblocking(False)
        poller.watch(datagrams.fileno(), self._receive)
        poller.watch(listener.fileno(), self._accept)

    def close(self) -> None:
        """Close all sockets; those who wait get no answer."""
        self._waiting.end()
        self._connections.end()
        for one in (self._datagrams, self._listener):
            self._poller.forget(one.fileno())
            one.close()

    def _receive(self) -> None:
        for _ in range(64):  # a flood of questions must not keep the process from everything else
            try:
                packet, asker = self._datagrams.recvfrom(_MOST_UDP)
            except OSError:
                return
            self._ask(packet, asker)

    def _ask(self, packet: bytes, asker: tuple[str, int]) -> None:
        try:
            question = Question(packet)
        except ValueError:
            return  # it says nothing that could be answered
        try:
            answer = self._zone.answer(question, asker[0])
        except ValueError:
            answer = question.answer_nothing(FORMAT_ERROR)
        if answer is not None:
            self.send(answer, asker)
        elif self._waiting.make_room(asker[0]):
            self._waiting.add(asker[0], _Asked(self, question, asker))

    def send(self, packet: bytes, asker: tuple[str, int]) -> None:
        """Send an answer; one that cannot be sent is lost, as datagrams may be."""
        try:
            self._datagrams.sendto(packet, asker)
        except OSError:
            pass

    def _accept(self) -> None:
        try:
            connection, asker = self._listener.accept()
        except OSError as e:
            if e.errno in NO_ROOM:
                self._poller.rest(self._listener.fileno())
            return
        if not self._connections.make_room(asker[0]):
            connection.close()
            return
        self._connections.add(asker[0], _Connection(self, connection, asker[0]))

    # What the two classes below use

    @property
    def poller(self) -> Poller:
        """The loop that this server is watched by."""
        return self._poller

    @property
    def zone(self) -> Zone:
        """What the server answers by itself."""
        return self._zone

    def has_ended(self, asked: _Asked | _Connection) -> None:
        """Drop a question, or a connection, that has ended."""
        if isinstance(asked, _Asked):
            self._waiting.remove(asked.asker, asked)
        else:
            self._connections.remove(asked.asker, asked)


class _Asked:
    """A question by UDP that the host's resolvers are asked, one after the other.

    Each is asked from a socket of its own, whose port the kernel chooses, and with a number that nobody can guess: an
    answer that somebody else sends is not taken.
    """

    __slots__ = ("_asker", "_identity", "_question", "_server", "_socket", "_timer", "_tries")

    def __init__(self, server: NameServer, question: Question, asker: tuple[str, int]) -> None:
        self._server = server
        self._question = question
        self._asker = asker
        self._tries = 0
        self._identity = 0
        self._socket: socket.socket | None = None
        self._timer: Later | None = None
        self._timer = server.poller.later(0.0, self._try)

    @property
    def asker(self) -> str:
        """The address of whoever asks."""
        return self._asker[0]

    def _try(self) -> None:
        self._close()
        resolvers = self._server.zone.resolvers(self._asker[0])
        if self._tries >= _TRIES or not resolvers:
            self.end()
            return
        family, address = resolvers[self._tries % len(resolvers)]
        self._tries += 1
        self._identity = int.from_bytes(os.urandom(2), "big")
        self._timer = self._server.poller.later(_TRY, self._try)
        try:
            self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            self._socket.connect(address)
            self._socket.send(self._question.renumbered(self._identity))
        except OSError:
            self._fail()
            return
        self._server.poller.watch(self._socket.fileno(), self._receive)

    def _fail(self) -> None:
        """Ask the next resolver at once, for this one cannot be reached."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._server.poller.later(0.01, self._try)

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            packet = self._socket.recv(_MOST_UDP)
        except BlockingIOError:
            return
        except OSError:
            self._close()
            self._fail()
            return
        if self._question.has_answer(packet, self._identity):
            self._server.send(self._question.packet[:2] + packet[2:], self._asker)
            self.end()

    def end(self) -> None:
        """Wait no longer for an answer."""
        self._close()
        if self._timer is not None:
            self._timer.cancel()
        self._server.has_ended(self)

    def _close(self) -> None:
        if self._socket is not None:
            self._server.poller.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None


class _Connection:
    """A connection by TCP, which may ask one question after the other (RFC 7766). Each message has its length first."""

    __slots__ = ("_client", "_inbox", "_outbox", "_resolver", "_server", "_timer", "_upstream", "asker")

    def __init__(self, server: NameServer, client: socket.socket, asker: str) -> None:
        self._server = server
        self._client = client
        self.asker = asker
        self._inbox = b""
        self._outbox = b""
        self._resolver: socket.socket | None = None
        self._upstream = b""
        client.setblocking(False)
        self._timer = server.poller.later(_PATIENCE, self.end)
        server.poller.watch(client.fileno(), self._read)

    def _read(self) -> None:
        try:
            chunk = self._client.recv(_MOST_UDP)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.end()
            return
        self._inbox += chunk
        self._next()

    def _next(self) -> None:
        """Answer the next question that is there as a whole."""
        size = int.from_bytes(self._inbox[:2], "big") + 2
        if len(self._inbox) < max(size, 2 + 12):
            if len(self._inbox) >= 2 and size < 2 + 12:
                self.end()
            return
        packet, self._inbox = self._inbox[2:size], self._inbox[size:]
        try:
            question = Question(packet)
            question.size = _MOST_UDP
            answer = self._server.zone.answer(question, self.asker)
        except ValueError:
            self.end()
            return
        if answer is not None:
            self._send(len(answer).to_bytes(2, "big") + answer)
            return
        self._server.poller.forget(self._client.fileno())  # one question after the other
        try:
            family, address = self._server.zone.resolvers(self.asker)[0]
            self._resolver = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            self._outbox = len(packet).to_bytes(2, "big") + packet
            try:
                self._resolver.connect(address)
            except BlockingIOError:
                pass
        except (OSError, IndexError):
            self.end()
            return
        self._upstream = b""
        self._server.poller.watch(self._resolver.fileno(), self._pass_on, WRITE)

    def _pass_on(self) -> None:
        """Send the question to the resolver, then read its answer."""
        assert self._resolver is not None
        try:
            if self._outbox:
                self._outbox = self._outbox[self._resolver.send(self._outbox) :]
                if not self._outbox:
                    self._server.poller.watch(self._resolver.fileno(), self._pass_on, READ)
                return
            chunk = self._resolver.recv(_MOST_UDP)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.end()
            return
        self._upstream += chunk
        size = int.from_bytes(self._upstream[:2], "big") + 2
        if len(self._upstream) >= max(size, 2):
            answer, self._upstream = self._upstream[:size], b""
            self._close_resolver()
            self._send(answer)

    def _send(self, answer: bytes) -> None:
        self._outbox = answer
        self._timer.cancel()
        self._timer = self._server.poller.later(_PATIENCE, self.end)
        self._server.poller.watch(self._client.fileno(), self._write, WRITE)

    def _write(self) -> None:
        try:
            self._outbox = self._outbox[self._client.send(self._outbox) :]
        except BlockingIOError:
            return
        except OSError:
            self.end()
            return
        if not self._outbox:
            self._server.poller.watch(self._client.fileno(), self._read)
            self._next()

    def end(self) -> None:
        """Close the connection, and what waits for it."""
        self._timer.cancel()
        self._close_resolver()
        self._server.poller.forget(self._client.fileno())
        self._client.close()
        self._server.has_ended(self)

    def _close_resolver(self) -> None:
        if self._resolver is not None:
            self._server.poller.forget(self._resolver.fileno())
            self._resolver.close()
            self._resolver = None


class HostResolvers:
    """The resolvers of the host's resolv.conf, which is read again when it has changed: a VPN may bring others."""

    __slots__ = ("_found", "_path", "_stamp")

    def __init__(self, path: str = "/etc/resolv.conf") -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._found: list[Resolver] = []

    def addresses(self) -> list[Resolver]:
        """Up to three of them, as the C library takes them; 127.0.0.1 where none is named, as resolv.conf(5) says."""
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            stamp = (0, 0, 0)
        if stamp != self._stamp:
            self._stamp = stamp
            self._found = parse_resolvers(self._read())
        return self._found

    def _read(self) -> list[str]:
        from rootless.network.resolv import read_text

        found = []
        for line in read_text(self._path).splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                found.append(words[1])
        return found[:3] or ["127.0.0.1"]


def parse_resolvers(texts: Sequence[str]) -> list[Resolver]:
    """The addresses of resolvers; IPv6 ones may name their interface (`fe80::1%eth0`). Wrong ones are left out."""
    found: list[Resolver] = []
    for text in texts:
        address, _, scope = text.partition("%")
        try:
            if ":" in address:
                socket.inet_pton(socket.AF_INET6, address)
                number = 0 if not scope else int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
                found.append((socket.AF_INET6, (address, PORT, 0, number)))
            else:
                socket.inet_pton(socket.AF_INET, address)
                found.append((socket.AF_INET, (address, PORT)))
        except (OSError, ValueError):
            continue
    return found
