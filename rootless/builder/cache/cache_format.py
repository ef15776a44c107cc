"""How a build cache travels: as an image whose config lists the records, and whose layers the records share. Pure.

The config of a cache may be a stranger's: what is read from it is checked, and a malformed record is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rootless.errors import InvalidInput
from rootless.image.digest import hex_of
from rootless.records.fields import Fields
from rootless.storage.store.step_records import CacheRecord, StepLayer
from rootless.units import LAST_MOMENT

MEMBER = "rootless.build-cache.v1"
"""Member of the image config's document: the records of steps whose layers the image has."""
ABSENT_MEMBER = "rootless.build-cache.absent.v1"
"""Member of the image config's document: the records of steps of other stages, whose layers the image does not have."""
TAG = "latest"
"""What the cache is called in a layout, as by BuildKit: the next build's cache takes its place."""


class SharedRecord(NamedTuple):
    """A record of a step in a cache that travels.

    key: the step's cache key; positions: of all layers that the result has among those of the manifest, bottom first;
    has_layer: the last of them is the step's own; moment: the time of the step in seconds; size: bytes of its files;
    description: the step's line in the history.
    """

    key: str
    positions: tuple[int, ...]
    has_layer: bool
    moment: int
    size: int
    description: str

    def to_json(self) -> dict[str, object]:
        """The record as an entry of the list in an image's config."""
        return {
            "key": self.key,
            "layers": list(self.positions),
            "has_layer": self.has_layer,
            "moment": self.moment,
            "size": self.size,
            "description": self.description,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> SharedRecord:
        """The reverse of `to_json`. Raises InvalidInput for a member that is missing or of a wrong type."""
        return cls(
            fields.text("key"),
            tuple(fields.integers("layers")),
            fields.flag("has_layer"),
            fields.integer("moment"),
            fields.integer("size"),
            fields.text("description"),
        )

    def is_possible(self, count: int) -> bool:
        """Whether an image of `count` layers can have this record. A position out of range would fail at its use."""
        is_sane = 0 <= self.moment <= LAST_MOMENT and self.size >= 0
        has_layers = bool(self.positions) or not self.has_layer
        return is_sane and has_layers and all(0 <= position < count for position in self.positions)


def pack(used: Iterable[tuple[CacheRecord, Sequence[StepLayer]]]) -> tuple[list[StepLayer], list[SharedRecord]]:
    """The layers of all records, each once, and the records with the positions of their layers in that list.

    used: records, each with the layers that it needs, bottom first.
    """
    layers: list[StepLayer] = []
    places: dict[str, int] = {}
    records = []
    for record, below in used:
        for layer in below:
            if layer.chain_id not in places:
                places[layer.chain_id] = len(layers)
                layers.append(layer)
        positions = tuple(places[layer.chain_id] for layer in below)
        has_layer = record.layer is not None
        records.append(SharedRecord(record.key, positions, has_layer, record.moment, record.size, record.description))
    return layers, records


class AbsentRecord(NamedTuple):
    """A record of a step whose layers are in no image: that they are known is enough to find the steps that used them.

    diff_ids: of all layers that the result has, bottom first; the other members are those of SharedRecord.
    """

    diff_ids: tuple[str, ...]
    has_layer: bool
    moment: int
    size: int


def pack_absent(used: Iterable[tuple[CacheRecord, Sequence[StepLayer]]]) -> dict[str, object]:
    """The member ABSENT_MEMBER for these records, each with the layers that it needs, bottom first.

    The records say no commands: those of a stage that is not part of an image, with the values of its arguments, are
    not to be read in that image.
    """
    layers, records = pack(used)
    listed = [record._replace(description="").to_json() for record in sorted(records)]
    return {"diff_ids": [layer.diff_id for layer in layers], "records": listed}


def unpack_absent(document: Mapping[str, object]) -> dict[str, AbsentRecord]:
    """The records of `pack_absent` in an image config's `document`, by key. Malformed ones are left out."""
    found: dict[str, AbsentRecord] = {}
    member = document.get(ABSENT_MEMBER)
    if not isinstance(member, dict):
        return found
    try:
        diff_ids = Fields(member, ABSENT_MEMBER).texts("diff_ids")
        for each in diff_ids:
            hex_of(each)
    except InvalidInput:
        return found
    for key, record in unpack({MEMBER: member.get("records")}, len(diff_ids)).items():
        layers = tuple(diff_ids[position] for position in record.positions)
        found[key] = AbsentRecord(layers, record.has_layer, record.moment, record.size)
    return found


def unpack(document: Mapping[str, object], count: int) -> dict[str, SharedRecord]:
    """The records in an image config's `document`, by key. count: of the image's layers.

    Malformed ones are left out.
    """
    found: dict[str, SharedRecord] = {}
    listed = document.get(MEMBER)
    for entry in listed if isinstance(listed, list) else ():
        try:
            record = SharedRecord.from_json(Fields(entry, MEMBER))
        except InvalidInput:
            continue  # the step of a record that cannot be read is carried out again
        if record.is_possible(count):
            found[record.key] = record
    return found
