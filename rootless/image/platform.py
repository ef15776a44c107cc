"""Platforms: os, architecture and variant, and which of an image's platforms a machine runs. Pure but for uname(2)."""

from __future__ import annotations

import os
from typing import NamedTuple

from rootless.errors import UsageError
from rootless.units import whole_number

# What uname(2) calls a machine, and what images call it: Go's architecture (GOARCH) and its variant
_MACHINES = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
}
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm", "armel": "arm"}
_DEFAULT_VARIANTS = {"arm": "v7", "arm64": "v8", "amd64": "v1"}  # what a platform without a variant means
_OLDEST = {"arm": 5, "arm64": 8, "amd64": 1}  # the lowest variant of an architecture whose variants include each other


class Platform(NamedTuple):
    """What an image runs on. variant "" = the architecture's usual one."""

    os: str
    architecture: str
    variant: str = ""
    features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def host_platform() -> Platform:
    """The platform whose programs this machine runs without emulation."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def parse_platform(text: str) -> Platform:
    """The platform in `text`: `linux/arm64`, `linux/arm/v7`, `arm64`, or `linux` alone. Raises UsageError."""
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(part and part.replace("-", "").replace("_", "").isalnum() for part in parts):
        raise UsageError(f"invalid platform '{text}'", hint="write OS/ARCH[/VARIANT], for example linux/arm64")
    if len(parts) == 1:
        parts = [host_platform().os, *parts] if parts[0] != "linux" else ["linux", host_platform().architecture]
    system, architecture, *variant = parts
    if architecture in ("armhf", "armel") and not variant:
        variant = ["v7" if architecture == "armhf" else "v6"]
    return Platform(system, _ALIASES.get(architecture, architecture), variant[0] if variant else "")


def best_match(offered: list[Platform | None], wanted: Platform) -> int | None:
    """Position of the offer that `wanted` should run; None when there is none.

    The newest variant that is not newer than the wanted one wins, then the first offer. Offers that need os.features
    which are not wanted are passed over.
    """
    acceptable = _variants(wanted)
    best: tuple[int, int] | None = None
    for position, offer in enumerate(offered):
        if (
            offer is None
            or offer.os != wanted.os
            or _ALIASES.get(offer.architecture, offer.architecture) != (wanted.architecture)
        ):
            continue
        if not set(offer.features) <= set(wanted.features):
            continue
        variant = offer.variant or _DEFAULT_VARIANTS.get(wanted.architecture, "")
        if variant in acceptable:
            rank = (acceptable.index(variant), position)
            best = rank if best is None else min(best, rank)
    return None if best is None else best[1]


def _variants(wanted: Platform) -> list[str]:
    """Variants that run where `wanted` runs, best first."""
    variant = wanted.variant or _DEFAULT_VARIANTS.get(wanted.architecture, "")
    oldest = _OLDEST.get(wanted.architecture)
    newest = whole_number(variant[1:])
    if oldest is None or newest is None:
        return [variant]
    # The bound keeps a variant such as v999999999 from filling the memory
    return [f"v{number}" for number in range(min(newest, 99), oldest - 1, -1)]
