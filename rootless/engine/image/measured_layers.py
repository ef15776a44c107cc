"""The bytes that layers take on disk. A layer never changes: each is measured once, and the result kept beside it."""

from __future__ import annotations

import json
from typing import NamedTuple

from rootless.errors import InvalidInput
from rootless.paths import atomic_write
from rootless.records.fields import Fields, parse_json
from rootless.storage.layers import worker_client
from rootless.storage.layers.jobs import MeasureJob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.engine.context import Engine
    from rootless.storage.store.store import Store


_NOTE = "disk.json"


def _noted(directory: str) -> int | None:
    try:
        with open(f"{directory}/{_NOTE}", "rb") as file:
            return Fields(parse_json(file.read(1 << 12)), file.name).integer("bytes")
    except (OSError, ValueError, InvalidInput):
        return None


class LayerSizes(NamedTuple):
    """Bytes on disk: of layers by chain id, of their copies for other id maps by path (Layers.copies), and of other
    places by path."""

    layers: dict[str, int]
    copies: dict[str, int]
    places: dict[str, int]


def measure(store: Store, places: list[str]) -> LayerSizes:
    """The bytes on disk of each layer, of each copy of one, and of each of `places`. Raises HostLimit."""
    layers = {store.layers.path(chain_id): chain_id for chain_id in store.layers.list()}
    copies = store.layers.copies()
    sizes: dict[str, int] = {}
    unknown: list[str] = []
    for directory in (*layers, *copies):
        noted = _noted(directory)
        sizes[directory] = noted or 0
        if noted is None:
            unknown.append(directory)
    paths = [*unknown, *places]
    found = worker_client.run_job(MeasureJob(paths), store.id_map).sizes if paths else []
    for directory, (size, inodes, _) in zip(unknown, found, strict=False):
        sizes[directory] = size
        try:
            note = json.dumps({"bytes": size, "inodes": inodes}).encode()
            atomic_write(f"{directory}/{_NOTE}", note, durable=False)
        except OSError:
            continue  # The layer is being removed, or the disk is full: it is measured again the next time
    return LayerSizes(
        {chain_id: sizes[directory] for directory, chain_id in layers.items()},
        {directory: sizes[directory] for directory in copies},
        {path: size for path, (size, _, _) in zip(places, found[len(unknown) :], strict=True)},
    )


def sizes_of(engine: Engine, chains: Iterable[str]) -> dict[str, int]:
    """The bytes on disk of each of these layers, by chain id."""
    layers = measure(engine.store, []).layers
    return {chain: layers.get(chain, 0) for chain in chains}
