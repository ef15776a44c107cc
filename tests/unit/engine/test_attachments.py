"""--network NAME and what belongs to it: the grammar, docker's and podman's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rootless.engine.plan.attachments import choose_attachments, is_named, without
from rootless.errors import NotFound, RootlessError, UsageError
from rootless.records.container_options import ContainerOptions
from rootless.records.network_record import NetworkRecord


@pytest.fixture
def engine() -> Any:
    records = {}
    for number, name in enumerate(("front", "back")):
        records[name] = NetworkRecord(name, name * 8, subnet=f"10.9{number}.0.0/24", gateway=f"10.9{number}.0.1")
        records[name].options = {"mtu": "1400"}

    def get(name: str) -> NetworkRecord:
        if name not in records:
            raise NotFound(f"network {name} not found")
        return records[name]

    return SimpleNamespace(store=SimpleNamespace(networks=SimpleNamespace(get=get)))


@pytest.mark.parametrize(
    "text",
    ["front:alias=a,alias=b,ip=10.90.0.9,mac=02-00-00-00-00-0A", "alias=a,name=front,alias=b,ip=10.90.0.9,"
     "mac-address=02:00:00:00:00:0a"],
)  # fmt: skip
def test_both_ways_to_write_it(engine: Any, text: str) -> None:
    (one,) = choose_attachments(engine, ContainerOptions(network=text))
    assert (one.name, one.aliases, one.ip, one.mac) == ("front", ["a", "b"], "10.90.0.9", "02:00:00:00:00:0a")
    assert (one.subnet, one.gateway, one.mtu) == ("10.90.0.0/24", "10.90.0.1", 1400)


def test_aliases_are_for_all_networks_and_addresses_for_the_first(engine: Any) -> None:
    options = ContainerOptions(
        network="front", more_networks=("back:alias=b",), network_alias=("x",), ip="10.90.0.7",
        mac_address="02:00:00:00:00:01",
    )  # fmt: skip
    first, second = choose_attachments(engine, options)
    assert (first.aliases, first.ip, first.mac) == (["x"], "10.90.0.7", "02:00:00:00:00:01")
    assert (second.aliases, second.ip, second.mac) == (["b", "x"], "", "")


@pytest.mark.parametrize(("text", "expected"), [(None, False), ("pasta:--map-gw", False), ("container:x", False),
                                                ("bridge", False), ("front", True), ("name=front", True)])  # fmt: skip
def test_what_is_a_mode_is_no_name(text: str | None, expected: bool) -> None:
    assert is_named(ContainerOptions(network=text)) is expected


@pytest.mark.parametrize(
    "options",
    [
        ContainerOptions(network="front", more_networks=("host",)),
        ContainerOptions(network="none", more_networks=("front",)),
        ContainerOptions(network="none", network_alias=("x",)),
        ContainerOptions(mac_address="02:00:00:00:00:01"),
        ContainerOptions(ip="10.1.1.1"),
    ],
)
def test_what_modes_do_not_take(options: ContainerOptions) -> None:
    with pytest.raises(UsageError):
        is_named(options)


@pytest.mark.parametrize(
    "options",
    [
        ContainerOptions(network="nosuch"),
        ContainerOptions(network="front:ip=10.91.0.5"),
        ContainerOptions(network="front:ip=10.90.0.1"),
        ContainerOptions(network="front:ip=10.90.0.255"),
        ContainerOptions(network="front:ip=x"),
        ContainerOptions(network="front:mac=02:00"),
        ContainerOptions(network="front:mac=00:00:00:00:00:00"),
        ContainerOptions(network="front:alias=a b"),
        ContainerOptions(network="front:alias="),
        ContainerOptions(network="front:name=x"),
        ContainerOptions(network="alias=x"),
        ContainerOptions(network="front", more_networks=("front",)),
        ContainerOptions(network="front", dns=("x",)),
    ],
)
def test_what_cannot_be(engine: Any, options: ContainerOptions) -> None:
    with pytest.raises(RootlessError):
        choose_attachments(engine, options)


@pytest.mark.parametrize(("left", "kept"), [("front", (None, None)), ("back", ("10.90.0.7", "02:00:00:00:00:01"))])
def test_the_addresses_go_with_the_network_that_they_are_for(
    engine: Any, left: str, kept: tuple[str | None, str | None]
) -> None:
    options = ContainerOptions(
        network="front", more_networks=("back",), ip="10.90.0.7", mac_address="02:00:00:00:00:01"
    )
    options = without(engine, options, engine.store.networks.get(left))
    assert (options.ip, options.mac_address) == kept
    assert len(choose_attachments(engine, options)) == 1
