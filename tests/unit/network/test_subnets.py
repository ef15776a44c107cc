"""Subnets of networks with names: what is refused, and which one is chosen."""

from __future__ import annotations

import ipaddress

import pytest

from rootless.errors import InvalidState, RootlessError, UsageError
from rootless.network import subnets

NET = ipaddress.IPv4Network("10.90.0.0/24")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "invalid subnet nonsense"),
        ("10.90.0.7/24", "it should be 10.90.0.0/24"),
        ("10.90.0.0", "it should be 10.90.0.0/32"),
        ("10.90.0.0/31", "no room"),
        ("fd00::/64", "no IPv6 yet"),
        ("127.0.0.0/24", "cannot have"),
        ("224.0.0.0/24", "cannot have"),
        ("0.0.0.0/0", "cannot have"),
        ("10.239.0.0/16", "overlaps with 10.239.0.0/24"),
    ],
)
def test_what_is_no_subnet_is_refused(text: str, says: str) -> None:
    with pytest.raises(RootlessError) as caught:
        subnets.parse_subnet(text)
    assert says in caught.value.message


def test_an_overlap_is_refused_in_docker_s_words() -> None:
    subnets.refuse_overlap(NET, [ipaddress.IPv4Network("10.91.0.0/24")])
    for other in ("10.90.0.0/24", "10.90.0.128/25", "10.0.0.0/8"):
        with pytest.raises(InvalidState, match="Pool overlaps with other one on this address space"):
            subnets.refuse_overlap(NET, [ipaddress.IPv4Network(other)])


def test_a_free_subnet_overlaps_nothing_that_is_taken() -> None:
    assert str(subnets.free_subnet([])) == "10.89.0.0/24"
    assert str(subnets.free_subnet([ipaddress.IPv4Network("10.89.0.0/23")])) == "10.89.2.0/24"
    # 10.239.0.0/24 lies between a network and its helper
    assert str(subnets.free_subnet([ipaddress.IPv4Network("10.64.0.0/10"), ipaddress.IPv4Network("10.128.0.0/10"),
                                    ipaddress.IPv4Network("10.192.0.0/11"), ipaddress.IPv4Network("10.224.0.0/13"),
                                    ipaddress.IPv4Network("10.232.0.0/14"), ipaddress.IPv4Network("10.236.0.0/15"),
                                    ipaddress.IPv4Network("10.238.0.0/16")])) == "10.239.1.0/24"  # fmt: skip


def test_gateways_and_ranges_lie_in_the_subnet() -> None:
    assert subnets.parse_gateway("", NET) == "10.90.0.1"
    assert subnets.parse_gateway("10.90.0.254", NET) == "10.90.0.254"
    assert subnets.parse_range("", NET) == ""
    assert subnets.parse_range("10.90.0.128/25", NET) == "10.90.0.128/25"
    for text in ("10.91.0.1", "10.90.0.0", "10.90.0.255", "x", "fd00::1"):
        with pytest.raises(UsageError):
            subnets.parse_gateway(text, NET)
    for text in ("10.91.0.0/25", "10.90.0.0/16", "x", "fd00::/64"):
        with pytest.raises(UsageError):
            subnets.parse_range(text, NET)


def test_the_host_s_routes_are_read(tmp_path) -> None:
    route = tmp_path / "route"
    route.write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0000590A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert [str(found) for found in subnets.host_subnets(str(route))] == ["10.89.0.0/24"]
    assert subnets.host_subnets(str(tmp_path / "none")) == []
