"""The table of network modes: what is typed, what is recorded, and that nobody else knows a helper's name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from rootless.errors import InvalidInput, UsageError
from rootless.kernel.namespaces import OpenNetwork
from rootless.network import modes

PACKAGE = Path(__file__).resolve().parents[3] / "rootless"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pasta", "pasta"),
        ("none", "none"),
        ("host", "host"),
        ("container:x", "container"),
    ],
)
def test_what_is_typed(text: str, name: str) -> None:
    mode, options = modes.parse_mode(text)
    assert (mode.name, options) == (name, ())


@pytest.mark.parametrize("text", ["container", "container:", "x", "x:y"])
def test_an_unknown_mode_is_answered_with_the_known_ones(text: str) -> None:
    with pytest.raises(UsageError, match="not found") as e:
        modes.parse_mode(text)
    assert modes.list_choices() in str(e.value.hint)


def test_options_of_pasta_stand_behind_a_colon() -> None:
    mode, options = modes.parse_mode("pasta:--map-gw,-T,5432")
    assert (mode.name, options) == ("pasta", ("--map-gw", "-T", "5432"))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("host:x", "use --network=host"),
        ("none:", "use --network=none"),
        ("slirp4netns:allow_host_loopback=true", "use --network=slirp4netns"),
        ("pasta:", "--map-gw"),
        ("pasta:--pid,/tmp/x", "--map-gw"),
        ("pasta:-T", "-T,VALUE"),
    ],
)
def test_what_a_mode_does_not_take_is_an_error_that_says_what_it_takes(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as e:
        modes.parse_mode(text)
    assert hint in str(e.value.hint)


def test_help_and_hints_list_every_mode() -> None:
    assert modes.list_choices() == "pasta[:OPTIONS], slirp4netns, none, host or container:NAME"
    assert modes.list_choices(with_joining=False) == "pasta, slirp4netns, none or host"


@pytest.mark.parametrize(
    ("name", "own_namespace", "publishes", "host_names", "counts"),
    [
        ("pasta", True, True, False, True),
        ("slirp4netns", True, True, False, True),
        ("none", True, False, False, False),
        ("host", False, False, True, False),
        ("container", False, False, False, True),
    ],
)
def test_properties(name: str, own_namespace: bool, publishes: bool, host_names: bool, counts: bool) -> None:
    mode = modes.recorded_mode(name)
    assert (mode.has_own_namespace, mode.can_publish) == (own_namespace, publishes)
    assert (mode.uses_host_names, mode.counts_own_traffic) == (host_names, counts)
    assert (mode.helper is not None) == publishes


def test_every_helper_is_loaded_under_its_name() -> None:
    for helper in modes.HELPERS:
        module = helper.load()
        assert callable(module.start)
        assert callable(module.connect_once)
    assert modes.UNCONNECTED.start(OpenNetwork(-1, -1)) is None


def test_a_mode_of_a_later_version_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="'vpn'"):
        modes.recorded_mode("vpn")


def test_only_the_network_room_knows_a_helper_by_its_name() -> None:
    """Who tests a name has to be changed for every new mode: properties are asked instead."""
    names = {helper.name for helper in modes.HELPERS}
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(PACKAGE / "network"):
            continue
        found = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)} & names
        assert not found, f"{path.relative_to(PACKAGE)} names {found}"
