"""How a build cache travels: as an image whose config lists the records, over layers that records share. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rootless.storage.store.step_records import CacheRecord, StepLayer

MEMBER = "rootless.build-cache.v1"
"""Member of the image config's document."""
_LAST_MOMENT = 253_402_300_800  # the year 10000, which dates cannot say


class Shared(NamedTuple):
    """A record of elsewhere: its layers by position in the manifest, bottom first; layer: of the step, or None."""

    key: str
    positions: tuple[int, ...]
    has_layer: bool
    moment: int
    size: int
    description: str


def pack(used: Iterable[tuple[CacheRecord, Sequence[StepLayer]]]) -> tuple[list[StepLayer], list[dict[str, Any]]]:
    """(all layers, the records as JSON values)."""
    layers: list[StepLayer] = []
    places: dict[str, int] = {}
    records = []
    for record, below in used:
        for layer in below:
            if layer.chain_id not in places:
                places[layer.chain_id] = len(layers)
                layers.append(layer)
        records.append(
            {
                "key": record.key,
                "layers": [places[layer.chain_id] for layer in below],
                "has_layer": record.layer is not None,
                "moment": record.moment,
                "size": record.size,
                "description": record.description,
            }
        )
    return layers, records


def unpack(document: dict[str, Any], count: int) -> dict[str, Shared]:
    """The records of an image config of `count` layers, by key; what is malformed is left out."""
    found: dict[str, Shared] = {}
    listed = document.get(MEMBER)
    for entry in listed if isinstance(listed, list) else ():
        try:
            positions = tuple(int(position) for position in entry["layers"])
            record = Shared(
                str(entry["key"]),
                positions,
                bool(entry["has_layer"]),
                int(entry["moment"]),
                int(entry["size"]),
                str(entry["description"]),
            )
        except (KeyError, TypeError, ValueError):
            continue
        is_possible = 0 <= record.moment < _LAST_MOMENT and record.size >= 0
        if is_possible and all(0 <= p < count for p in positions) and (positions or not record.has_layer):
            found[record.key] = record
    return found
