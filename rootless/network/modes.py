"""The table of network modes. Everybody else asks a mode for its properties and tests no name.

A new mode is a row here (with a module for its helper, which has what mode.HelperModule says) and its test.
"""

from __future__ import annotations

from rootless.errors import InvalidInput, UsageError
from rootless.network.mode import HelperProgram, Mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.network.mode import HelperModule


def _load_pasta() -> HelperModule:
    from rootless.network import pasta

    return pasta


def _load_slirp4netns() -> HelperModule:
    from rootless.network import slirp4netns

    return slirp4netns


MODES = (
    Mode.of_helper(
        HelperProgram("pasta", "passt", "container networks", _load_pasta).with_ipv6_ports(),
        takes_options=True,
    ),
    Mode.of_helper(
        HelperProgram(
            "slirp4netns",
            "slirp4netns",
            "container networks without pasta",
            _load_slirp4netns,
            loss="slower, and IPv4 only",
        )
    ),
    Mode("none"),
    Mode.of_host(
        "host",
        warning="--network=host: abstract sockets of your session (X, D-Bus, ...) can be reached from the container",
        discards="published ports are discarded when using host network mode",
    ),
    Mode.of_another("container", "NAME"),
)
"""All modes that can be typed. Those with a helper come first, and the best helper before the others."""
NAMED = Mode.of_networks("bridge")
"""The mode of a container on networks with names; what is typed is the name of a network. It has docker's word for the
driver of such networks. Typed, that word means the default network, of which records hold the helper's name."""
HELPERS = tuple(mode.helper for mode in MODES if mode.helper is not None)
UNCONNECTED = next(mode for mode in MODES if mode.has_own_namespace and mode.helper is None)
DEFAULT_NAMES = ("", "default", "bridge", "private")
"""What docker and podman users type for a network of the container's own: the settings or the host decide its mode."""
_BY_NAME = {mode.name: mode for mode in MODES}
_RECORDED = {**_BY_NAME, NAMED.name: NAMED}


def parse_mode(text: str) -> tuple[Mode, tuple[str, ...]]:
    """The mode that --network=`text` names, and the options for its helper: `pasta:--map-gw,-T,5432`.

    Raises UsageError, saying what is accepted, for an unknown mode and for what the mode does not take.
    """
    name, colon, argument = text.partition(":")
    mode = _BY_NAME.get(name)
    if mode is None or (mode.joins_another and not argument):
        raise UsageError(f"network {name} not found", hint=f"use {list_choices()} (--network)")
    if not colon or mode.joins_another:
        return mode, ()
    if mode.helper is None:
        raise UsageError(f"network mode '{name}' takes no options: '{text}'", hint=f"use --network={name}")
    options = tuple(argument.split(","))
    mode.helper.load().check_options(options)
    return mode, options


def is_mode_name(name: str) -> bool:
    """Does --network=`name` mean a mode, so that no network can have that name?"""
    return name in _BY_NAME or name in DEFAULT_NAMES


def recorded_mode(name: str) -> Mode:
    """The mode of a record, launch.json or a build's step. Raises InvalidInput for one that this version lacks."""
    mode = _RECORDED.get(name)
    if mode is None:
        raise InvalidInput(f"network mode '{name}' is unknown to this version of rootless")
    return mode


def list_choices(*, with_joining: bool = True) -> str:
    """The modes as help and hints name them: "pasta[:OPTIONS], slirp4netns, none, host or container:NAME".

    with_joining: False, for builds, leaves out options and the mode that joins another container.
    """
    names = [mode.syntax if with_joining else mode.name for mode in MODES if with_joining or not mode.joins_another]
    return f"{', '.join(names[:-1])} or {names[-1]}"
