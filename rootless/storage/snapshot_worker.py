"""The jobs of storage.unpack_worker that look at what a container has changed: `commit` and `changes`."""

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING, Any

from rootless.host.idmap import IdMap
from rootless.host.userns import enter
from rootless.kernel.files import syncfs
from rootless.storage import overrides
from rootless.storage.differ import LayerWriter, Tar, remove_dropped
from rootless.storage.difference import DIRECTORY, GONE, Difference
from rootless.storage.layer_rules import MAX_DEPTH
from rootless.storage.recipe import RecipeWriter

if TYPE_CHECKING:
    from collections.abc import Callable


def commit(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    """Enter the namespace and write the layer: see `commit_here`."""
    prepare(id_map)
    return commit_here(job, id_map)


def commit_here(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    """Write the layer, in a namespace of `id_map`.

    Job: plan; container_map; exclude, mount targets that are no change; timestamp, seconds or None; target, the new
    layer's directory with an empty `diff`; move, whether `upper` may become the layer. Without changes the answer has 0
    entries, and nothing else was done.
    """
    plan = job["plan"]
    owner = _translation(id_map, IdMap.from_json(job["container_map"]))
    single = id_map.kind == "single"
    difference = Difference(plan, owner or _same, job["exclude"])
    if not difference.nodes:
        return {"entries": 0}
    # A copied tree holds the whole image: only its changes may become the layer
    move = job["move"] and plan["driver"] != "copy"
    layer = job["target"]
    source = os.open(plan["upper"], DIRECTORY)
    target = -1 if move else os.open(f"{layer}/diff", DIRECTORY)
    if move:
        remove_dropped(source, difference.dropped)
    table = overrides.open_table(os.path.dirname(plan["upper"]))
    with RecipeWriter.create(layer) as recipe:
        tar = Tar(recipe)
        writer = LayerWriter(source, target, tar, owner=owner, timestamp=job["timestamp"], table=table, single=single)
        writer.write(difference.nodes)
        diff_id = tar.finish()
    if writer.noted:
        with open(overrides.append_to(layer), "wb") as file:
            file.writelines(writer.noted)
    if move:
        os.rmdir(f"{layer}/diff")
        os.rename(plan["upper"], f"{layer}/diff")
    # One call for all files, before the layer gets its name; a full disk may show only here
    syncfs(source)
    return {
        "diff_id": diff_id,
        "tar_size": recipe.tar_size,
        "size": writer.size,
        "entries": writer.entries,
        "markers": writer.markers,
        "lost": {"devices": 0, "owners": 0, "xattrs": 0},
    }


def changes(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    """What `diff` shows: [kind, path] in order. Job: plan, container_map, exclude."""
    prepare(id_map)
    owner = _translation(id_map, IdMap.from_json(job["container_map"]))
    difference = Difference(job["plan"], owner or _same, job["exclude"])
    found = []
    for node in difference.nodes:
        if node.path:
            kind = "D" if node.kind == GONE else "C" if node.exists else "A"
            found.append([kind, f"/{node.path}"])
    return {"changes": found}


def prepare(id_map: IdMap) -> None:
    """Become root of a new namespace."""
    enter(id_map)
    os.umask(0)
    sys.setrecursionlimit(3 * MAX_DEPTH + 500)
    # A directory stays open for each level of the deepest path, twice
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _same(uid: int, gid: int) -> tuple[int, int]:
    return uid, gid


def _translation(own: IdMap, other: IdMap) -> Callable[[int, int], tuple[int, int]] | None:
    """Ids as seen with map `own` to those of map `other`; None when they are the same. An id that the container does
    not have (only the host can have given it) becomes its root's."""
    if own.key() == other.key() and own.first_uid() == other.first_uid() and own.first_gid() == other.first_gid():
        return None
    known: dict[tuple[int, int], tuple[int, int]] = {}

    def translate(uid: int, gid: int) -> tuple[int, int]:
        found = known.get((uid, gid))
        if found is None:
            host_uid, host_gid = own.to_host_uid(uid), own.to_host_gid(gid)
            inner_uid = None if host_uid is None else other.to_container_uid(host_uid)
            inner_gid = None if host_gid is None else other.to_container_gid(host_gid)
            found = known[uid, gid] = (
                other.first_uid() if inner_uid is None else inner_uid,
                other.first_gid() if inner_gid is None else inner_gid,
            )
        return found

    return translate
