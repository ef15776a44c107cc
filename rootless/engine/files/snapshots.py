"""The changes of a container or a build step, as a layer or as a list. Workers of storage do it; no image is made."""

from __future__ import annotations

from typing import NamedTuple

from rootless.engine.image_types import Change
from rootless.image.manifest import OCI_LAYER, Descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.engine.context import Engine
    from rootless.records.id_map import IdMap
    from rootless.records.rootfs import RootfsPlan
    from rootless.storage.layers.layer_store import LayerOptions


class NewLayer(NamedTuple):
    """A layer that was made here.

    descriptor: that of its uncompressed tar, whose digest is the diff_id; size: bytes of its files; entries: how many
    files, directories and whiteouts it has.
    """

    chain_id: str
    diff_id: str
    descriptor: Descriptor
    size: int
    entries: int


def commit_layer(engine: Engine, plan: RootfsPlan, id_map: IdMap, options: LayerOptions) -> NewLayer | None:
    """Make a layer of the writable directory of `plan` (launch.json's "rootfs"); None when nothing has changed.

    The caller holds `store.using()` until an image or a record names the layer, or garbage collection would remove it;
    and it sees to it that nothing writes to the directory meanwhile. id_map: the container's. Raises InvalidInput for
    files that no layer can hold, HostLimit (no space).
    """
    from rootless.engine.transfer.space import check_step

    layers = engine.store.layers
    check_step(engine.store)
    chain_id = layers.commit(plan, _map_on_disk(engine, plan, id_map), options)
    if chain_id is None:
        return None
    content = layers.record(chain_id).content
    descriptor = Descriptor(OCI_LAYER, content.diff_id, content.tar_size)
    return NewLayer(chain_id, content.diff_id, descriptor, content.size, content.entries)


def list_changes(engine: Engine, plan: RootfsPlan, id_map: IdMap, exclude: Sequence[str] = ()) -> list[Change]:
    """The files that differ in the writable directory of `plan`, in the order of paths. It may be in use meanwhile."""
    from rootless.storage.layers import worker_client
    from rootless.storage.layers.jobs import Changed, ChangesJob

    changed = Changed(plan, _map_on_disk(engine, plan, id_map), exclude)
    found = worker_client.run_job(ChangesJob(changed), engine.store.id_map)
    return sorted((Change(kind, path) for kind, path in found.changes), key=lambda change: change.path)


def _map_on_disk(engine: Engine, plan: RootfsPlan, id_map: IdMap) -> IdMap:
    """The id map by which the files in the layers and in `upper` have their owners; id_map: the container's."""
    return id_map if plan.owners is None else engine.store.id_map


def image_changes(engine: Engine, one: str, other: str | None = None) -> list[Change]:
    """The files in which image `other` differs from image `one`; without `other`, those of the topmost layer of `one`.

    Raises ImageNotFound.
    """
    from rootless.engine.image.image_names import require
    from rootless.image.manifest import chain_ids
    from rootless.storage.layers import worker_client
    from rootless.storage.layers.jobs import CompareJob

    layers = engine.store.layers
    chains = chain_ids(require(engine, one).config.diff_ids)
    others = chains if other is None else chain_ids(require(engine, other).config.diff_ids)
    before = chains[:-1] if other is None else chains
    job = CompareJob(layers.lowerdirs(before), layers.lowerdirs(others))
    return [Change(kind, path) for kind, path in worker_client.run_job(job, engine.store.id_map).changes]
