"""pasta and slirp4netns for real: a namespace of our own, connected, published, isolated, cleaned up."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from rootless.errors import HostLimit
from rootless.host.facts import find_helper
from rootless.kernel.namespaces import OpenNetwork
from rootless.network import addresses, mode, modes, pasta, ports, slirp4netns
from rootless.network.helper import Helper
from rootless.network.helper_trial import try_helper
from rootless.records.port import Port
from tests.conftest import require, runs

AGENT = Path(__file__).with_name("agent.py")
HOST = addresses.host_address()


class Namespace:
    """A process in a network namespace that does what it is asked."""

    def __init__(self, uid: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(AGENT), str(uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"
        self.pid = self.process.pid

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return str(json.loads(self.process.stdout.readline()))

    def __call__(self, *command: object) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def _usable(module: ModuleType) -> None:
    require(find_helper(module.PROGRAM), f"{module.PROGRAM} is not installed")
    require(os.access("/dev/net/tun", os.R_OK | os.W_OK), "no /dev/net/tun")
    require(HOST, "this host has no route")


@pytest.fixture(params=[pasta, slirp4netns], ids=["pasta", "slirp4netns"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    _usable(request.param)
    chosen: ModuleType = request.param
    return chosen


@pytest.fixture(params=[0, 1000], ids=["root", "keep-id"])
def namespace(request: pytest.FixtureRequest) -> Iterator[Namespace]:
    made = Namespace(request.param)
    yield made
    made.close()


def _begin(module: ModuleType, pid: int, *published: Port) -> Helper:
    opened = OpenNetwork.of_process(pid)
    try:
        helper = modes.recorded_mode(module.PROGRAM).start(opened, published)
    finally:
        opened.close()
    assert helper is not None
    return helper


@pytest.fixture
def start(module: ModuleType) -> Iterator[Callable[..., Helper]]:
    started: list[Helper] = []

    def begin(namespace: Namespace, *published: Port, ready: bool = True) -> Helper:
        helper: Helper = _begin(module, namespace.pid, *published)
        started.append(helper)
        if ready:
            helper.ready()
        return helper

    yield begin
    for helper in started:
        helper.stop()


def _serve(address: str, answer: bytes) -> int:
    """A TCP server of the host; its port."""
    server = socket.create_server((address, 0))

    def loop() -> None:
        while True:
            connection, _ = server.accept()
            connection.sendall(answer)
            connection.close()

    threading.Thread(target=loop, daemon=True).start()
    return int(server.getsockname()[1])


def _fetch(address: str, port: int) -> str:
    with socket.create_connection((address, port), timeout=20) as s:
        s.settimeout(20)
        text = s.recv(100).decode()
        s.sendall(b".")
        return text


def _query(address: str, port: int) -> str:
    """What a UDP server answers; datagrams may be lost, so a few are sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        for _ in range(20):
            client.sendto(b"x", (address, port))
            try:
                return client.recv(100).decode()
            except TimeoutError:
                continue
    raise TimeoutError("no answer")


@functools.cache
def _flaw(program: str) -> str:
    """What the trial of the helper finds; it is tried once for all tests."""
    found = try_helper(next(helper for helper in modes.HELPERS if helper.name == program), "/tmp")
    assert found.works, found.detail
    return found.flaw


def test_configures_address_route_and_mtu(namespace: Namespace, start: Callable[..., Helper]) -> None:
    start(namespace)
    shown = namespace("run", "ip", "-o", "address", "show", "dev", addresses.INTERFACE)
    assert f"{addresses.CONTAINER}/{addresses.PREFIX}" in shown
    assert f"mtu {addresses.MTU}" in namespace("run", "ip", "-o", "link", "show", "dev", addresses.INTERFACE)
    assert f"default via {addresses.GATEWAY}" in namespace("run", "ip", "route")
    assert "127.0.0.1/8" in namespace("run", "ip", "-o", "address", "show", "dev", "lo")


def test_the_hosts_loopback_is_out_of_reach(namespace: Namespace, start: Callable[..., Helper]) -> None:
    port = _serve("127.0.0.1", b"secret")
    start(namespace)
    for address in ("127.0.0.1", addresses.GATEWAY, addresses.DNS, "10.0.2.2", "169.254.1.2", "0.0.0.0"):
        assert namespace("connect", address, port).startswith("error"), address
    assert HOST is not None
    assert namespace("connect", HOST, port).startswith("error")


def test_the_host_is_reached_at_its_address(namespace: Namespace, start: Callable[..., Helper]) -> None:
    """What host.docker.internal and host-gateway stand for."""
    assert HOST is not None
    port = _serve(HOST, b"hello")
    start(namespace)
    assert namespace("connect", HOST, port) == "hello"


def test_nothing_is_forwarded_unasked(namespace: Namespace, start: Callable[..., Helper]) -> None:
    """pasta's own default opens every port that listens inside (`-t auto`) and the host's to the inside (`-T auto`)."""
    port = ports.free_port()
    start(namespace)
    assert namespace("tcp", max(port, 1024)) == "ok"
    time.sleep(1.2)  # pasta looks for new ports every second
    with pytest.raises(OSError):
        _fetch("127.0.0.1", port)


def _are_free(*numbers: int) -> bool:
    """Whether no other test, which may run at the same time, has one of these TCP ports."""
    for number in numbers:
        with socket.socket() as trial:
            try:
                trial.bind(("0.0.0.0", number))
            except OSError:
                return False
    return True


def test_tcp_range_and_udp(module: ModuleType, namespace: Namespace, start: Callable[..., Helper]) -> None:
    first = 0
    while not (1024 < first < 65000 and _are_free(first, first + 1, first + 2)):
        first = ports.free_port()
    published = [*ports.parse_publish(f"{first}-{first + 2}:8090-8092"), *ports.parse_publish("5353/udp")]
    for number in (8090, 8091, 8092):
        assert namespace("tcp", number) == "ok"
    assert namespace("udp", 5353) == "ok"
    helper = start(namespace, *published)
    for host_port in (first, first + 1, first + 2):
        assert _fetch("127.0.0.1", host_port)
    assert HOST is not None
    if not _flaw(module.PROGRAM):
        assert _fetch(HOST, first + 1) == HOST  # the client's address is kept
    udp_port = next(p.host_port for p in helper.ports if p.protocol == "udp")
    assert udp_port
    assert helper.facts.ports[3].host_port == udp_port
    assert _query(HOST, udp_port) == HOST


def test_a_host_address_limits_who_can_connect(namespace: Namespace, start: Callable[..., Helper]) -> None:
    port = ports.free_port("127.0.0.1")
    assert namespace("tcp", 8080) == "ok"
    start(namespace, Port("127.0.0.1", port, 8080))
    assert _fetch("127.0.0.1", port)
    assert HOST is not None
    with pytest.raises(OSError):
        _fetch(HOST, port)


def test_connections_do_not_come_from_the_loopback(
    module: ModuleType, namespace: Namespace, start: Callable[..., Helper]
) -> None:
    """CVE-2021-20199: a service that trusts 127.0.0.1 must not trust the outside."""
    if _flaw(module.PROGRAM):
        pytest.xfail("an old pasta shows loopback clients as 127.0.0.1; slirp4netns is chosen before it")
    port = ports.free_port()
    assert namespace("tcp", 8080) == "ok"
    start(namespace, Port("", port, 8080))
    assert not addresses.is_loopback(_fetch("127.0.0.1", port))


def test_clients_beyond_the_loopback_never_come_from_it(
    module: ModuleType, namespace: Namespace, start: Callable[..., Helper]
) -> None:
    """CVE-2021-20199, for every version: what is not on this host never has a loopback address inside."""
    port = ports.free_port()
    assert namespace("udp", 8080) == "ok"
    start(namespace, Port("", port, 8080, "udp"))
    assert HOST is not None
    assert not addresses.is_loopback(_query(HOST, port))


def test_a_busy_port(namespace: Namespace, start: Callable[..., Helper]) -> None:
    port = _serve("0.0.0.0", b"")
    with pytest.raises(HostLimit, match=f"Bind for 0.0.0.0:{port} failed: port is already allocated") as caught:
        start(namespace, Port("", port, 80))
    assert caught.value.exit_code == 125


def test_a_port_that_gets_busy_meanwhile(
    module: ModuleType, namespace: Namespace, start: Callable[..., Helper], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper's own failure: between our test of the port and its bind somebody took it."""
    if module is pasta:
        pytest.xfail("pasta is content when it can bind the port for one of IPv4 and IPv6")
    port = _serve("0.0.0.0", b"")
    monkeypatch.setattr(ports, "allocate_ports", list)
    with pytest.raises(HostLimit, match="already allocated"):
        start(namespace, Port("", port, 80))


def test_stop_and_second_calls(namespace: Namespace, start: Callable[..., Helper]) -> None:
    helper = start(namespace)
    pid = helper.pid
    helper.ready()
    assert helper.facts.ip == addresses.CONTAINER
    helper.stop()
    helper.stop()
    assert not Path(f"/proc/{pid}").exists()


def test_stop_before_it_is_ready(namespace: Namespace, start: Callable[..., Helper]) -> None:
    helper = start(namespace, ready=False)
    pid = helper.pid
    helper.stop()
    assert not Path(f"/proc/{pid}").exists()


def test_it_dies_with_its_parent(module: ModuleType, namespace: Namespace) -> None:
    """kill -9 of a monitor leaves no helper, though capabilities grow when it enters the user namespace."""
    code = (
        f"import sys, time; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "from rootless.kernel.namespaces import OpenNetwork\n"
        "from rootless.network.modes import recorded_mode\n"
        f"h = recorded_mode({module.PROGRAM!r}).start(OpenNetwork.of_process({namespace.pid})); h.ready()\n"
        "print(h.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 60
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not runs(pid)


def test_started_with_ignored_and_blocked_signals(namespace: Namespace, start: Callable[..., Helper]) -> None:
    """Python ignores SIGPIPE, which pasta of 2023 takes for a failure; a monitor may block others."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGPIPE, signal.SIGCHLD)}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        helper = start(namespace)
        status = Path(f"/proc/{helper.pid}/status").read_text()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in before.items():
            signal.signal(number, handler)
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith(("SigBlk", "SigIgn")))
    assert not int(masks["SigBlk"], 16) & 1 << signal.SIGTERM - 1
    assert not int(masks["SigIgn"], 16) & 1 << signal.SIGCHLD - 1
    helper.stop()


def test_a_process_that_is_gone_after_its_network_was_opened(
    module: ModuleType, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OpenNetwork.of_process(namespace.pid)
    namespace.close()
    monkeypatch.setattr(OpenNetwork, "of_process", lambda pid: opened)
    helper = _begin(module, namespace.pid)
    helper.ready()
    helper.stop()


def test_a_process_without_a_network_of_its_own(module: ModuleType) -> None:
    """Joining would configure the host's own network."""
    with pytest.raises(HostLimit, match="our own"):
        _begin(module, os.getpid())


def test_the_helper_is_missing(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode, "find_helper", lambda name: None)
    with pytest.raises(HostLimit, match="not installed") as caught:
        _begin(module, os.getpid())
    assert "--network=host" in str(caught.value.hint)


def test_the_helper_fails_with_its_own_words(
    module: ModuleType, namespace: Namespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'the sky falls' >&2\nexit 1\n")
    broken.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setattr(mode, "find_helper", lambda name: str(broken))
    with pytest.raises(HostLimit, match="the sky falls") as caught:
        _begin(module, namespace.pid).ready()
    assert "rootless doctor" in str(caught.value.hint)


def test_no_tun(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *args: False)
    monkeypatch.setattr(mode, "find_helper", lambda name: f"/usr/bin/{name}")
    with pytest.raises(HostLimit, match="/dev/net/tun") as caught:
        _begin(module, os.getpid())
    assert "modprobe tun" in str(caught.value.hint)
