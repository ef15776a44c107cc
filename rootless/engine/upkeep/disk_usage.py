"""The bytes that the store takes on disk, by image, container, volume and build cache. It removes nothing.

Counted are allocated blocks, of a file with several hard links once. Layers never change, so that each is measured once
and the result is kept beside it (`disk.json`).
"""

from __future__ import annotations

import os

from rootless.engine.image.image_list import users_by_image
from rootless.engine.image.image_names import familiar, tags
from rootless.engine.image.measured_layers import measure
from rootless.engine.report_types import CacheUsage, ContainerUsage, CopyUsage, DiskUsage, ImageUsage, VolumeUsage
from rootless.errors import NotFound, RootlessError
from rootless.image.manifest import chain_ids
from rootless.storage.store.gc import used_copies
from rootless.storage.store.step_records import BuildCache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.storage.store.store import Store


def disk_usage(engine: Engine) -> DiskUsage:
    """The bytes allocated on disk, by image, container, volume and build step; in the sums what is shared counts once.

    Raises HostLimit when a tree cannot be read, InvalidInput for a damaged index.
    """
    store = engine.store
    ids = store.containers.list()
    volumes = store.volumes.list()
    places = [
        *(store.containers.path(container_id) for container_id in ids),
        *(os.path.dirname(volume.path) for volume in volumes),
    ]
    leftovers = _leftovers(store)
    mounts = f"{engine.directories.cache}/build"
    layers, copies, sizes = measure(store, [*places, *leftovers, mounts])
    containers = [_container(engine, each, sizes[store.containers.path(each)]) for each in ids]
    users = store.volumes.users()
    listed = tuple(
        VolumeUsage(each.name, len(users.get(each.name, ())), sizes[os.path.dirname(each.path)]) for each in volumes
    )
    images, needed, free = _images(store, layers)
    cache = _cache(store, layers, needed)
    known = needed | {chain for record in BuildCache(store.root).records() for chain in record.chains}
    strays = sum(size for chain, size in layers.items() if chain not in known)
    blobs = {digest: _allocated(store.blobs.path(digest)) for digest in store.blobs.digests()}
    return DiskUsage(
        images,
        tuple(each for each in containers if each is not None),
        listed,
        cache,
        sum(layers.get(chain, 0) for chain in needed) + sum(blobs.values()),
        free,
        sum(each.size for each in cache) + sizes[mounts],
        sum(sizes[path] for path in leftovers) + strays,
        _copies(store, copies),
    )


def _copies(store: Store, sizes: dict[str, int]) -> tuple[CopyUsage, ...]:
    try:
        used = used_copies(store)
    except RootlessError:
        used = set(sizes)
    return tuple(
        CopyUsage(f"sha256:{name[:64]}", name[65:], size, path in used)
        for path, size in sizes.items()
        for name in (os.path.basename(path),)
    )


def _leftovers(store: Store) -> list[str]:
    """The paths of things that were half made or are half removed: interrupted commands left them."""
    found = [store.path(part, name) for part in ("incoming", "trash") for name in os.listdir(store.path(part))]
    for part in ("layers", "volumes"):
        found += [store.path(part, name) for name in os.listdir(store.path(part)) if name.startswith(".")]
    return found


def _images(store: Store, layers: dict[str, int]) -> tuple[tuple[ImageUsage, ...], set[str], int]:
    """The images; the chain ids that images and containers need; the bytes that removing unused images would free."""
    entries = store.index.entries()
    users = users_by_image(store)
    # parts: the layers and blobs of each image, with their bytes; owners: the images that have a part, which is shared
    # when there are several
    parts: dict[str, dict[str, int]] = {}
    owners: dict[str, set[str]] = {}
    kept: set[str] = set()
    for entry in entries:
        chains = chain_ids(entry.config.diff_ids)
        mine = {chain: layers.get(chain, 0) for chain in chains}
        for digest in (entry.manifest_digest, entry.config_digest, *(each.digest for each in entry.manifest.layers)):
            mine[f"blob {digest}"] = _allocated(store.blobs.path(digest))
        parts[entry.manifest_digest] = mine
        for part in mine:
            owners.setdefault(part, set()).add(entry.manifest_digest)
        if users.get(entry.config_digest):
            kept.update(mine)
    of_containers = _chains_of_containers(store)
    needed = {part for part in owners if not part.startswith("blob ")} | of_containers
    kept |= of_containers
    sizes = {part: size for mine in parts.values() for part, size in mine.items()}
    found = [
        ImageUsage(
            entry.config_digest,
            tuple(familiar(name) for name in tags(entry)),
            entry.created_time,
            sum(parts[entry.manifest_digest].values()),
            sum(size for part, size in parts[entry.manifest_digest].items() if len(owners[part]) > 1),
            len(users.get(entry.config_digest, ())),
        )
        for entry in entries
    ]
    found.sort(key=lambda each: (-each.created, each.names))
    return tuple(found), needed, sum(size for part, size in sizes.items() if part not in kept)


def _chains_of_containers(store: Store) -> set[str]:
    found: set[str] = set()
    for container_id in store.containers.list():
        try:
            found.update(store.containers.read_needs(container_id).layers)
        except RootlessError:
            continue
    return found


def _cache(store: Store, layers: dict[str, int], needed: set[str]) -> tuple[CacheUsage, ...]:
    counted = set(needed)
    found = []
    for record in reversed(BuildCache(store.root).records()):
        own = [chain for chain in record.chains if chain not in counted]
        counted.update(own)
        found.append(
            CacheUsage(
                record.key,
                record.description,
                record.created,
                record.used,
                sum(layers.get(chain, 0) for chain in own),
                bool(record.chains) and record.chains[-1] in needed,
            )
        )
    return tuple(found)


def _container(engine: Engine, container_id: str, size: int) -> ContainerUsage | None:
    from rootless.engine.container.reconcile import state_of

    try:
        record = engine.store.containers.read(container_id)
        status = str(state_of(engine, container_id).status)
    except NotFound:
        return None
    except RootlessError:
        return ContainerUsage(container_id, "", "", 0.0, "damaged", size)
    return ContainerUsage(
        container_id,
        record.name,
        record.image or record.image_id,
        record.created,
        status,
        size,
    )


def _allocated(path: str) -> int:
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0
