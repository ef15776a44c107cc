"""The bytes that layers take on disk. A layer never changes: each is measured once, and the result kept beside it."""

from __future__ import annotations

import json
import os

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


def measure(store: Store, places: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """The bytes on disk of each layer by chain id, with its copies for other id maps; and of each of `places` by path.

    Raises HostLimit.
    """
    layers: dict[str, int] = {}
    unknown: list[tuple[str, str]] = []
    for name in os.listdir(store.layers.directory):
        if len(name) < 64 or name.startswith("."):
            continue
        chain, directory = f"sha256:{name[:64]}", f"{store.layers.directory}/{name}"
        noted = _noted(directory)
        layers[chain] = layers.get(chain, 0) + (noted or 0)
        if noted is None:
            unknown.append((chain, directory))
    paths = [*(directory for _, directory in unknown), *places]
    found = worker_client.run(MeasureJob(paths), store.id_map).sizes if paths else []
    for (chain, directory), (size, inodes, _) in zip(unknown, found, strict=False):
        layers[chain] += size
        try:
            note = json.dumps({"bytes": size, "inodes": inodes}).encode()
            atomic_write(f"{directory}/{_NOTE}", note, durable=False)
        except OSError:
            continue  # The layer is being removed, or the disk is full: it is measured again the next time
    return layers, {path: size for path, (size, _, _) in zip(places, found[len(unknown) :], strict=True)}


def sizes_of(engine: Engine, chains: Iterable[str]) -> dict[str, int]:
    """The bytes on disk of each of these layers, by chain id."""
    layers, _ = measure(engine.store, [])
    return {chain: layers.get(chain, 0) for chain in chains}
