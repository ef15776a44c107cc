"""The layers of an image as its manifest and config tell them: what each is as a blob, and what it unpacks to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rootless.errors import InvalidInput
from rootless.image.manifest import chain_ids

if TYPE_CHECKING:
    from rootless.image.manifest import Descriptor, ImageConfig, Manifest


class PlannedLayer(NamedTuple):
    """One layer to bring: its blob, and what it unpacks to."""

    descriptor: Descriptor
    diff_id: str
    chain_id: str
    parent: str | None

    @property
    def short(self) -> str:
        """What progress calls it."""
        return self.descriptor.digest.partition(":")[2][:12]


def plan_layers(manifest: Manifest, config: ImageConfig) -> list[PlannedLayer]:
    """The layers, bottom first. Raises InvalidInput when manifest and config do not belong together."""
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidInput(
            f"manifest '{manifest.digest}' has {len(manifest.layers)} layers, its config {len(config.diff_ids)}"
        )
    chain = chain_ids(config.diff_ids)
    parents: list[str | None] = [None, *chain]
    return [
        PlannedLayer(*each) for each in zip(manifest.layers, config.diff_ids, chain, parents[: len(chain)], strict=True)
    ]
