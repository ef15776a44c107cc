"""The bytes that layers take on disk. A layer never changes: each is measured once, and the result kept beside it."""

from __future__ import annotations

import json
from typing import NamedTuple

from rootless.errors import InvalidInput
from rootless.image.digest import hex_of
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
    """Bytes on disk: of layers by chain id, of their copies for other id maps by name (Layers.copies), and of other
    places by path."""

    layers: dict[str, int]
    copies: dict[str, int]
    places: dict[str, int]


def measure(store: Store, places: list[str]) -> LayerSizes:
    """The bytes on disk of each layer, of each copy of one, and of each of `places`. Raises HostLimit."""
    sizes: dict[str, int] = {}
    unknown: list[str] = []
    for name in (*(hex_of(chain) for chain in store.layers.list()), *store.layers.copies()):
        noted = _noted(f"{store.layers.directory}/{name}")
        sizes[name] = noted or 0
        if noted is None:
            unknown.append(name)
    paths = [*(f"{store.layers.directory}/{name}" for name in unknown), *places]
    found = worker_client.run_job(MeasureJob(paths), store.id_map).sizes if paths else []
    for name, directory, (size, inodes, _) in zip(unknown, paths, found, strict=False):
        sizes[name] = size
        try:
            note = json.dumps({"bytes": size, "inodes": inodes}).encode()
            atomic_write(f"{directory}/{_NOTE}", note, durable=False)
        except OSError:
            continue  # The layer is being removed, or the disk is full: it is measured again the next time
    return LayerSizes(
        {f"sha256:{name}": size for name, size in sizes.items() if len(name) == 64},
        {name: size for name, size in sizes.items() if len(name) > 64},
        {path: size for path, (size, _, _) in zip(places, found[len(unknown) :], strict=True)},
    )


def sizes_of(engine: Engine, chains: Iterable[str]) -> dict[str, int]:
    """The bytes on disk of each of these layers, by chain id."""
    layers = measure(engine.store, []).layers
    return {chain: layers.get(chain, 0) for chain in chains}
