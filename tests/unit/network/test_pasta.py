"""Command lines of the helpers, and what their failures mean."""

from __future__ import annotations

import pytest

from rootless.network import pasta, slirp4netns
from rootless.records.port import Port


def _value(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_pasta_opens_nothing_unasked() -> None:
    argv = pasta.build_arguments("/usr/bin/pasta", [], None)
    for flag in ("--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"):
        assert _value(argv, flag) == "none"
    assert "--no-map-gw" in argv
    assert "--dns-forward" not in argv


def test_pasta_with_ports_and_a_loopback_resolver() -> None:
    argv = pasta.build_arguments("/usr/bin/pasta", [Port("", 8080, 80), Port("::1", 53, 5353, "udp")], "127.0.0.53")
    assert _value(argv, "--tcp-ports") == "8080:80"
    assert _value(argv, "--udp-ports") == "::1/53:5353"
    assert _value(argv, "--dns") == "127.0.0.53"


def test_options_of_the_user_stand_in_place_of_ours() -> None:
    options = ("--map-gw", "-T", "5432", "--mtu=1400", "-4", "-t", "8080")
    argv = pasta.build_arguments("/usr/bin/pasta", [], None, options)
    assert not {"--no-map-gw", "--map-gw"} & set(argv)
    assert _value(argv, "--tcp-ns") == "5432"
    assert _value(argv, "--udp-ns") == "none"
    assert _value(argv, "--mtu") == "1400"
    assert _value(argv, "--tcp-ports") == "8080"
    assert "--ipv4-only" in argv
    assert all(argv.count(flag) == 1 for flag in ("--tcp-ns", "--mtu", "--tcp-ports"))


def test_ports_of_the_user_are_added_to_the_published_ones() -> None:
    argv = pasta.build_arguments("/usr/bin/pasta", [Port("", 8080, 80)], None, ("-t", "9000"))
    assert [argv[at + 1] for at, word in enumerate(argv) if word == "--tcp-ports"] == ["8080:80", "9000"]


def test_slirp_opens_nothing_unasked() -> None:
    argv = slirp4netns.build_arguments("/usr/bin/slirp4netns", None)
    assert "--disable-host-loopback" in argv
    assert "--enable-sandbox" not in argv  # only root of its user namespace can: see `spawn(as_root=)`
    assert not any(a.startswith("--api-socket") for a in argv)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("Failed to open() /dev/net/tun: No such file", "/dev/net/tun"),
        ("No external routable interface for IPv4", "no route"),
        ("Failed to bind any port for '-t 80', exiting", "already allocated"),
    ],
)
def test_known_failures(words: str, message: str) -> None:
    error = pasta.explain_failure(words)
    assert error is not None
    assert message in error.message
    assert error.hint


def test_unknown_failures_keep_the_helpers_words() -> None:
    assert pasta.explain_failure("what?") is None
