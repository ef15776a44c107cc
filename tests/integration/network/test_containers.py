"""The network of containers as their user meets it: ports, names, modes."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rootless.host.facts import find_helper
from rootless.network import addresses, ports
from tests.conftest import Runner, require, runs

HELPERS = ("pasta", "slirp4netns")


@pytest.fixture(autouse=True)
def _host() -> None:
    require(os.access("/dev/net/tun", os.R_OK | os.W_OK), "no /dev/net/tun")
    require(addresses.host_address(), "this host has no route")


@pytest.fixture
def name(busybox: Runner) -> Iterator[str]:
    """A container's name; the container is removed afterwards."""
    chosen = f"n{time.monotonic_ns()}"
    yield chosen
    busybox("rm", "-f", chosen, check=False)


def _fetch(url: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_the_default_network_passes_on_the_end_of_a_connection(busybox: Runner) -> None:
    """Debian 12's pasta repeats the answer for ever to a client that has closed its own side."""
    address = addresses.host_address()
    assert address is not None
    with socket.create_server((address, 0)) as listener:

        def serve() -> None:
            for _ in range(5):
                connection, _ = listener.accept()
                time.sleep(0.02)
                connection.sendall(b"once\n")
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        client = f"timeout 5 nc {address} {listener.getsockname()[1]} </dev/null"
        script = f"for i in 1 2 3 4 5; do {client} || echo lost; done"
        assert busybox("run", "--rm", "busybox", "sh", "-c", script).stdout == "once\n" * 5


def test_an_ipv6_address_is_published_by_a_helper_that_can(busybox: Runner, name: str) -> None:
    require(find_helper("pasta"), "pasta is not installed")
    busybox("run", "-d", "--name", name, "-p", "[::1]::80", "busybox", "httpd", "-fh", "/etc")
    shown = busybox("port", name).stdout.strip()
    assert "localhost" in _fetch(f"http://[::1]:{shown.rpartition(':')[2]}/hosts")


@pytest.mark.parametrize("helper", HELPERS)
def test_a_published_web_server(busybox: Runner, name: str, helper: str) -> None:
    require(find_helper(helper), f"{helper} is not installed")
    busybox("run", "-d", "--name", name, "--network", helper, "-p", "127.0.0.1::80", "busybox", "httpd", "-fh", "/etc")
    shown = busybox("port", name).stdout.strip()
    assert shown.startswith("80/tcp -> 127.0.0.1:")
    assert "localhost" in _fetch(f"http://127.0.0.1:{shown.rpartition(':')[2]}/hosts")
    settings = json.loads(busybox("inspect", "-f", "{{json .NetworkSettings}}", name).stdout)
    assert settings["IPAddress"] == addresses.CONTAINER
    assert settings["Gateway"] == addresses.GATEWAY


@pytest.mark.parametrize(
    ("option", "address"), [("-T,{port}", "127.0.0.1"), ("--map-gw", addresses.GATEWAY)], ids=["tcp-ns", "map-gw"]
)
def test_options_of_pasta_open_the_host_s_loopback(busybox: Runner, option: str, address: str) -> None:
    require(find_helper("pasta"), "pasta is not installed")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Greeter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_address[1])
        # what comes back through the gateway is lost with the pasta of Debian 12: what arrives is looked at
        fetch = ("--init", "busybox", "timeout", "-s", "KILL", "5", "wget", "-qO-", f"http://{address}:{port}/")
        busybox("run", "--rm", "--network", f"pasta:{option.format(port=port)}", *fetch, check=False)
        assert Greeter.asked.pop(port) == "/"
        busybox("run", "--rm", "--network", "pasta", *fetch, check=False)
        assert port not in Greeter.asked
        server.shutdown()


class Greeter(http.server.BaseHTTPRequestHandler):
    """Notes what is asked for at which port."""

    asked: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        self.asked[str(self.server.server_address[1])] = self.path
        self.send_response(204)
        self.end_headers()


@pytest.mark.parametrize(
    ("text", "says"),
    [("host:x", "use --network=host"), ("pasta:--netns,x", "--map-gw"), ("pasta:-m", "write -m,VALUE")],
)
def test_what_stands_behind_the_colon_is_not_dropped(busybox: Runner, text: str, says: str) -> None:
    failed = busybox("run", "--rm", "--network", text, "busybox", "true", check=False)
    assert failed.returncode == 125
    assert says in failed.stderr


def test_a_port_is_free_again_after_the_container(busybox: Runner, name: str) -> None:
    port = str(ports.free_port())
    run = ("run", "-d", "--name", name, "-p", f"{port}:80", "busybox", "httpd", "-f")
    busybox(*run)
    second = busybox("run", "--rm", "-p", f"{port}:80", "busybox", "true", check=False)
    assert second.returncode == 125
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in second.stderr
    busybox("rm", "-f", name)
    busybox(*run)


def _state(root: Path, busybox: Runner, name: str) -> dict[str, Any]:
    container_id = busybox("inspect", "-f", "{{.Id}}", name).stdout.strip()
    found: dict[str, Any] = json.loads((root / "containers" / container_id / "state.json").read_text())
    return found


def _events(busybox: Runner, name: str) -> list[str]:
    shown = busybox("events", "--since", "10m", "--until", "0s", "-f", f"container={name}", "--format", "{{.Action}}")
    return [action for action in shown.stdout.split() if action.startswith("network")]


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


@pytest.mark.parametrize("image", ["first", "second"])
@pytest.mark.parametrize("helper", HELPERS)
def test_a_helper_that_was_killed_is_started_again(
    busybox: Runner, shared_root: Path, name: str, helper: str, image: str
) -> None:
    require(find_helper(helper), f"{helper} is not installed")
    port = ports.free_port()
    run = ("run", "-d", "--name", name, "--network", helper, "-p", f"127.0.0.1:{port}:80")
    # a monitor with health checks stays the first image of its process
    checks = ("--health-cmd", "true", "--health-interval", "1h") if image == "first" else ()
    busybox(*run, *checks, "busybox", "httpd", "-fh", "/etc")
    before = _state(shared_root, busybox, name)
    if image == "second":
        command = Path(f"/proc/{before['monitor_pid']}/cmdline")
        _until(lambda: b"resume" in command.read_bytes())
    for _ in range(2):
        ((pid, _),) = _state(shared_root, busybox, name)["helpers"]
        os.kill(pid, signal.SIGKILL)
        _until(lambda pid=pid: pid not in [each for each, _ in _state(shared_root, busybox, name)["helpers"]])
        _until(lambda: _state(shared_root, busybox, name)["helpers"])
        assert "localhost" in _fetch(f"http://127.0.0.1:{port}/hosts")
        busybox("exec", name, "ping", "-c", "1", "-W", "1", addresses.CONTAINER)
    assert _events(busybox, name) == ["network_down", "network_up"] * 2
    assert "no network" not in busybox("ps").stdout
    (now,) = _state(shared_root, busybox, name)["helpers"]
    busybox("rm", "-f", name)
    assert not runs(now[0])


def test_a_helper_that_cannot_start_again_is_told(busybox: Runner, shared_root: Path, name: str) -> None:
    port = ports.free_port()
    busybox("run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:80", "busybox", "httpd", "-fh", "/etc")
    state = _state(shared_root, busybox, name)
    os.kill(state["monitor_pid"], signal.SIGSTOP)
    try:
        ((pid, _),) = state["helpers"]
        os.kill(pid, signal.SIGKILL)
        _until(lambda: not runs(pid))
        with _taken(port):
            os.kill(state["monitor_pid"], signal.SIGCONT)
            path = shared_root / "containers" / busybox("inspect", "-f", "{{.Id}}", name).stdout.strip() / "state.json"
            _until(lambda: "already allocated" in path.read_text())
            assert "(no network)" in busybox("ps", "--format", "{{.Status}}").stdout
            assert "already allocated" in busybox("inspect", "-f", "{{.State.Error}}", name).stdout
    finally:
        os.kill(state["monitor_pid"], signal.SIGCONT)
    assert "localhost" in _fetch(f"http://127.0.0.1:{port}/hosts")
    _until(lambda: "(no network)" not in busybox("ps", "--format", "{{.Status}}").stdout)


def test_a_restart_keeps_the_port_that_was_asked_for(busybox: Runner, name: str) -> None:
    port = ports.free_port()
    busybox("run", "-d", "--name", name, "-p", f"{port}:80", "busybox", "httpd", "-fh", "/etc")
    _fetch(f"http://127.0.0.1:{port}/hosts")
    busybox("restart", "-t", "0", name)
    assert "localhost" in _fetch(f"http://127.0.0.1:{port}/hosts")


def _taken(port: int) -> socket.socket:
    """A listener at the port, as soon as the kernel has closed what an ended process had there."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("helper", HELPERS)
def test_names(busybox: Runner, helper: str) -> None:
    require(find_helper(helper), f"{helper} is not installed")
    shown = busybox(
        *(
            "run",
            "--rm",
            "--network",
            helper,
            "-h",
            "web",
            "--add-host",
            "db:10.1.2.3",
            "--add-host",
            "up:host-gateway",
        ),
        *("--dns", "9.9.9.9", "--dns-search", "example.org", "busybox", "cat", "/etc/hosts", "/etc/resolv.conf"),
    ).stdout
    for line in (
        f"{addresses.CONTAINER}\tweb",
        "10.1.2.3\tdb",
        f"{addresses.host_address()}\tup",
        "nameserver 9.9.9.9",
        "search example.org",
    ):
        assert line in shown.splitlines()


def test_without_a_network(busybox: Runner) -> None:
    shown = busybox("run", "--rm", "--network", "none", "busybox", "ip", "-o", "address").stdout
    assert "127.0.0.1/8" in shown
    assert all(line.split()[1] == "lo" for line in shown.splitlines())


def test_the_hosts_network(busybox: Runner) -> None:
    shown = busybox("run", "--rm", "--network", "host", "busybox", "ip", "-o", "address").stdout
    assert str(addresses.host_address()) in shown


def test_the_network_of_another_container(busybox: Runner, name: str) -> None:
    busybox("run", "-d", "--name", name, "busybox", "httpd", "-fh", "/etc")
    shown = busybox(
        "run", "--rm", "--network", f"container:{name}", "busybox", "wget", "-qO-", "http://127.0.0.1/hosts"
    ).stdout
    assert "localhost" in shown


@pytest.mark.parametrize("text", ["80:", "localhost:1:2", "80/sctp", "1-3:1-2"])
def test_wrong_ports(busybox: Runner, text: str) -> None:
    failed = busybox("run", "--rm", "-p", text, "busybox", "true", check=False)
    assert failed.returncode == 125
    assert "rootless: " in failed.stderr


def test_a_low_port_names_the_remedy(busybox: Runner) -> None:
    require(ports.unprivileged_port_start() > 80, "low ports are free for everybody here")
    failed = busybox("run", "--rm", "-p", "80:80", "busybox", "true", check=False)
    assert failed.returncode == 125
    assert "sysctl -w net.ipv4.ip_unprivileged_port_start=80" in failed.stderr
