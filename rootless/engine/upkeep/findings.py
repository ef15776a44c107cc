"""What `system check` finds: values that the look makes, the repair reads, and the command line prints."""

from __future__ import annotations

from typing import NamedTuple

BLOB, LAYER, IMAGE, CONTAINER, VOLUME, NAME, GARBAGE, INDEX = (
    "blob", "layer", "image", "container", "volume", "name", "garbage", "index")  # fmt: skip


class StoreFinding(NamedTuple):
    """One thing that is wrong. kind, id: of what (digest, chain id, container id, name); text: what is wrong; details:
    the first damages of a layer; repaired: what was done about it, "" when nothing; is_damage: False for what only
    takes space."""

    kind: str
    id: str
    text: str
    details: tuple[str, ...] = ()
    repaired: str = ""
    is_damage: bool = True


class CheckResult(NamedTuple):
    """What was looked at, and what was found."""

    findings: tuple[StoreFinding, ...]
    blobs: int
    layers: int
    images: int
    containers: int
    volumes: int

    @property
    def is_sound(self) -> bool:
        """Whether no damage is left."""
        return not any(each.is_damage and not each.repaired for each in self.findings)
