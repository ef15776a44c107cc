"""The verb `system check`: whether all in the store is what it should be. `engine.upkeep.repair` repairs what is not.

A blob must have its digest. A layer's tree must be what its recipe and archive say: content, kind, owner, mode, time,
extended attributes, no file too many and none too few. Records must be readable, and what they name must exist.
"""

from __future__ import annotations

import os

from rootless.engine.image.image_names import familiar
from rootless.engine.report_types import (
    BLOB,
    CONTAINER,
    GARBAGE,
    IMAGE,
    INDEX,
    LAYER,
    NAME,
    VOLUME,
    CheckResult,
    StoreFinding,
)
from rootless.engine.upkeep.remake import damages
from rootless.errors import DigestMismatch, NotFound, RootlessError
from rootless.image.manifest import chain_ids
from rootless.storage.layers import worker_client
from rootless.storage.layers.jobs import VerifyJob
from rootless.storage.store.gc import collect_garbage
from rootless.storage.tar import recipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rootless.engine.context import Engine
    from rootless.records.container import ContainerRecord
    from rootless.storage.layers.layer_record import LayerRecord
    from rootless.storage.store.index import ImageEntry


def check_store(
    engine: Engine, *, repair: bool = False, quick: bool = False, progress: Callable[[str], None] | None = None
) -> CheckResult:
    """Verify blobs, layers, names, records, containers and volumes, and list what nothing needs.

    repair: repair what can be, and remove what nothing needs; quick: read no content of blobs and layers; progress: is
    called with the name of each object. Damage is a finding, and raises no error.
    """
    look = _Look(engine, quick=quick, say=progress or (lambda text: None))
    with engine.store.using():
        found = look.everything()
        if repair:
            from rootless.engine.upkeep.repair import repair as put_right

            found = put_right(engine, found, look.damaged_layers)
    # This takes the exclusive lock, or waits half a second for it: while a command makes something, what nothing needs
    # may be about to get its name
    garbage = collect_garbage(
        engine.store, dry_run=not repair, wait=0.5, keep_layer_blobs=engine.settings.keep_layer_blobs
    )
    for kind, names in (
        ("unneeded blobs", garbage.blobs),
        ("unneeded layers", garbage.layers),
        ("copies of layers that are gone", garbage.copies),
        ("containers without a name", garbage.containers),
        ("containers that lost their name and record, whose files go into quarantine", garbage.quarantined),
        ("things half made or half removed", garbage.temporaries),
    ):
        if names:
            done = "removed" if repair else ""
            found.append(StoreFinding(GARBAGE, "", f"{len(names)} {kind}", tuple(names[:10]), done, is_damage=False))
    return CheckResult(tuple(found), look.blobs, look.layers, look.images, look.containers, look.volumes)


class _Look:
    __slots__ = (
        "_engine",
        "_found",
        "_quick",
        "_say",
        "_store",
        "blobs",
        "containers",
        "damaged_layers",
        "images",
        "layers",
        "volumes",
    )

    def __init__(self, engine: Engine, *, quick: bool, say: Callable[[str], None]) -> None:
        self._engine = engine
        self._store = engine.store
        self._quick = quick
        self._say = say
        self._found: list[StoreFinding] = []
        # chain id → whether its content is whole, and only owners, modes and the like are not
        self.damaged_layers: dict[str, bool] = {}
        self.blobs = self.layers = self.images = self.containers = self.volumes = 0

    def everything(self) -> list[StoreFinding]:
        """All findings, the basic ones first."""
        try:
            entries = self._store.index.entries()
            broken = self._store.index.broken()
        except RootlessError as e:
            self._found.append(StoreFinding(INDEX, "index.json", e.message))
            entries, broken = [], []
        self._blobs(entries)
        for digest, error in broken:
            self._found.append(StoreFinding(IMAGE, digest, error.message))
        self._layers()
        for entry in entries:
            self._image(entry)
        self._containers()
        self._volumes()
        return self._found

    def _blobs(self, entries: list[ImageEntry]) -> None:
        sizes = {
            each.digest: each.size for entry in entries for each in (*entry.manifest.layers, entry.manifest.config)
        }
        for digest in sorted(self._store.blobs.digests()):
            try:
                size = self._store.blobs.size(digest)
            except NotFound:
                continue  # another command has replaced or removed the blob meanwhile
            self.blobs += 1
            if size != sizes.get(digest, size):
                self._found.append(StoreFinding(BLOB, digest, f"it has {size} bytes instead of {sizes[digest]}"))
                continue
            if self._quick:
                continue
            self._say(f"blob {digest[7:19]}")
            try:
                self._store.blobs.verify(digest)
            except DigestMismatch:
                self._found.append(StoreFinding(BLOB, digest, "its bytes have another digest"))
            except (RootlessError, OSError) as e:
                self._found.append(StoreFinding(BLOB, digest, f"it cannot be read: {e}"))

    def _layers(self) -> None:
        for chain_id in sorted(self._store.layers.list()):
            self.layers += 1
            self._say(f"layer {chain_id[7:19]}")
            try:
                record = self._store.layers.record(chain_id)
                details, text, whole = self._layer(chain_id, record)
            except (RootlessError, KeyError, TypeError, ValueError) as e:
                details, text, whole = (), f"{e}", False
            if text:
                self.damaged_layers[chain_id] = whole
                self._found.append(StoreFinding(LAYER, chain_id, text, details))

    def _layer(self, chain_id: str, record: LayerRecord) -> tuple[tuple[str, ...], str, bool]:
        """The damages of a layer's tree; a short text about what is wrong, or ""; whether its tar can still be made."""
        diff_id, parent = record.content.diff_id, record.parent
        if chain_ids([parent, diff_id] if parent else [diff_id])[-1] != chain_id:
            return (), "its record is of another layer", False
        directory = self._store.layers.path(chain_id)
        if not os.path.isdir(f"{directory}/diff"):
            return (), "its tree is missing", False
        if recipe.find_recipe(directory) is None:
            if record.has_recipe:
                return (), "its recipe is missing", False
            return (), "", False  # An early version made the layer, without a recipe to compare its tree with
        if self._quick:
            return (), "", False
        job = VerifyJob(directory, record.content.lost, self._store.layers.lowers_of(record))
        found = worker_client.run_job(job, self._store.id_map)
        whole = found.diff_id == diff_id
        if not found.count:
            return (), "" if whole else "its recipe makes another archive", whole
        count = found.count
        text = "1 thing in its tree differs" if count == 1 else f"{count} things in its tree differ"
        return tuple(found.texts), text, whole

    def _image(self, entry: ImageEntry) -> None:
        self.images += 1
        name = familiar(entry.names[0]) if entry.names else entry.config_digest
        if len(entry.manifest.layers) != len(entry.config.diff_ids):
            self._found.append(StoreFinding(IMAGE, entry.manifest_digest, f"'{name}': manifest and config do not fit"))
            return
        missing = [each for each in chain_ids(entry.config.diff_ids) if not self._store.layers.has(each)]
        if missing:
            text = f"'{name}' lacks {len(missing)} of its {len(entry.config.diff_ids)} layers"
            self._found.append(StoreFinding(IMAGE, entry.manifest_digest, text, tuple(missing)))

    def _containers(self) -> None:
        containers = self._store.containers
        for container_id in containers.list():
            self.containers += 1
            try:
                record = containers.read(container_id)
                containers.read_state(container_id)
                needed = containers.read_needs(container_id).layers
            except RootlessError as e:
                self._found.append(StoreFinding(CONTAINER, container_id, e.message))
                continue
            missing = [each for each in needed if not self._store.layers.has(each)]
            if missing:
                text = f"'{record.name}' lacks {len(missing)} of its layers"
                self._found.append(StoreFinding(CONTAINER, container_id, text, tuple(missing)))
            for text in self._damaged_files(record):
                self._found.append(StoreFinding(CONTAINER, container_id, f"'{record.name}': {text}"))
        for name in os.listdir(containers.names):
            try:
                with open(f"{containers.names}/{name}", encoding="ascii", errors="replace") as file:
                    owner = file.read(128).strip()
            except OSError:
                continue
            if not os.path.exists(containers.path(owner or "-", "record.json")):
                self._found.append(StoreFinding(NAME, name, "the container that has this name is gone"))

    def _damaged_files(self, record: ContainerRecord) -> Iterator[str]:
        """A text for each damage of a container's files other than its record."""
        for damage in damages(self._engine, record):
            yield damage.text
        try:
            rootfs = self._store.containers.read_launch(record.id).rootfs
        except RootlessError:
            return  # `damages` has found launch.json damaged already
        if rootfs is not None and rootfs.upper and not os.path.isdir(rootfs.upper):
            yield "its directory `upper` is missing"

    def _volumes(self) -> None:
        directory = self._store.volumes.directory
        for name in sorted(os.listdir(directory)):
            if name.startswith("."):
                continue
            self.volumes += 1
            try:
                self._store.volumes.get(name)
            except RootlessError as e:
                self._found.append(StoreFinding(VOLUME, name, e.message))
                continue
            if not os.path.isdir(f"{directory}/{name}/_data"):
                self._found.append(StoreFinding(VOLUME, name, "its directory is missing"))
