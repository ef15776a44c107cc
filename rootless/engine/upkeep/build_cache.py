"""The verbs of the build cache: its use of the disk and its pruning. Builds write it, in rootless.builder."""

from __future__ import annotations

import os
import time

from rootless.errors import UsageError
from rootless.storage.store.step_records import BuildCache, CacheRecord, expired_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.engine.context import Engine
    from rootless.engine.report_types import CachePruned


def prune_build_cache(
    engine: Engine, *, all: bool, filters: Iterable[str] = (), keep: str | None = None
) -> CachePruned:
    """Remove records of build steps, the least recently used first, and the layers that nothing else needs.

    all: also the records whose layers an image has (which frees nothing, but the step is run again by the next build),
    and cache mounts. filters: until=DURATION, for records that were not used for so long; keep: a size of records that
    may stay. Raises UsageError.
    """
    from rootless.engine.report_types import CachePruned
    from rootless.storage.store.gc import collect_garbage
    from rootless.units import parse_size

    bound = parse_size(keep, "--keep-storage") if keep is not None else None
    older = _until(filters)
    gone = drop(engine, all=all, keep=bound, older=older)
    removed = [f"{record.key[:12]}\t{record.description}" for record in gone]
    freed = 0
    if all:
        names, size = _prune_mounts(engine, older)
        removed += names
        freed += size
    collected = collect_garbage(engine.store, keep_layer_blobs=engine.settings.keep_layer_blobs)
    if collected.busy:
        engine.warn("other commands are using the store: what was removed is freed by the next prune")
    return CachePruned(tuple(removed), freed + collected.freed)


def drop(engine: Engine, *, all: bool, keep: int | None = None, older: float | None = None) -> list[CacheRecord]:
    """Remove records and return them. Their layers stay until the next garbage collection.

    all: also those whose layers an image has; keep: bytes of records that may stay; older: seconds since their last
    use. Without both, all are removed.
    """
    cache = BuildCache(engine.store.root)
    records = cache.records()
    if not all:
        in_use = _chains_of_images(engine)
        records = [record for record in records if not record.chains or record.chains[-1] not in in_use]
    gone = records if keep is None and older is None else expired_records(records, keep=keep, older=older)
    for record in gone:
        cache.remove(record.key)
    return gone


def _chains_of_images(engine: Engine) -> set[str]:
    from rootless.image.manifest import chain_ids

    return {chain for entry in engine.store.index.entries() for chain in chain_ids(entry.config.diff_ids)}


def build_cache_usage(engine: Engine) -> tuple[list[tuple[str, int, float, str]], int]:
    """The records of build steps, and the bytes of all their layers.

    A record is its key, bytes, seconds since its last use, and description.
    """
    now = time.time()
    records = BuildCache(engine.store.root).records()
    lines = [(r.key, r.size, max(0.0, now - r.used), r.description) for r in records]
    layers = {r.chains[-1]: r.size for r in records if r.layer is not None}
    return lines, sum(layers.values())


def limit_build_cache(engine: Engine) -> None:
    """Remove the least recently used records until the rest is within the setting `build_cache_size`.

    Each build calls it at its end.
    """
    limit = engine.settings.build_cache_size
    if limit < 0:
        return
    cache = BuildCache(engine.store.root)
    for record in expired_records(cache.records(), keep=limit, older=None):
        cache.remove(record.key)


def _until(filters: Iterable[str]) -> float | None:
    from rootless.units import parse_duration

    older = None
    for text in filters:
        name, _, value = text.partition("=")
        if name not in ("until", "unused-for") or not value:
            raise UsageError(f"invalid filter '{text}'", hint="write until=DURATION, for example until=24h")
        older = parse_duration(value, "--filter until")
    return older


def _prune_mounts(engine: Engine, older: float | None) -> tuple[list[str], int]:
    """Remove the cache mounts that no step uses now. Returns a line for each, and the bytes that they took.

    older: only those not used for so many seconds. A step holds the lock of its cache mount while it runs.
    """
    from rootless.paths import Lock
    from rootless.storage.files.removal import remove_tree
    from rootless.storage.layers.tree_sizes import tree_sizes

    base = f"{engine.directories.cache}/build/mounts"
    names, size = [], 0
    try:
        found = os.listdir(base)
    except FileNotFoundError:
        return [], 0
    for name in found:
        path = f"{base}/{name}"
        try:
            with open(f"{path}/id", encoding="utf-8", errors="replace") as file:
                id = file.read(4096)
            if older is not None and time.time() - os.stat(f"{path}/id").st_mtime < older:
                continue
        except OSError:
            id = name
        lock = Lock(f"{path}/lock")
        if not lock.acquire(blocking=False):
            continue
        try:
            size += tree_sizes([path], engine.store.id_map)[0].allocated
            remove_tree(path, engine.store.id_map, trash=engine.store.path("trash"))
        finally:
            lock.release()
        names.append(f"cache mount\t{id}")
    return names, size
