"""The process that serves networks: requests that are none, files that are damaged, helpers that end."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from rootless.errors import HostLimit
from rootless.network.shared import hub as hub_module
from rootless.network.shared import served_network
from rootless.network.shared.hub import Hub
from rootless.network.shared.member_paths import SOCKET
from rootless.network.shared.served_network import Guest, Served, ServedNetwork
from rootless.records.membership import Attachment, MemberFile, Membership
from rootless.records.port import Port


def listening(directory: Path) -> socket.socket:
    """A socket as the first monitor binds it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here = os.open(directory, os.O_RDONLY)
    listener.bind(f"/proc/self/fd/{here}/{SOCKET}")
    os.close(here)
    listener.listen(8)
    return listener


class Running:
    """The process as a thread, without namespaces."""

    def __init__(self, directory: Path) -> None:
        self.hub = Hub(str(directory), listening(directory))
        self.hub.served.poller.watch(self.hub._listener.fileno(), self.hub._accept)
        self.directory = directory
        self.ended = False
        self.fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self.ended:
                self.hub.served.poller.later(0.02, lambda: None)
                self.hub.served.poller.turn()
        except BaseException as e:
            self.fault = e

    def ask(self, content: bytes, fds: list[int]) -> object:
        """What is answered to `content`."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(5)
            here = os.open(self.directory, os.O_RDONLY)
            client.connect(f"/proc/self/fd/{here}/{SOCKET}")
            os.close(here)
            socket.send_fds(client, [content], fds)
            return json.loads(client.recv(1 << 18))

    def end(self) -> None:
        self.ended = True
        self._thread.join(5)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    served = Running(tmp_path)
    yield served
    served.end()


def fd_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def membership(container_id: str, **changes: object) -> Membership:
    attachment = Attachment("net", "1" * 64, "10.89.0.0/24", "10.89.0.1")
    for name, value in changes.items():
        setattr(attachment, name, value)
    return Membership(container_id, f"name-{container_id}", [attachment])


def test_requests_that_are_none_are_answered_and_cost_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise IndexError("a fault of ours")

    monkeypatch.setattr(Hub, "_join", fails)
    good = {"op": "resume", "membership": membership("a").to_json(), "networks": []}
    requests = [
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"op": 5}',
        b'{"op": "nosuch"}',
        b'{"op": "attach"}',
        b'{"op": "detach", "network_id": "x"}',
        b'{"op": "rename", "container_id": "x", "name": "y"}',
        b'{"op": "join"}',
        json.dumps(good).encode(),
        json.dumps({**good, "networks": ["1" * 64] * 3}).encode(),
        json.dumps({**good, "networks": ["1" * 64]}).encode(),
    ]
    null = os.open("/dev/null", os.O_RDONLY)
    before = fd_count()
    for content in requests:
        for count in (0, 1, 2, 60):
            answer = running.ask(content, [null] * count)
            assert isinstance(answer, dict), content[:80]
            assert ("error" in answer) == (b"rename" not in content), content[:80]
    deadline = time.monotonic() + 5
    while fd_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    os.close(null)
    assert (fd_count() < before, running.fault) == (True, None)


def test_the_socket_of_the_next_process_stays(running: Running, tmp_path: Path) -> None:
    """The store was reset, and a container that was started since has its own process for the same directory."""
    (tmp_path / SOCKET).unlink()
    later = listening(tmp_path)
    running.hub._end_unless_used()
    later.close()
    assert running.hub.done
    assert (tmp_path / SOCKET).exists()


def test_one_damaged_file_keeps_no_other_container_from_its_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored: list[str] = []

    def restore(self: Hub, told: Membership, *_: object) -> None:
        if told.container_id == "a":
            raise KeyError("what damage brings about")
        restored.append(told.container_id)

    monkeypatch.setattr(Hub, "_restore", restore)
    files = [(MemberFile(membership(name), (1, 1), 3), 5, {"1" * 64: 6}) for name in ("a", "b")]
    monkeypatch.setattr(Hub, "_find_left", lambda self: files)
    monkeypatch.setattr(hub_module, "owner_of", lambda fd: 7)
    monkeypatch.setattr(hub_module.userns, "join_namespace", lambda fd: None)
    Hub(str(tmp_path), listening(tmp_path)).begin()
    assert restored == ["b"]


class Helper:
    """slirp4netns, which forwards every port but those in `taken`."""

    started = 0

    def __init__(self, *_: object) -> None:
        read, self._write = os.pipe()
        Helper.started += 1
        self.helper = SimpleNamespace(error_fd=lambda: read, pid=0, last_words=lambda: "")
        self.ports: list[int] = []
        self.stopped = False

    taken: set[int] = set()

    def publish(self, port: Port, guest: str) -> int:
        if port.host_port in Helper.taken:
            raise HostLimit("port is already allocated")
        self.ports.append(port.host_port)
        return len(self.ports)

    def withdraw(self, number: int) -> None:
        self.ports[number - 1] = 0

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServedNetwork:
    """A network whose helper is a `Helper`."""
    Helper.taken, Helper.started = set(), 0
    monkeypatch.setattr(served_network.slirp4netns, "SharedHelper", Helper)
    monkeypatch.setattr(served_network, "find_helper", lambda name: "/bin/true")
    monkeypatch.setattr(served_network.links, "answer_for_containers", lambda *_: None)
    space = SimpleNamespace(fd=-1, datagrams=socket.socket(), listener=socket.socket(), close=lambda: None)
    served = Served(str(tmp_path))
    (attachment,) = membership("a", names=False).attachments
    return served.networks.setdefault(attachment.network_id, ServedNetwork(attachment, space, served))


def join(network: ServedNetwork, container_id: str, port: int) -> Guest:
    told = membership(container_id)
    told.ports = [Port("0.0.0.0", port, 80)]
    guest = Guest(told, network._served)
    for joined, link in guest.plan_links():
        guest.enter(joined, link)
    return guest


def test_a_port_that_was_lost_costs_nobody_else_the_way_out(network: ServedNetwork) -> None:
    """The helper has ended, and another program has taken a port before the next one runs."""
    first, second = join(network, "a", 81), join(network, "b", 82)
    first.publish(), second.publish()
    network._drop_helper()
    Helper.taken = {81}
    network._reconnect()
    assert network._helper is not None
    assert (network._helper.ports, first.forwards, len(second.forwards)) == ([82], [], 1)
    # it is tried again, by the same helper, until the port is free
    Helper.taken = set()
    network._reconnect()
    assert (network._helper.ports, Helper.started) == ([82, 81], 2)


def test_a_helper_that_ran_for_long_is_replaced_at_once(network: ServedNetwork) -> None:
    join(network, "a", 81)
    delays = []
    for _ in range(9):
        network.connect()
        network._since -= 3600.0
        network._drop_helper()
        network.retry()
        delays.append(network._delay)
    assert max(delays) <= 1.0
