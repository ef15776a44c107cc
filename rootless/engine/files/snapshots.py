"""What a container or a build step has changed, as a layer or as a list. The work is storage's; it makes no image."""

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


class NewLayer(NamedTuple):
    """A layer made here. descriptor: of its uncompressed tar, whose digest is the diff_id; size: bytes of its files."""

    chain_id: str
    diff_id: str
    descriptor: Descriptor
    size: int
    entries: int


class LayerOptions(NamedTuple):
    """How a writable directory becomes a layer.

    move: the directory becomes the layer, and the plan is used up; with the copy driver it stays, and its changes are
    copied. timestamp: seconds since the epoch, later times of files become this. exclude: where something was mounted:
    what the runtime made there is no change. squash: the layer holds the whole tree, and needs none below it.
    """

    move: bool = False
    timestamp: int | None = None
    exclude: Sequence[str] = ()
    squash: bool = False


def commit_layer(engine: Engine, plan: RootfsPlan, id_map: IdMap, options: LayerOptions) -> NewLayer | None:
    """Make a layer of what is in the writable directory of `plan` (launch.json's "rootfs"); None when nothing changed.

    The caller holds `store.using()` until an image or a record names the layer, and nothing writes to the directory
    meanwhile. id_map: the container's. Raises InvalidInput (what no layer can hold), HostLimit (no space).
    """
    from rootless.engine.transfer.space import check_step

    layers = engine.store.layers
    check_step(engine.store)
    chain_id = layers.commit(
        plan,
        id_map,
        move=options.move,
        timestamp=options.timestamp,
        exclude=options.exclude,
        squash=options.squash,
    )
    if chain_id is None:
        return None
    record = layers.record(chain_id)
    diff_id = record["diff_id"]
    descriptor = Descriptor(OCI_LAYER, diff_id, record["tar_size"])
    return NewLayer(chain_id, diff_id, descriptor, record["size"], record["entries"])


def list_changes(engine: Engine, plan: RootfsPlan, id_map: IdMap, exclude: Sequence[str] = ()) -> list[Change]:
    """What is different in the writable directory of `plan`, in the order of paths; it may be in use meanwhile."""
    from rootless.storage.layers import worker_client

    result = worker_client.run(worker_client.changes_job(plan, id_map, exclude), engine.store.id_map)
    return sorted((Change(kind, path) for kind, path in result["changes"]), key=lambda change: change.path)


def image_changes(engine: Engine, one: str, other: str | None = None) -> list[Change]:
    """What image `other` has changed in the tree of image `one`; without `other` what the topmost layer of `one` has.

    Raises ImageNotFound.
    """
    from rootless.engine.image.image_names import require
    from rootless.image.manifest import chain_ids
    from rootless.storage.layers import worker_client

    layers = engine.store.layers
    chains = chain_ids(require(engine, one).config.diff_ids)
    others = chains if other is None else chain_ids(require(engine, other).config.diff_ids)
    before = chains[:-1] if other is None else chains
    job = {"operation": "compare", "one": layers.lowerdirs(before), "other": layers.lowerdirs(others)}
    return [Change(kind, path) for kind, path in worker_client.run(job, engine.store.id_map)["changes"]]
