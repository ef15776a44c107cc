"""Networks with names as their user meets them."""

from __future__ import annotations

import http.server
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rootless import paths
from rootless.host.facts import find_helper
from rootless.network import addresses, ports
from tests.conftest import Runner, require


@pytest.fixture
def net(busybox: Runner) -> Iterator[str]:
    """The name of a network that is not there yet; it is removed afterwards."""
    chosen = f"net{time.monotonic_ns()}"
    yield chosen
    busybox("network", "rm", "-f", chosen, check=False)


@pytest.mark.once
def test_a_network_is_made_shown_and_removed(busybox: Runner, net: str) -> None:
    made = busybox("network", "create", "--label", "a=b", "-o", "mtu=1400", "--internal", net).stdout.strip()
    assert len(made) == 64
    (shown,) = json.loads(busybox("network", "inspect", made[:12]).stdout)
    (config,) = shown["IPAM"]["Config"]
    assert (shown["Name"], shown["Id"], shown["Driver"], shown["Scope"]) == (net, made, "bridge", "local")
    assert (shown["Labels"], shown["Options"], shown["Internal"]) == ({"a": "b"}, {"mtu": "1400"}, True)
    assert config["Gateway"] == config["Subnet"].replace(".0/24", ".1")
    rows = busybox("network", "ls", "--format", '{{.Name}} {{.Driver}} {{.Scope}} {{.Label "a"}}').stdout.splitlines()
    assert f"{net} bridge local b" in rows
    assert {"bridge bridge local ", "host host local ", "none null local "} <= set(rows)
    custom = busybox("network", "ls", "-q", "-f", "type=custom", "-f", "label=a", "-f", f"name={net}").stdout.split()
    assert custom == [made[:12]]
    assert busybox("network", "exists", net).returncode == 0
    assert json.loads(busybox("inspect", "--type", "network", net).stdout)[0]["Id"] == made
    assert busybox("network", "rm", net).stdout.strip() == net
    assert busybox("network", "exists", net, check=False).returncode == 1
    events = busybox("events", "--since", "1m", "--until", "0s", "-f", f"network={made}", "--format", "{{.Action}}")
    assert events.stdout.split() == ["create", "destroy"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("create", "bridge"), 125, "operation is not permitted on predefined bridge network"),
        (("create", "-d", "macvlan", "x"), 125, "CAP_NET_ADMIN"),
        (("create", "-d", "nosuch", "x"), 125, 'plugin "nosuch" not found'),
        (("create", "--ipv6", "x"), 125, "no IPv6 yet"),
        (("create", "--subnet", "10.91.1.7/24", "x"), 125, "it should be 10.91.1.0/24"),
        (("create", "--gateway", "10.91.1.1", "x"), 125, "no matching subnet for gateway 10.91.1.1"),
        (("create", "--subnet", "10.91.1.0/24", "--gateway", "10.92.1.1", "x"), 125, "no matching subnet"),
        (("create", "-o", "colour=red", "x"), 125, "not supported"),
        (("create", "../x"), 125, "invalid network name"),
        (("rm", "bridge"), 1, "bridge is a pre-defined network and cannot be removed"),
        (("rm", "nosuch"), 1, "network nosuch not found"),
        (("inspect", "nosuch"), 1, "network nosuch not found"),
        (("connect", "nosuch", "b"), 1, "network nosuch not found"),
        (("reload",), 125, "no such command 'reload'"),
    ],
)
def test_what_cannot_be_is_refused(busybox: Runner, words: tuple[str, ...], code: int, says: str) -> None:
    failed = busybox("network", *words, check=False)
    assert (failed.returncode, says in failed.stderr) == (code, True), failed.stderr


@pytest.mark.once
def test_two_networks_share_neither_name_nor_address(busybox: Runner, net: str) -> None:
    busybox("network", "create", "--subnet", "10.97.3.0/24", net)
    again = busybox("network", "create", net, check=False)
    assert (again.returncode, f"network with name {net} already exists" in again.stderr) == (1, True)
    overlap = busybox("network", "create", "--subnet", "10.97.0.0/16", f"{net}b", check=False)
    assert (overlap.returncode, "Pool overlaps with other one on this address space" in overlap.stderr) == (1, True)


@pytest.mark.once
def test_prune_removes_what_nobody_uses(busybox: Runner, net: str) -> None:
    busybox("network", "create", "--label", net, net)
    kept = busybox("network", "prune", "-f", "--filter", "label=other").stdout
    assert net not in kept
    assert busybox("network", "prune", "-f", "--filter", f"label={net}").stdout == f"Deleted Networks:\n{net}\n"


@pytest.mark.once
def test_a_network_whose_record_is_damaged_is_named_and_can_be_removed(
    busybox: Runner, shared_root: Path, net: str
) -> None:
    busybox("network", "create", net)
    path = shared_root / "networks" / f"{net}.json"
    good = path.read_text()
    for damaged in (
        "{",
        good.replace('"subnet":"', '"subnet":"x'),
        good.replace('"gateway":"', '"gateway":"1'),
        good.replace('"ip_range":"', '"ip_range":"10.0.0.0/8'),
    ):
        path.write_text(damaged)
        refused = busybox("run", "--rm", "--network", net, "busybox", "true", check=False)
        assert (refused.returncode, str(path) in refused.stderr) == (125, True), refused.stderr
        # nobody else is kept from his networks
        busybox("network", "create", f"{net}b")
        busybox("network", "rm", f"{net}b")
        assert net not in busybox("network", "ls", "-f", f"name={net}").stdout
    busybox("network", "rm", net)
    assert not path.exists()


HOST = addresses.host_address() or ""
Containers = Callable[..., str]


@pytest.fixture
def networks(busybox: Runner, request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Makes networks with the options given, and removes them afterwards with what is on them."""
    made: list[str] = []

    def make(*options: str) -> str:
        require(os.access("/dev/net/tun", os.R_OK | os.W_OK) and HOST, "no /dev/net/tun, or no route")
        require(find_helper("slirp4netns"), "slirp4netns is not installed")
        made.append(f"net{time.monotonic_ns()}")
        busybox("network", "create", *options, made[-1])
        return made[-1]

    yield make
    for name in made:
        on_it = busybox("ps", "-aq", "-f", f"network={name}").stdout.split()
        if on_it:
            busybox("rm", "-f", *on_it, check=False)
        busybox("network", "rm", "-f", name, check=False)


def serve(busybox: Runner, name: str, *options: str) -> str:
    """Start a container whose web server gives out its host name; returns its id."""
    return busybox("run", "-d", "--name", name, *options, "busybox", "httpd", "-fh", "/etc").stdout.strip()


def fetch(port: int, *, host: str = "127.0.0.1") -> str:
    """What the web server behind a published port gives out."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://{host}:{port}/hostname", timeout=10) as answer:
                return answer.read().decode().strip()
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def ask(busybox: Runner, container: str, name: str) -> list[str]:
    """The addresses that a name has in a container, or the names of an address."""
    kind = ["-type=a"] if not name[0].isdigit() else []
    shown = busybox("exec", container, "nslookup", *kind, name, check=False).stdout
    found = [line.split()[-1] for line in shown.splitlines() if line.startswith("Address:") and ":53" not in line]
    return sorted(found or [line.rpartition("name = ")[2] for line in shown.splitlines() if "name = " in line])


def address(busybox: Runner, container: str, net: str) -> str:
    """The address of a container on a network."""
    shown = busybox("inspect", "-f", "{{json .NetworkSettings.Networks}}", container).stdout
    return str(json.loads(shown)[net]["IPAddress"])


def get(busybox: Runner, container: str, host: str, *, port: int = 80) -> str:
    """What the web server at an address gives out to a container; "" when it cannot be reached."""
    done = busybox("exec", container, "timeout", "2", "wget", "-qO-", f"http://{host}:{port}/hostname", check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def process(name: str, directory: str) -> list[int]:
    """Processes of ours with this name that serve the networks of this store."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            is_wanted = name.encode() in b" ".join(command[:8]) and directory.encode() in b" ".join(command)
            if entry.name.isdigit() and is_wanted and entry.stat().st_uid in (os.getuid(), 0):
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def left_sockets() -> list[Path]:
    """Directories of the sockets of helpers that serve a network with a name."""
    return [path for parent in (paths.runtime_base() or "/tmp", "/tmp") for path in Path(parent).glob("slirp-*-*")]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_containers_find_each_other_by_name(busybox: Runner, networks: Containers) -> None:
    front, back = networks(), networks("--internal")
    tag = f"{time.monotonic_ns()}"
    web, db, cache = f"Web{tag}", f"db{tag}", f"cache{tag}"
    web_id = serve(busybox, web, "--network", f"{front}:alias=www,alias=x")
    db_id = serve(busybox, db, "--network", front, "--network", f"name={back},alias=store", "--network-alias", "x")
    serve(busybox, cache, "--network", back, "--hostname", "elsewhere")
    first, second = address(busybox, web, front), address(busybox, db, front)
    for name in (web, web.lower(), f"{web_id[:12]}.{front}", "www", f"www.{front}", "WWW"):
        assert ask(busybox, db, name) == [first], name
    assert ask(busybox, web, "x") == sorted([first, second])
    assert ask(busybox, web, first) == [f"{web}.{front}"]
    assert get(busybox, web, second) == db_id[:12]
    # a name is known on the networks that both share, and nowhere else
    assert ask(busybox, cache, web) == []
    assert ask(busybox, cache, "store") == [address(busybox, db, back)]
    assert ask(busybox, web, "store") == []
    assert sorted(ask(busybox, db, cache)) == [address(busybox, cache, back)]
    assert busybox("exec", db, "ping", "-c1", web).returncode == 0
    lines = busybox("exec", db, "cat", "/etc/hosts").stdout.splitlines()
    assert [f"{second}\t{db_id[:12]}", f"{address(busybox, db, back)}\t{db_id[:12]}"] == lines[-2:]
    busybox("rename", web, f"new{tag}")
    assert (ask(busybox, db, f"new{tag}"), ask(busybox, db, web)) == ([first], [])
    busybox("restart", "-t", "0", f"new{tag}")
    assert ask(busybox, db, f"new{tag}") == [address(busybox, f"new{tag}", front)]


def test_networks_do_not_reach_each_other(busybox: Runner, networks: Containers) -> None:
    one, two, inner = networks(), networks(), networks("--internal")
    tag = f"{time.monotonic_ns()}"
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Greeter) as loopback,
        http.server.ThreadingHTTPServer((HOST, 0), Greeter) as outside,
    ):
        for server in (loopback, outside):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        a = serve(busybox, f"a{tag}", "--network", one)
        b = serve(busybox, f"b{tag}", "--network", two)
        c = serve(busybox, f"c{tag}", "--network", inner)
        assert get(busybox, a, HOST, port=outside.server_port) == "greeting"
        assert get(busybox, b, address(busybox, b, two)) == b[:12]  # its server is up
        for source in (a, c):
            assert get(busybox, source, address(busybox, b, two)) == ""
        assert get(busybox, c, HOST, port=outside.server_port) == ""
        assert "default" not in busybox("exec", c, "ip", "route").stdout
        gateway = json.loads(busybox("network", "inspect", one).stdout)[0]["IPAM"]["Config"][0]["Gateway"]
        # neither the gateway, nor the helper behind it, is a way to what the host offers to itself only
        for host in (gateway, addresses.GATEWAY, addresses.DNS, addresses.CONTAINER):
            assert get(busybox, a, host, port=loopback.server_port) == ""
        for server in (loopback, outside):
            server.shutdown()


class Greeter(http.server.BaseHTTPRequestHandler):
    """Says something to everybody who gets through."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"greeting")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_no_container_takes_the_address_of_another(busybox: Runner, networks: Containers) -> None:
    """By a second address, by ARP, or by packets with another source; nor that of the name server."""
    net = networks()
    tag = f"{time.monotonic_ns()}"
    victim = serve(busybox, f"v{tag}", "--network", net)
    witness = serve(busybox, f"w{tag}", "--network", net)
    thief = serve(busybox, f"t{tag}", "--network", net, "--cap-add", "NET_ADMIN")
    target, seen = address(busybox, victim, net), address(busybox, witness, net)
    gateway = seen.rpartition(".")[0] + ".1"
    for stolen in (target, gateway):
        busybox("exec", thief, "ip", "addr", "add", f"{stolen}/32", "dev", "eth0")
        busybox("exec", thief, "arping", "-c", "1", "-U", "-I", "eth0", "-s", stolen, stolen, check=False)
        # what it sends with the other address as its source is dropped
        answered = busybox("exec", thief, "ping", "-c1", "-W1", "-I", stolen, seen, check=False)
        assert answered.returncode != 0
        if stolen == target:  # a container that takes the gateway's address loses its own way to the gateway
            busybox("exec", thief, "ping", "-c1", "-W5", "-I", address(busybox, thief, net), seen)
    assert get(busybox, witness, target) == victim[:12]
    assert ask(busybox, witness, f"v{tag}") == [target]


def test_ports_of_containers_on_a_network(busybox: Runner, networks: Containers) -> None:
    net = networks()
    tag = f"{time.monotonic_ns()}"
    port, other = ports.free_port(), ports.free_port("127.0.0.1")
    web = serve(busybox, f"p{tag}", "--network", net, "-p", f"{port}:80", "-p", f"127.0.0.1:{other}:80")
    assert (fetch(port), fetch(port, host=HOST), fetch(other)) == (web[:12],) * 3
    assert busybox("port", web, "80").stdout.split() == [f"0.0.0.0:{port}", f"127.0.0.1:{other}"]
    # a container reaches published ports, its own among them, by the host's address
    assert get(busybox, web, HOST, port=port) == web[:12]
    taken = busybox("run", "--rm", "--network", net, "-p", f"{port}:80", "busybox", "true", check=False)
    assert taken.returncode == 125
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in taken.stderr
    # ports come and go while the helper runs, and other containers keep theirs
    second = ports.free_port()
    late = serve(busybox, f"q{tag}", "--network", net, "-p", f"{second}:80")
    assert fetch(second) == late[:12]
    busybox("rm", "-f", late)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{second}/hostname", timeout=5)
    assert fetch(port) == web[:12]


@pytest.mark.once
def test_addresses_that_are_asked_for(busybox: Runner, networks: Containers) -> None:
    net = networks("--subnet", "10.96.7.0/24", "--ip-range", "10.96.7.128/30", "-o", "mtu=1400")
    tag = f"{time.monotonic_ns()}"
    own = ("--network", net, "--ip", "10.96.7.50", "--mac-address", "02:00:00:00:00:05")
    shown = busybox("run", "--name", f"i{tag}", "--rm", *own, "busybox", "ip", "addr", "show", "dev", "eth0").stdout
    assert "inet 10.96.7.50/24" in shown
    assert "02:00:00:00:00:05" in shown
    assert "mtu 1400" in shown
    names = [f"r{number}{tag}" for number in range(4)]
    found = [address(busybox, serve(busybox, name, "--network", net), net) for name in names]
    assert found == [f"10.96.7.{number}" for number in (128, 129, 130, 131)]
    full = busybox("run", "--rm", "--network", net, "busybox", "true", check=False)
    assert (full.returncode, "no available IPv4 addresses" in full.stderr) == (125, True)
    taken = busybox("run", "--rm", "--network", f"{net}:ip=10.96.7.129", "busybox", "true", check=False)
    assert (taken.returncode, "Address already in use" in taken.stderr) == (125, True)
    busybox("rm", "-f", names[1])
    again = busybox("run", "--rm", "--network", net, "busybox", "hostname", "-i").stdout.split()
    assert again == ["10.96.7.129"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--network", "nosuch"), "network nosuch not found"),
        (("--network", "NET:ip=10.1.2.3"), "no configured subnet contains IP address 10.1.2.3"),
        (("--network", "NET", "--network", "host"), "cannot attach both user-defined and non-user-defined"),
        (("--network", "NET", "--network", "NET"), "is specified multiple times"),
        (("--network", "NET:colour=red"), "invalid field 'colour=red'"),
        (("--network", "NET", "--mac-address", "01:00:00:00:00:01"), "is not a valid mac address"),
        (("--network", "NET", "--ip", "x"), "invalid IPv4 address"),
        (("--network", "NET", "--network-alias", "-x"), "invalid network alias name"),
        (("--network", "NET", "--runtime", "/bin/true"), "own runtime only"),
        (("--network-alias", "x"), "supported on user defined networks only"),
        (("--ip", "10.1.2.3"), "supported on user defined networks only"),
    ],
)
def test_what_run_refuses(busybox: Runner, net: str, options: tuple[str, ...], says: str) -> None:
    busybox("network", "create", net)
    words = [word.replace("NET", net) for word in options]
    failed = busybox("run", "--rm", *words, "busybox", "true", check=False)
    assert (failed.returncode, says in failed.stderr) == (125, True), failed.stderr


@pytest.mark.once
def test_a_network_in_use_stays(busybox: Runner, networks: Containers) -> None:
    net = networks()
    name = f"u{time.monotonic_ns()}"
    serve(busybox, name, "--network", net)
    assert busybox("ps", "-f", f"network={net}", "--format", "{{.Names}} {{.Networks}}").stdout == f"{name} {net}\n"
    (shown,) = json.loads(busybox("network", "inspect", net).stdout)
    (on_it,) = shown["Containers"].values()
    assert (on_it["Name"], on_it["IPv4Address"]) == (name, f"{address(busybox, name, net)}/24")
    kept = busybox("network", "rm", net, check=False)
    assert (kept.returncode, "has active endpoints" in kept.stderr) == (1, True)
    busybox("stop", "-t", "0", name)
    assert net not in busybox("network", "prune", "-f").stdout
    busybox("network", "rm", net)
    lost = busybox("start", name, check=False)
    assert (lost.returncode, f"network {net} not found" in lost.stderr) == (125, True)
    busybox("rm", "-f", name)


@pytest.mark.parametrize("image", ["first", "second"])
def test_what_serves_networks_is_replaced_when_it_is_killed(
    busybox: Runner, shared_root: Path, networks: Containers, image: str
) -> None:
    net = networks()
    tag = f"{time.monotonic_ns()}"
    port = ports.free_port()
    before = left_sockets()
    # a monitor with health checks stays the first image of its process
    checks = ("--health-cmd", "true", "--health-interval", "1h") if image == "first" else ()
    web = serve(busybox, f"k{tag}", "--network", net, "-p", f"{port}:80", *checks)
    peer = serve(busybox, f"l{tag}", "--network", net, *checks)
    if image == "second":
        for one in (web, peer):
            state = json.loads((shared_root / "containers" / one / "state.json").read_text())
            command = Path(f"/proc/{state['monitor_pid']}/cmdline")
            until(lambda command=command: b"resume" in command.read_bytes())
    for _ in range(2):
        (hub,) = process("network.shared.hub", str(shared_root))
        os.kill(hub, signal.SIGKILL)
        assert get(busybox, peer, address(busybox, web, net)) == web[:12]
        until(lambda hub=hub: process("network.shared.hub", str(shared_root)) not in ([], [hub]))
        until(lambda: ask(busybox, peer, f"k{tag}"))
        assert fetch(port) == web[:12]
    late = serve(busybox, f"m{tag}", "--network", net)
    assert get(busybox, late, address(busybox, web, net)) == web[:12]
    busybox("rm", "-f", web, peer, late)
    until(lambda: not process("network.shared.hub", str(shared_root)))  # nothing runs when no container runs
    assert [path for path in left_sockets() if path not in before] == []


def test_many_containers_join_at_once(busybox: Runner, networks: Containers) -> None:
    net = networks()
    names = [f"j{number}x{time.monotonic_ns()}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: serve(busybox, name, "--network", net), names))
    found = {address(busybox, name, net) for name in names}
    assert len(found) == len(names)
    assert ask(busybox, names[0], names[-1]) == [address(busybox, names[-1], net)]


def test_a_container_that_runs_joins_and_leaves_networks(
    busybox: Runner, shared_root: Path, networks: Containers
) -> None:
    one, two, inner = networks(), networks(), networks("--internal")
    tag = f"{time.monotonic_ns()}"
    port = ports.free_port()
    web, peer = f"y{tag}", f"z{tag}"
    web_id = serve(busybox, web, "--network", one, "-p", f"{port}:80")
    serve(busybox, peer, "--network", inner)
    busybox("network", "connect", "--alias", "late", inner, web)
    assert ask(busybox, peer, "late") == [address(busybox, web, inner)]
    assert get(busybox, peer, address(busybox, web, inner)) == web_id[:12]
    # the way out, and with it the ports, goes over to the next network that has one
    busybox("network", "connect", two, web)
    busybox("network", "disconnect", one, web)
    assert fetch(port) == web_id[:12]
    assert get(busybox, web, HOST, port=port) == web_id[:12]
    own = [address(busybox, web, net) for net in (inner, two)]
    lines = busybox("exec", web, "cat", "/etc/hosts").stdout.rstrip().splitlines()
    assert lines[-2:] == [f"{one}\t{web_id[:12]}" for one in own]
    assert busybox("exec", web, "ping", "-c1", peer).returncode == 0
    again = busybox("network", "connect", two, web, check=False)
    assert (again.returncode, f"already exists in network {two}" in again.stderr) == (1, True)
    gone = busybox("network", "disconnect", one, web, check=False)
    assert (gone.returncode, f"is not connected to the network {one}" in gone.stderr) == (1, True)
    # what serves the networks is replaced and finds them again, and so does a restart
    (hub,) = process("network.shared.hub", str(shared_root))
    os.kill(hub, signal.SIGKILL)
    until(lambda: ask(busybox, peer, "late"))
    assert fetch(port) == web_id[:12]
    busybox("restart", "-t", "0", web)
    assert fetch(port) == web_id[:12]
    assert ask(busybox, peer, "late") == [address(busybox, web, inner)]
    for net in (inner, two):
        busybox("network", "disconnect", net, web)
    assert "eth" not in busybox("exec", web, "ip", "link").stdout
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/hostname", timeout=5)
    busybox("network", "connect", one, web)
    assert fetch(port) == web_id[:12]
    shown = busybox("events", "--since", "5m", "--until", "0s", "-f", f"network={one}", "--format", "{{.Action}}")
    assert shown.stdout.split() == ["create", "connect", "disconnect", "connect"]


@pytest.mark.once
def test_changes_of_one_container_at_once_agree(busybox: Runner, networks: Containers) -> None:
    nets = [networks() for _ in range(4)]
    name = f"at{time.monotonic_ns()}"
    serve(busybox, name, "--network", nets[0])
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda net: busybox("network", "connect", net, name), nets[1:]))
    assert all(address(busybox, name, net) for net in nets)
    # the records know of all, and so each of them can be left
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda net: busybox("network", "disconnect", net, name), nets[1:]))
    assert busybox("exec", name, "ls", "/sys/class/net").stdout.split() == ["eth0", "lo"]


@pytest.mark.once
def test_a_container_with_a_default_route_of_its_own_leaves_a_network(busybox: Runner, networks: Containers) -> None:
    """It has CAP_NET_ADMIN: what it does to its own routes must not part the records from what is."""
    one, two = networks(), networks()
    name = f"own{time.monotonic_ns()}"
    serve(busybox, name, "--network", one, "--network", two, "--cap-add", "NET_ADMIN")
    gateway = address(busybox, name, two).rpartition(".")[0] + ".1"
    busybox("exec", name, "ip", "route", "replace", "default", "via", gateway)
    left = busybox("network", "disconnect", one, name)
    assert "has no default route by another network" in left.stderr
    networks_now = json.loads(busybox("inspect", "-f", "{{json .NetworkSettings.Networks}}", name).stdout)
    assert list(networks_now) == [two]
    busybox("network", "connect", one, name)
    assert busybox("exec", name, "ls", "/sys/class/net").stdout.split() == ["eth0", "eth1", "lo"]


@pytest.mark.once
def test_a_container_leaves_the_network_in_which_it_asked_for_an_address(busybox: Runner, networks: Containers) -> None:
    one, two = networks(), networks()
    name = f"ip{time.monotonic_ns()}"
    subnet = busybox("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", one).stdout
    own = f"{subnet.rpartition('.')[0]}.77"
    busybox("create", "--name", name, "--network", one, "--network", two, "--ip", own, "busybox", "true")
    for left, kept in ((one, [two]), (two, [])):
        busybox("network", "disconnect", left, name)
        shown = json.loads(busybox("inspect", "-f", "{{json .NetworkSettings.Networks}}", name).stdout)
        assert [net for net in shown if net in (one, two)] == kept
    busybox("network", "connect", two, name)


@pytest.mark.once
def test_who_can_neither_join_nor_leave(busybox: Runner, networks: Containers) -> None:
    net, other = networks(), networks()
    tag = f"{time.monotonic_ns()}"
    serve(busybox, f"n{tag}", "--network", net)
    busybox("create", "--name", f"o{tag}", "--network", "none", "busybox", "true")
    for words, says in (
        ((net, f"o{tag}"), "was made without a network with a name"),
        (("bridge", f"n{tag}"), "cannot be connected to"),
        (("nosuch", f"n{tag}"), "network nosuch not found"),
        ((other, "nosuch"), "nosuch"),
        (("--ip", "10.1.2.3", other, f"n{tag}"), "no configured subnet contains IP address 10.1.2.3"),
        (("--ip", address(busybox, f"n{tag}", net), net, f"n{tag}"), "already exists in network"),
    ):
        failed = busybox("network", "connect", *words, check=False)
        assert failed.returncode != 0
        assert says in failed.stderr
    busybox("rm", "-f", f"o{tag}")


@pytest.mark.once
def test_interfaces_do_not_leak(busybox: Runner, networks: Containers) -> None:
    one, two = networks(), networks("--internal")
    tag = f"{time.monotonic_ns()}"
    serve(busybox, f"d{tag}", "--network", one)
    serve(busybox, f"e{tag}", "--network", two)
    for _ in range(8):
        busybox("network", "connect", two, f"d{tag}")
        busybox("network", "disconnect", two, f"d{tag}")
    assert busybox("exec", f"d{tag}", "ls", "/sys/class/net").stdout.split() == ["eth0", "lo"]
    busybox("network", "connect", two, f"d{tag}")
    assert address(busybox, f"d{tag}", two).endswith(".3")
