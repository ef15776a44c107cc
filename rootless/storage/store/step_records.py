"""The build cache: for the key of each build step that was done, a record of the layer that it made.

    build-cache/<key>.json    {"layer": {...} | null, "chains": [...], "time": s, "size": bytes, ...}

Garbage collection keeps the layers named by `chains` as long as the record is here. A record is written when its layer
is complete. The modification time of its file is the time of its last use.
"""

from __future__ import annotations

import os
import re
import time
from typing import NamedTuple

from rootless.errors import HostLimit, RootlessError
from rootless.paths import make_private
from rootless.records.fields import Fields
from rootless.records.json_file import read_record, write_record

_NAME = re.compile(r"[0-9a-f]{64}\.json", re.ASCII)
_FORMAT = 1


class StepLayer(NamedTuple):
    """The layer that a step has made, with what a manifest says of it. chain_id: of this layer on those below it."""

    chain_id: str
    diff_id: str
    media_type: str
    digest: str
    size: int

    def to_json(self) -> dict[str, object]:
        """The member "layer" of a record."""
        return self._asdict()

    @classmethod
    def from_json(cls, fields: Fields) -> StepLayer:
        """The reverse of `to_json`. Raises InvalidInput."""
        chain_id, diff_id = fields.text("chain_id"), fields.text("diff_id")
        return cls(chain_id, diff_id, fields.text("media_type"), fields.text("digest"), fields.integer("size"))


class CacheRecord(NamedTuple):
    """One record.

    layer: None for a step that has made no layer; chains: chain ids of all layers that the step's result needs, bottom
    first; moment: the time that the files of the step's layer have; size: bytes; description: the step in words;
    created, used: when the record was made and used last. All times are seconds since the epoch.
    """

    key: str
    layer: StepLayer | None
    chains: tuple[str, ...]
    moment: int
    size: int
    description: str
    created: float
    used: float


class BuildCache:
    """The directory `build-cache` of a store."""

    __slots__ = ("directory",)

    def __init__(self, root: str) -> None:
        self.directory = f"{root}/build-cache"

    def find(self, key: str) -> CacheRecord | None:
        """The record of `key`, marked as used now; None when there is none that can be read."""
        record = self._read(key)
        if record is not None:
            try:
                os.utime(self._path(key))
            except OSError:
                pass  # the time decides only what is pruned first
        return record

    def has(self, key: str) -> bool:
        """Whether there is a record of `key`, whatever became of its layers."""
        return os.path.exists(self._path(key))

    def put(self, record: CacheRecord) -> None:
        """Write a record whose layers are all here. Raises HostLimit."""
        document = {
            "format": _FORMAT,
            "layer": record.layer.to_json() if record.layer is not None else None,
            "chains": list(record.chains),
            "moment": record.moment,
            "size": record.size,
            "description": record.description[:1000],
            "created": record.created,
        }
        try:
            make_private(self.directory)
            write_record(self._path(record.key), document, durable=False)
        except OSError as e:
            raise HostLimit(f"cannot write the build cache '{self.directory}': {e.strerror}") from e

    def records(self) -> list[CacheRecord]:
        """All records that can be read, the least recently used first."""
        try:
            names = [name for name in os.listdir(self.directory) if _NAME.fullmatch(name)]
        except FileNotFoundError:
            return []
        found = [record for name in names if (record := self._read(name[:64])) is not None]
        return sorted(found, key=lambda record: record.used)

    def remove(self, key: str) -> None:
        """Remove a record: its layers are garbage when nothing else needs them. Nothing happens when it is not here."""
        try:
            os.unlink(self._path(key))
        except FileNotFoundError:
            pass

    def chains(self) -> set[str]:
        """Chain ids of all layers that records need: roots of garbage collection."""
        return {chain for record in self.records() for chain in record.chains}

    def _path(self, key: str) -> str:
        return f"{self.directory}/{key}.json"

    def _read(self, key: str) -> CacheRecord | None:
        path = self._path(key)
        try:
            document = read_record(path, what="build cache record")
            if document.get("format") != _FORMAT:
                return None
            fields = Fields(document, path)
            layer = fields.member("layer")
            return CacheRecord(
                key,
                StepLayer.from_json(layer) if layer is not None else None,
                tuple(fields.texts("chains")),
                fields.integer("moment"),
                fields.integer("size"),
                fields.text("description"),
                fields.number("created"),
                os.stat(path).st_mtime,
            )
        except (RootlessError, OSError):
            return None  # the record is missing or damaged: the step is done again


def expired_records(records: list[CacheRecord], *, keep: int | None, older: float | None) -> list[CacheRecord]:
    """Which of `records` (the least recently used first) are to be removed.

    older: those that were not used for so many seconds go; keep: of the others so many go that the rest has at most so
    many bytes. None stands for no such bound.
    """
    now = time.time()
    gone = [] if older is None else [r for r in records if now - r.used >= older]
    if keep is None:
        return gone
    left = [r for r in records if r not in gone] if older is not None else list(records)
    total = sum(record.size for record in left)
    for record in left:
        if total <= keep:
            break
        gone.append(record)
        total -= record.size
    return gone
