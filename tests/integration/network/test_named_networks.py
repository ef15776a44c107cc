"""Networks with names as their user meets them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.conftest import Runner


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
        (("connect", "a", "b"), 125, "no such command 'connect'"),
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
