"""The name server of a network, on the loopback interface: own names, resolvers of the host, UDP and TCP, bounds."""

from __future__ import annotations

import os
import random
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from rootless.network.shared import name_server
from rootless.network.shared.name_server import HostResolvers, NameServer, Resolver, Zone, parse_resolvers
from rootless.network.shared.poller import Poller
from tests.unit.network.test_dns_message import query


class Resolving:
    """A resolver of the host: answers every question after its own kind, and counts them."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.tcp = socket.create_server(("127.0.0.1", self.udp.getsockname()[1]))
        self.address: Resolver = (socket.AF_INET, self.udp.getsockname())
        self.asked = 0
        self._answer = answer
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def _serve_udp(self) -> None:
        while True:
            packet, asker = self.udp.recvfrom(65535)
            self.asked += 1
            answer = self._answer(packet)
            if answer is not None:
                self.udp.sendto(answer, asker)

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self.tcp.accept()
            with connection:
                packet = connection.recv(65535)[2:]
                answer = self._answer(packet) or b""
                connection.sendall(len(answer).to_bytes(2, "big") + answer)
                connection.recv(1)


def echo(packet: bytes) -> bytes:
    return packet[:2] + b"\x81\x80" + packet[4:] + b"from the host"


class Served:
    """A name server that a thread runs."""

    def __init__(self, resolvers: Sequence[Resolver]) -> None:
        self.poller = Poller()
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", 0))
        self.address = datagrams.getsockname()
        names = {"web": ["10.89.0.2"]}
        zone = Zone(lambda name, asker: names.get(name), lambda address, asker: None, lambda asker: resolvers)
        listener = socket.create_server(self.address)
        self.server = NameServer(self.poller, datagrams, listener, zone)
        self._ends = False
        self.turns = 0
        self.fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ends:
                self.turns += 1
                timer = self.poller.later(0.05, lambda: None)
                self.poller.turn()
                timer.cancel()
        except BaseException as e:
            self.fault = e

    def end(self) -> None:
        self._ends = True
        self._thread.join(5)
        self.server.close()

    def ask(self, packet: bytes) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(10)
            s.connect(self.address)
            s.send(packet)
            return s.recv(65535)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(*resolvers: Resolver) -> Served:
        made.append(Served(resolvers))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_own_names_are_answered_and_others_passed_on(serve: Callable[..., Served]) -> None:
    resolver = Resolving(echo)
    served = serve(resolver.address)
    assert served.ask(query("web")).endswith(bytes((10, 89, 0, 2)))
    assert resolver.asked == 0
    answer = served.ask(query("example.com"))
    assert (answer[:2], answer.endswith(b"from the host"), resolver.asked) == (b"\0\7", True, 1)


def test_a_network_that_reaches_nobody_has_no_other_names(serve: Callable[..., Served]) -> None:
    assert serve().ask(query("example.com"))[3] & 0xF == 3


def test_a_resolver_that_does_not_answer_is_not_the_last(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_server, "_TRY", 0.2)
    silent, other = Resolving(lambda packet: None), Resolving(echo)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        closed = s.getsockname()  # nobody listens there any more: the kernel says so at once
    served = serve(silent.address, (socket.AF_INET, closed), other.address)
    assert served.ask(query("example.com")).endswith(b"from the host")
    assert (silent.asked, other.asked) == (1, 1)


def test_an_answer_to_another_question_is_not_taken(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_server, "_TRY", 0.2)
    forged = Resolving(lambda packet: bytes((packet[0] ^ 1, packet[1])) + echo(packet)[2:])
    wrong = Resolving(lambda packet: packet[:2] + echo(query("bank"))[2:])
    honest = Resolving(echo)
    served = serve(forged.address, wrong.address, honest.address)
    assert served.ask(query("example.com")).endswith(b"from the host")
    assert honest.asked == 1


def test_questions_by_tcp(serve: Callable[..., Served]) -> None:
    large = b"x" * 40000
    served = serve(Resolving(lambda packet: echo(packet) + large).address)
    with socket.create_connection(served.address, timeout=10) as s:
        for name, end in (("web", bytes((10, 89, 0, 2))), ("example.com", large), ("web", bytes((10, 89, 0, 2)))):
            packet = query(name)
            message = struct.pack(">H", len(packet)) + packet
            s.sendall(message[:5])
            time.sleep(0.02)
            s.sendall(message[5:])
            answer = b""
            while len(answer) < 2 or len(answer) < int.from_bytes(answer[:2], "big") + 2:
                answer += s.recv(65535)
            assert answer.endswith(end)
        s.sendall(b"\0\1x")  # no question: the connection is closed
        assert s.recv(10) == b""


def test_connections_have_a_bound(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_server, "_CONNECTIONS", 3)
    served = serve()
    kept = [socket.create_connection(served.address, timeout=10) for _ in range(3)]
    with socket.create_connection(served.address, timeout=10) as one_more:
        assert one_more.recv(1) == b""
    for one in kept:
        one.close()


def test_who_asks_much_keeps_nobody_else_from_asking(serve: Callable[..., Served]) -> None:
    """Another container of the network has its questions answered while the resolver leaves those of one unanswered."""
    served = serve(Resolving(lambda packet: echo(packet) if b"good" in packet else None).address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hostile:
        hostile.bind(("127.0.0.2", 0))
        for number in range(name_server._AT_ONCE * 2):
            hostile.sendto(query("slow"), served.address)
            time.sleep(0.02 if number % 64 == 0 else 0)
        kept = [
            socket.create_connection(served.address, timeout=10, source_address=("127.0.0.2", 0))
            for _ in range(name_server._CONNECTIONS)
        ]
        assert served.ask(query("good")).endswith(b"from the host")
        with socket.create_connection(served.address, timeout=5) as honest:
            packet = query("good")
            honest.sendall(struct.pack(">H", len(packet)) + packet)
            assert honest.recv(65535).endswith(b"from the host")
        for one in kept:
            one.close()


def test_without_descriptors_it_waits_and_does_not_spin(serve: Callable[..., Served]) -> None:
    served = serve(Resolving(echo).address)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = socket.socket(socket.AF_INET)
    client.settimeout(10)
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
    taken = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        client.connect(served.address)
        before = served.turns
        time.sleep(0.5)
        assert served.turns - before < 100
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    packet = query("web")
    client.sendall(struct.pack(">H", len(packet)) + packet)
    assert client.recv(65535).endswith(bytes((10, 89, 0, 2)))
    client.close()


def test_whatever_containers_send_the_process_lives(serve: Callable[..., Served]) -> None:
    """Pointers that lead to themselves, lengths that lie, pieces of questions: by UDP and by TCP."""
    served = serve(Resolving(lambda packet: packet[:40]).address)
    chosen = random.Random(7)
    good = query("web")
    packets = [
        b"",
        b"\0" * 11,
        good[:12] + b"\xc0\x0c" + good[-4:],
        good[:12] + b"\x3f" + b"a" * 62,
        good[:12] + b"\x01a" * 200 + b"\0" + good[-4:],
        good + b"\0\0\x29",
        good + b"\xff" * 65000,
        *(good[:size] for size in range(len(good))),
    ]
    for _ in range(2000):
        made = bytearray(good + chosen.randbytes(chosen.randrange(20)))
        for _ in range(chosen.randrange(6)):
            made[chosen.randrange(len(made))] = chosen.randrange(256)
        packets.append(bytes(made))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for packet in packets:
            s.sendto(packet[:65000], served.address)
    for packet in packets[::40]:
        with socket.create_connection(served.address, timeout=10) as s:
            s.sendall(len(packet).to_bytes(2, "big") + packet)
    assert served.ask(good).endswith(bytes((10, 89, 0, 2)))
    assert served.fault is None


def test_resolvers_of_the_host_are_read_again_when_they_change(tmp_path) -> None:
    path = tmp_path / "resolv.conf"
    found = HostResolvers(str(path))
    assert found.addresses() == [(socket.AF_INET, ("127.0.0.1", 53))]
    path.write_text("nameserver 192.0.2.1\nnameserver fe80::1%1\nnameserver x\n# nameserver 1.1.1.1\n")
    assert found.addresses() == [(socket.AF_INET, ("192.0.2.1", 53)), (socket.AF_INET6, ("fe80::1", 53, 0, 1))]
    assert parse_resolvers(["fe80::1%nosuch0", "127.0.0.53"]) == [(socket.AF_INET, ("127.0.0.53", 53))]
