"""The verb `image tree`: the layers of images, each once, below the one on which it lies. It changes nothing."""

from __future__ import annotations

from rootless.engine.image.image_names import familiar, require, tags
from rootless.engine.image.measured_layers import sizes_of
from rootless.engine.image_types import ImageTree, ImageTreeNode
from rootless.image.manifest import chain_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.engine.context import Engine
    from rootless.storage.store.index import ImageEntry


class _Layer:
    __slots__ = ("children", "diff_id", "images", "made_by", "users")

    def __init__(self, diff_id: str, made_by: str) -> None:
        self.diff_id = diff_id
        self.made_by = made_by
        self.images: list[str] = []
        self.users = 0
        self.children: list[str] = []


def image_tree(engine: Engine, names: Sequence[str] = ()) -> ImageTree:
    """The layers of all images, each once. names: only of these images, and of those that share a layer with one.

    Raises ImageNotFound.
    """
    entries = engine.store.index.entries()
    wanted = {require(engine, name).manifest_digest for name in names}
    if wanted:
        bases = {
            entry.config.diff_ids[0] for entry in entries if entry.manifest_digest in wanted and entry.config.diff_ids
        }
        entries = [entry for entry in entries if entry.config.diff_ids and entry.config.diff_ids[0] in bases]
    layers: dict[str, _Layer] = {}
    roots: list[str] = []
    empty: list[str] = []
    for entry in entries:
        chain = chain_ids(entry.config.diff_ids)
        steps = [str(step.get("created_by") or "") for step in entry.config.history if not step.get("empty_layer")]
        for position, chain_id in enumerate(chain):
            if chain_id not in layers:
                made_by = steps[position] if position < len(steps) else ""
                layers[chain_id] = _Layer(entry.config.diff_ids[position], made_by)
                (layers[chain[position - 1]].children if position else roots).append(chain_id)
            layers[chain_id].users += 1
        labels = _labels(entry)
        if chain:
            layers[chain[-1]].images += labels
        else:
            empty += labels
    sizes = sizes_of(engine, layers)
    found = [_node(layers, sizes, chain_id) for chain_id in _sorted(layers, roots)]
    if empty:
        found.append(ImageTreeNode("", "", 0, "no layers", tuple(sorted(empty)), len(empty), ()))
    unshared = sum(sizes[chain_id] * layer.users for chain_id, layer in layers.items())
    return ImageTree(tuple(found), len(entries), len(layers), sum(sizes.values()), unshared)


def _labels(entry: ImageEntry) -> list[str]:
    return [familiar(name) for name in tags(entry)] or [f"<none> {entry.config_digest[7:19]}"]


def _sorted(layers: dict[str, _Layer], chains: list[str]) -> list[str]:
    return sorted(chains, key=lambda chain: (-layers[chain].users, chain))


def _node(layers: dict[str, _Layer], sizes: dict[str, int], chain_id: str) -> ImageTreeNode:
    # Without recursion: an image's author decides how many layers it has, and a chain of a thousand would end the
    # program with a RecursionError
    order, waiting = [], [chain_id]
    while waiting:
        each = waiting.pop()
        order.append(each)
        waiting += layers[each].children
    made: dict[str, ImageTreeNode] = {}
    for each in reversed(order):
        layer = layers[each]
        children = tuple(made.pop(child) for child in _sorted(layers, layer.children))
        images = tuple(sorted(layer.images))
        made[each] = ImageTreeNode(each, layer.diff_id, sizes[each], layer.made_by, images, layer.users, children)
    return made[chain_id]
