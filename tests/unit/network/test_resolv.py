"""/etc/hosts and /etc/resolv.conf of a container, from texts only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import HostLimit, UsageError
from rootless.network import addresses, resolv
from rootless.network.modes import recorded_mode
from rootless.network.resolv import HostResolver, add_host, hosts_file, parse_resolv_conf, resolv_conf

LAN = HostResolver(["192.168.1.1", "fd00::53"], ["example.org"], ["ndots:2"])
STUB = HostResolver(["127.0.0.53"], [], [])


def test_parse() -> None:
    text = "# c\nnameserver 1.1.1.1 # x\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver what\n;x\n"
    text += "domain a\nsearch b .\noptions edns0 trust-ad\noptions ndots:1\nnameserver\nnameserver 1.1.1.1\n"
    found = parse_resolv_conf(text)
    assert found.servers == ["1.1.1.1", "::1"]
    assert found.search == ["b"]
    assert found.options == ["edns0", "trust-ad", "ndots:1"]


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    parse_resolv_conf(text)


def test_the_stub_of_systemd_resolved_is_looked_through(tmp_path: Path) -> None:
    stub, behind = tmp_path / "stub", tmp_path / "behind"
    stub.write_text("nameserver 127.0.0.53\noptions edns0\nsearch lan\n")
    behind.write_text("nameserver 9.9.9.9\n")
    found = resolv.host_resolver(str(stub), str(behind))
    assert (found.servers, found.search, found.options) == (["9.9.9.9"], ["lan"], ["edns0"])
    assert resolv.host_resolver(str(stub), str(tmp_path / "absent")).servers == ["127.0.0.53"]


def test_files_that_are_none(tmp_path: Path) -> None:
    """CVE-2024-9341 and kin: a FIFO does not hang us, absence is not an error."""
    os.mkfifo(tmp_path / "fifo")
    assert resolv.read_text(str(tmp_path / "fifo")) == ""
    assert resolv.read_text(str(tmp_path)) == ""
    assert resolv.read_text(str(tmp_path / "absent")) == ""


@pytest.mark.parametrize("mode", ["pasta", "slirp4netns"])
def test_servers_of_the_network_are_asked_directly(mode: str) -> None:
    assert resolv_conf(mode=recorded_mode(mode), host=LAN) == (
        "nameserver 192.168.1.1\nnameserver fd00::53\nsearch example.org\noptions ndots:2\n"
    )


@pytest.mark.parametrize("mode", ["pasta", "slirp4netns"])
def test_a_resolver_on_the_hosts_loopback_is_asked_through_the_helper(mode: str) -> None:
    assert resolv_conf(mode=recorded_mode(mode), host=STUB) == f"nameserver {addresses.DNS}\n"
    assert STUB.forwarded() == "127.0.0.53"
    assert LAN.forwarded() is None
    both = HostResolver(["127.0.0.1", "1.1.1.1"], [], [])
    assert resolv_conf(mode=recorded_mode(mode), host=both) == "nameserver 1.1.1.1\n"
    assert resolv_conf(mode=recorded_mode(mode), host=HostResolver(["::1"], [], [])) == ""


def test_other_modes() -> None:
    assert resolv_conf(mode=recorded_mode("host"), host=STUB) == "nameserver 127.0.0.53\n"
    assert resolv_conf(mode=recorded_mode("none"), host=STUB) == ""
    many = HostResolver([f"1.1.1.{i}" for i in range(9)], [], [])
    assert resolv_conf(mode=recorded_mode("pasta"), host=many).count("nameserver") == 3


def test_options_replace_the_hosts_values() -> None:
    text = resolv_conf(
        mode=recorded_mode("pasta"), servers=["8.8.8.8", "127.0.0.1"], search=["x.y"], options=["rotate"], host=LAN
    )
    assert text == "nameserver 8.8.8.8\nnameserver 127.0.0.1\nsearch x.y\noptions rotate\n"
    assert "search" not in resolv_conf(mode=recorded_mode("pasta"), search=["."], host=LAN)


@pytest.mark.parametrize(
    "arguments",
    [{"servers": ["dns.google"]}, {"servers": ["1.1.1.1\nsearch evil"]}, {"search": ["a b"]}, {"options": ["a\nb"]}],
)
def test_wrong_options(arguments: dict[str, list[str]]) -> None:
    with pytest.raises(UsageError):
        resolv_conf(mode=recorded_mode("pasta"), host=LAN, **arguments)


def test_hosts_of_a_connected_container() -> None:
    text = hosts_file(hostname="web", domainname="example.org", mode=recorded_mode("pasta"), gateway="192.168.1.5")
    lines = [line.split() for line in text.splitlines()]
    assert ["127.0.0.1", "localhost"] in lines
    assert ["::1", "localhost", "ip6-localhost", "ip6-loopback"] in lines
    assert [addresses.CONTAINER, "web.example.org", "web"] in lines
    assert ["192.168.1.5", "host.docker.internal", "host.containers.internal"] in lines


def test_hosts_of_other_modes() -> None:
    assert "127.0.0.1\tbox\n" in hosts_file(hostname="box", mode=recorded_mode("none"))
    assert "host.docker.internal" not in hosts_file(hostname="box", mode=recorded_mode("none"))
    assert hosts_file(hostname="box", mode=recorded_mode("host")).startswith(
        resolv.read_text("/etc/hosts").rstrip("\n")
    )


def test_the_host_network_with_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--network host --hostname box`: box was in no file, so that a program did not find its own name."""
    monkeypatch.setattr(resolv, "read_text", lambda path: "127.0.0.1\tlocalhost\n127.0.1.1 machine m.lan # box\n")
    host = recorded_mode("host")
    assert hosts_file(hostname="box", mode=host).endswith("# box\n127.0.1.1\tbox\n")
    assert hosts_file(hostname="box", domainname="lan", mode=host).endswith("127.0.1.1\tbox.lan box\n")
    assert hosts_file(hostname="machine", mode=host).endswith("# box\n")
    assert hosts_file(hostname="", mode=host).endswith("# box\n")


def test_add_host() -> None:
    extra = ["db:10.0.0.1", "six=[fd00::1]", "h:host-gateway"]
    text = hosts_file(hostname="w", mode=recorded_mode("pasta"), extra=extra, gateway="1.2.3.4")
    for line in ("10.0.0.1\tdb", "fd00::1\tsix", "1.2.3.4\th"):
        assert f"{line}\n" in text
    assert "127.0.0.1\th\n" in hosts_file(hostname="w", mode=recorded_mode("host"), extra=["h:host-gateway"])
    with pytest.raises(UsageError, match="needs a network"):
        hosts_file(hostname="w", mode=recorded_mode("none"), extra=["h:host-gateway"])


def test_host_gateway_of_a_host_without_a_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "host_address", lambda: None)
    assert "host.docker.internal" not in hosts_file(hostname="w", mode=recorded_mode("pasta"))
    with pytest.raises(HostLimit, match="no route"):
        hosts_file(hostname="w", mode=recorded_mode("pasta"), extra=["h:host-gateway"])


@pytest.mark.parametrize(
    "value", ["", "db", ":1.2.3.4", "db:", "db:nonsense", "a b:1.2.3.4", "a\nb:1.2.3.4", "db:1.2.3.4\n"]
)
def test_wrong_add_host(value: str) -> None:
    with pytest.raises(UsageError):
        add_host(value)


def test_add_host_forms() -> None:
    assert add_host("db:::1") == ("db", "::1")
    assert add_host("db=::1") == ("db", "::1")
    assert add_host("db:[::1]") == ("db", "::1")
