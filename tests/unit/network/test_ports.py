"""The grammar of -p, and errors of host ports in docker's words."""

from __future__ import annotations

import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import HostLimit, UsageError
from rootless.network import ports
from rootless.network.pasta import port_specifications
from rootless.network.ports import parse_publish
from rootless.records.fields import Fields
from rootless.records.port import Port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [Port("", 0, 80)]),
        ("8080:80", [Port("", 8080, 80)]),
        ("8080:80/udp", [Port("", 8080, 80, "udp")]),
        ("8080:80/TCP", [Port("", 8080, 80)]),
        ("127.0.0.1:8080:80", [Port("127.0.0.1", 8080, 80)]),
        ("127.0.0.1::80", [Port("127.0.0.1", 0, 80)]),
        ("0.0.0.0:8080:80", [Port("", 8080, 80)]),
        ("[::1]:8080:80", [Port("::1", 8080, 80)]),
        ("[::]:8080:80", [Port("::", 8080, 80)]),
        ("[fe80::2]::80/udp", [Port("fe80::2", 0, 80, "udp")]),
        ("80-82", [Port("", 0, 80), Port("", 0, 81), Port("", 0, 82)]),
        ("8080-8081:80-81", [Port("", 8080, 80), Port("", 8081, 81)]),
        ("8000-9000:80", [Port("", 8000, 80, "tcp", 9000)]),
        ("0:80", [Port("", 0, 80)]),
    ],
)
def test_forms(text: str, expected: list[Port]) -> None:
    assert parse_publish(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":80:",
        "8080:",
        ":127.0.0.1:80",
        "::80",
        "0",
        "65536",
        "8080:0",
        "65536:80",
        "-1:80",
        "+80",
        "8_0",
        "٨٠",
        " 80",
        "80 ",
        "80-79",
        "80-",
        "-80",
        "8080-8081:80-82",
        "80/",
        "80/icmp",
        "80/sctp",
        "80/tcp/udp",
        "localhost:8080:80",
        "1.2.3:8080:80",
        "256.0.0.1:8080:80",
        "fe80::1:8080:80",
        "[::1]8080:80",
        "[::1]:80",
        "[]:8080:80",
        "[::1:8080:80",
        "[fe80::1%eth0]:8080:80",
        "[::1]:1:2:3",
        "1:2:3:4",
        "127.0.0.1:8080:80\n",
        "127.0.0.1\0:8080:80",
    ],
)
def test_wrong_forms(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_publish(text)
    assert caught.value.exit_code == 125


PORT = st.integers(1, 65535)
HOST = st.sampled_from(["", "127.0.0.1", "192.168.1.7", "::1", "fe80::17"])


@given(HOST, PORT, PORT, st.sampled_from(["tcp", "udp"]))
def test_what_is_written_is_read(host: str, host_port: int, container_port: int, protocol: str) -> None:
    prefix = (f"[{host}]:" if ":" in host else f"{host}:") if host else ""
    assert parse_publish(f"{prefix}{host_port}:{container_port}/{protocol}") == [
        Port(host, host_port, container_port, protocol)
    ]


@given(st.text(alphabet="0123456789:-/[].tcpud ", max_size=30))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        found = parse_publish(text)
    except UsageError:
        return
    assert found
    for port in found:
        assert 0 <= port.host_port <= port.host_port_last <= 65535
        assert 1 <= port.container_port <= 65535
        assert Port.from_json(Fields(port.to_json(), "launch.json")) == port


@given(st.lists(st.tuples(HOST, PORT, PORT), unique=True, max_size=20))
def test_pasta_specifications_say_the_same(wanted: list[tuple[str, int, int]]) -> None:
    published = [Port(*one) for one in wanted]
    read: list[tuple[str, int, int]] = []
    for specification in port_specifications(published):
        address, slash, rest = specification.rpartition("/")
        assert bool(slash) == bool(address)
        spans = [[int(n) for n in span.split("-")] for span in rest.split(":")]
        (host, host_last), (container, container_last) = ((s[0], s[-1]) for s in spans)
        assert host_last - host == container_last - container
        read += [(address, host + i, container + i) for i in range(host_last - host + 1)]
    assert sorted(read) == sorted(wanted)


def test_neighbours_are_joined() -> None:
    published = parse_publish("8000-8099:80-179")
    assert port_specifications(published) == ["8000-8099:80-179"]
    assert port_specifications(parse_publish("127.0.0.1:53:5353")) == ["127.0.0.1/53:5353"]


def test_allocate_fixes_every_host_port() -> None:
    (chosen,) = ports.allocate_ports([Port("127.0.0.1", 0, 80)])
    assert chosen.host_port > 0
    assert chosen.container_port == 80
    again = ports.allocate_ports([chosen])
    assert again == [chosen]


def test_the_first_free_port_of_a_range() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        if port > 65500:
            pytest.skip("too near to the last port")
        (chosen,) = ports.allocate_ports([Port("127.0.0.1", port, 80, "tcp", port + 30)])
        assert port < chosen.host_port <= port + 30
        first, second = ports.allocate_ports([Port("127.0.0.1", port, 80 + i, "tcp", port + 30) for i in (0, 1)])
        assert first.host_port != second.host_port


def test_busy_ports_in_dockers_words() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as busy,
        pytest.raises(HostLimit, match=r"Bind for 127.0.0.1:\d+ failed: port is already allocated") as caught,
    ):
        ports.allocate_ports([Port("127.0.0.1", busy.getsockname()[1], 80)])
    assert caught.value.exit_code == 125


def test_the_same_port_twice_is_busy() -> None:
    number = ports.free_port("127.0.0.1")
    with pytest.raises(HostLimit, match="already allocated"):
        ports.allocate_ports([Port("127.0.0.1", number, 80), Port("127.0.0.1", number, 81)])


def test_a_busy_udp_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as busy:
        busy.bind(("127.0.0.1", 0))
        with pytest.raises(HostLimit, match="already allocated"):
            ports.allocate_ports([Port("127.0.0.1", busy.getsockname()[1], 53, "udp")])


def test_a_foreign_address() -> None:
    with pytest.raises(HostLimit, match="no such address"):
        ports.allocate_ports([Port("203.0.113.77", 8080, 80)])


def test_a_low_port_names_the_sysctl() -> None:
    error = ports.bind_error("", 80, OSError(errno.EACCES, "x"))
    assert "an ordinary user may not bind ports below" in error.message
    assert "sysctl -w net.ipv4.ip_unprivileged_port_start=80" in str(error.hint)


def test_texts() -> None:
    assert str(Port("", 8080, 80)) == "0.0.0.0:8080->80/tcp"
    assert str(Port("::1", 8080, 80, "udp")) == "[::1]:8080->80/udp"
    assert str(Port("", 8000, 80, "tcp", 8010)) == "0.0.0.0:8000-8010->80/tcp"
