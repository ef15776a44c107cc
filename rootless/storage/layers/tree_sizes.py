"""Sizes of trees that containers have written. A worker is started only for those that this process may not read."""

from __future__ import annotations

from rootless.storage.layers import worker_client
from rootless.storage.layers.jobs import MeasureJob
from rootless.storage.layers.measure import TreeSize, measure_alone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.records.id_map import IdMap


def tree_sizes(paths: Sequence[str], id_map: IdMap) -> list[TreeSize]:
    """The size of each path, also of what only the ids of `id_map` may read.

    Most trees are walked by this process alone, which takes no start of a worker. Where something is refused (a
    directory of another id with mode 700, or any with mode 000), one worker in the user namespace measures all paths
    concerned. Raises HostLimit when no such namespace can be made.
    """
    alone = [measure_alone(path) for path in paths]
    found = [size for size, _ in alone]
    refused = [position for position, (_, was_refused) in enumerate(alone) if was_refused]
    if refused:
        answer = worker_client.run_job(MeasureJob([paths[position] for position in refused]), id_map)
        for position, size in zip(refused, answer.sizes, strict=True):
            found[position] = TreeSize(*size)
    return found
