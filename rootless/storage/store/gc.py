"""Finds and removes garbage: half-made objects, trash, and blobs and layers that no image and no container needs.

An image or a container that has a name is never garbage. Whoever makes an object holds the store lock shared until its
name is written. The collection holds it exclusively, so that it sees no object whose name is still to come.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from rootless.errors import InvalidInput, NewerFormat, NotFound, RootlessError
from rootless.image.digest import hex_of
from rootless.image.manifest import Index, chain_ids
from rootless.paths import Lock, make_private
from rootless.storage.files.removal import delete_tree, remove_tree
from rootless.storage.store.index import is_image
from rootless.storage.store.step_records import BuildCache
from rootless.storage.tar.recipe import find_recipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootless.storage.store.store import Store

    Paths = list[str]

_POLL = 0.02
CONTAINER_PREFIX = "container-"  # containers in `quarantine` have their id behind it as a name


@dataclass(slots=True)
class Collected:
    """What one collection has found.

    containers: ids; copies: paths of layers' copies for other id maps (Layers.copies); temporaries: paths; freed: bytes
    of blobs and layers; busy: whether another process was using the store, so that nothing was done; quarantined: ids
    of containers that have lost their name and cannot get it again, and that hold files which they have written.
    """

    blobs: list[str] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    temporaries: list[str] = field(default_factory=list)
    freed: int = 0
    busy: bool = False


class Spared(NamedTuple):
    """What a collection spares unless its member is true.

    quarantine: damaged objects that `system check --repair` has replaced, at which the user may want to look (`system
    prune` takes them); unused_copies: copies of layers for other id maps (keep-id) that no container uses (`system
    prune -a`). Those of layers that are gone are always garbage.
    """

    quarantine: bool = False
    unused_copies: bool = False


def collect_garbage(
    store: Store,
    *,
    dry_run: bool = False,
    wait: float = 2.0,
    keep_layer_blobs: bool = True,
    also: Spared | None = None,
) -> Collected:
    """Remove all garbage of a store, and return what it was.

    dry_run: only find it; keep_layer_blobs: whether to keep the compressed bytes of layers that can be made again from
    their tree; also: what is garbage only when the user asks for it; wait: seconds to wait for pulls and creates to
    end. When they do not, `busy` is set, and the next collection does the work. Raises HostLimit when something cannot
    be removed.
    """
    lock = store.exclusive()
    deadline = time.monotonic() + wait
    while not lock.acquire(blocking=False):
        if time.monotonic() >= deadline:
            return Collected(busy=True)
        time.sleep(_POLL)
    try:
        collector = _Collector(store, also or Spared())
        found = collector.find(keep_layer_blobs)
        if not dry_run:
            collector.remove(found)
        return found
    finally:
        lock.release()


def used_copies(store: Store) -> set[str]:
    """The paths of the copies of layers (Layers.copies) that containers use, running or not.

    Raises InvalidInput when a damaged record leaves unknown what a container uses.
    """
    copies = store.layers.copies()
    used: set[str] = set()
    for container_id in store.containers.list() if copies else ():
        try:
            launch = store.containers.read_launch(container_id)
        except NotFound:
            continue
        if launch.rootfs is not None:
            used.update(os.path.dirname(directory) for directory in launch.rootfs.lowerdirs)
        if any(mount.kind == "image" for mount in store.containers.read(container_id).mounts):
            used.update(path for path in copies if os.path.basename(path)[65:] == launch.id_map.key())
    return used.intersection(copies)


def quarantined_containers(store: Store) -> Paths:
    """The paths of the containers in quarantine: those that have lost their name and could not get it again."""
    try:
        names = os.listdir(store.path("quarantine"))
    except FileNotFoundError:
        return []
    return [store.path("quarantine", name) for name in names if name.startswith(CONTAINER_PREFIX)]


class _Collector:
    """One collection, while the store's exclusive lock is held."""

    __slots__ = ("_also", "_store")

    def __init__(self, store: Store, also: Spared) -> None:
        self._store = store
        self._also = also

    def find(self, keep_layer_blobs: bool) -> Collected:
        """Find all garbage, and remove none of it."""
        found = Collected()
        self._find_temporaries(found)
        self._find_containers(found)
        self._find_unreferenced(found, keep_layer_blobs)
        self._find_copies(found)
        return found

    def _find_temporaries(self, found: Collected) -> None:
        store = self._store
        for part in ("incoming", "trash"):
            found.temporaries += [store.path(part, name) for name in os.listdir(store.path(part))]
        if self._also.quarantine:
            found.temporaries += self._quarantined()
        for part in ("layers", "volumes"):
            found.temporaries += [
                store.path(part, name) for name in os.listdir(store.path(part)) if name.startswith(".")
            ]

    def _quarantined(self) -> list[str]:
        """The damaged objects in quarantine that were replaced; none while any container runs, since that may have the
        old tree of a layer mounted.

        Containers are not among them: nothing replaces what they have written, so that only `system prune` removes it.
        """
        try:
            names = os.listdir(self._store.path("quarantine"))
        except FileNotFoundError:
            return []
        if any(self._runs(self._store.containers.path(name)) for name in os.listdir(self._store.containers.directory)):
            return []
        return [self._store.path("quarantine", name) for name in names if not name.startswith(CONTAINER_PREFIX)]

    @staticmethod
    def _runs(directory: str) -> bool:
        lock_path = f"{directory}/monitor.lock"
        if os.path.exists(lock_path):
            lock = Lock(lock_path)
            if not lock.acquire(blocking=False):
                return True
            lock.release()
        return False

    def _find_containers(self, found: Collected) -> None:
        published = set(self._store.containers.list())
        for name in os.listdir(self._store.containers.directory):
            directory = self._store.containers.path(name)
            if name in published:
                continue
            # A container that runs and has no name is just being removed by its own monitor (`--rm`)
            if not self._runs(directory):
                (found.quarantined if self._holds_work(name) else found.containers).append(name)

    def _holds_work(self, name: str) -> bool:
        """Whether a container that has lost its name, and could not get it again, holds files that it has written."""
        containers = self._store.containers
        if not containers.was_published(name) and not os.path.lexists(containers.path(name, "record.json")):
            return False
        try:
            if containers.read(name).options.rm:
                return False
        except RootlessError:
            pass  # the record is damaged, and does not say whether the container was one of `--rm`
        try:
            return bool(os.listdir(containers.path(name, "upper")))
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def _find_unreferenced(self, found: Collected, keep_layer_blobs: bool) -> None:
        """Find blobs and layers that no image, container or build step needs. When what any of these needs cannot be
        read, none are garbage."""
        try:
            blobs, layers = self._roots(keep_layer_blobs)
        except RootlessError:
            return  # `system check` reports the damaged image; deleting what it may need would lose more
        store = self._store
        for digest in store.blobs.digests():
            if digest not in blobs:
                found.blobs.append(digest)
                found.freed += store.blobs.size(digest)
        for chain_id in store.layers.list():
            if chain_id not in layers:
                found.layers.append(chain_id)
                try:
                    found.freed += store.layers.size(chain_id)
                except (NotFound, InvalidInput, KeyError):
                    pass

    def _find_copies(self, found: Collected) -> None:
        """Find copies of layers for other id maps that nobody needs: those of a layer that is gone, as after a removal
        that was cut off, and if asked for those that no container mounts."""
        store = self._store
        copies = store.layers.copies()
        if not copies:
            return
        whole = {hex_of(chain_id) for chain_id in store.layers.list()}
        orphans = [path for path in copies if os.path.basename(path)[:64] not in whole]
        if self._also.unused_copies:
            try:
                used = used_copies(store)
            except RootlessError:
                used = set(copies)  # what a container mounts cannot be read: it may be any of them
            copies = [path for path in copies if path not in used]
        else:
            copies = orphans
        gone = {hex_of(chain_id) for chain_id in found.layers}  # whose copies go with them
        found.copies = [path for path in copies if os.path.basename(path)[:64] not in gone]

    def _roots(self, keep_layer_blobs: bool) -> tuple[set[str], set[str]]:
        """The digests of blobs and the chain ids of layers that images, containers and build steps need."""
        store = self._store
        blobs: set[str] = set()
        layers: set[str] = set()
        layers.update(BuildCache(store.root).chains())
        manifests = set(store.index.manifest_digests())
        for container_id in store.containers.list():
            try:
                needs = store.containers.read_needs(container_id)
            except NewerFormat:
                raise
            except InvalidInput:
                # The record is damaged, so launch.json and config.json say which layers are needed. When one of these
                # is damaged too, the InvalidInput leaves this function, and every layer stays.
                layers.update(self._mounted(container_id), store.containers.mounted_layers(container_id))
                continue
            layers.update(needs.layers)
            try:
                layers.update(self._mounted(container_id))
            except InvalidInput:
                pass  # launch.json is damaged, but the record has said what is needed
            if needs.manifest_digest and store.blobs.has(needs.manifest_digest):
                manifests.add(needs.manifest_digest)
        waiting = list(manifests)
        while waiting:
            digest = waiting.pop()
            blobs.add(digest)
            try:
                document = store.index.document(digest)
                if isinstance(document, Index):
                    # Not all platforms of an index need be here
                    children = {child.digest for child in document.manifests if store.blobs.has(child.digest)}
                    waiting += children - blobs
                    continue
                blobs.add(document.config.digest)
                chain = chain_ids(store.index.load(digest).config.diff_ids) if is_image(document) else []
                layers.update(chain)
                for position, layer in enumerate(document.layers):
                    if keep_layer_blobs or position >= len(chain) or not self._can_be_made(chain[position]):
                        blobs.add(layer.digest)
            except NotFound:
                continue  # a blob of the image is gone, so that the image cannot be used and keeps nothing more
        return blobs, layers

    def _can_be_made(self, chain_id: str) -> bool:
        """Whether the layer can be made again from its tree: it has a recipe."""
        return find_recipe(self._store.layers.path(chain_id)) is not None

    def _mounted(self, container_id: str) -> set[str]:
        """Chain ids of the directories that a container mounts, as its launch record says."""
        try:
            launch = self._store.containers.read_launch(container_id)
        except NotFound:
            return set()
        found = set()
        for directory in launch.rootfs.lowerdirs if launch.rootfs else ():
            name = os.path.basename(os.path.dirname(directory)).partition("+")[0]
            try:
                found.add(f"sha256:{hex_of(f'sha256:{name}')}")
            except InvalidInput:
                continue
        if launch.rootfs and launch.rootfs.content:  # a view has the content of its files in all layers of the image
            for chain_id in tuple(found):
                found.update(self._below(chain_id))
        return found

    def _below(self, chain_id: str) -> Iterator[str]:
        """The chain ids of the layers below one, as their records say. Raises InvalidInput when one is damaged."""
        current: str | None = chain_id
        while current is not None:
            try:
                current = self._store.layers.record(current).parent
            except NotFound:
                return  # it is gone, and so is what the container would need of it
            if current is not None:
                yield current

    def remove(self, found: Collected) -> None:
        """Remove what was found, and the files beside it that nobody can need any more."""
        store = self._store
        for name in found.containers:
            remove_tree(store.containers.path(name), store.id_map)
        for name in found.quarantined:
            make_private(store.path("quarantine"))
            os.rename(store.containers.path(name), store.path("quarantine", f"{CONTAINER_PREFIX}{name}"))
        for digest in found.blobs:
            store.blobs.remove(digest)
        for chain_id in found.layers:
            store.layers.remove(chain_id)
        for path in found.copies:
            store.layers.remove_copy(path)
        for path in found.temporaries:
            delete_tree(path, store.id_map)
        with Lock(store.path("locks", "index")):  # whoever holds it may be writing such a file just now
            for name in os.listdir(store.root):
                if name.startswith(".index.json.") and name.endswith(".tmp"):
                    os.unlink(store.path(name))
        # Nobody holds a layer's lock or waits for one while the store lock is held exclusively. Else a lock file could
        # be deleted that one process has locked, and the next process would lock a new one beside it.
        for name in os.listdir(store.path("locks")):
            if name.startswith("layer-"):
                os.unlink(store.path("locks", name))
        for name in os.listdir(store.containers.names):
            store.containers.drop_stale(name)
