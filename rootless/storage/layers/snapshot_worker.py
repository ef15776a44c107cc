"""The jobs of storage.layers.unpack_worker that look at what a container has changed: `commit` and `changes`."""

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING, Any

from rootless.errors import HostLimit
from rootless.host.userns import enter
from rootless.kernel.files import syncfs
from rootless.records.id_map import IdMap
from rootless.records.rootfs import RootfsPlan
from rootless.storage.changes.differ import LayerWriter, Tar
from rootless.storage.changes.difference import GONE, Difference
from rootless.storage.changes.lowers import Lowers, resolve
from rootless.storage.drivers import ChangeForm, find_driver
from rootless.storage.files.entry_attributes import DIRECTORY
from rootless.storage.files.tree_copy import WHITEOUT, Copier, copy_tree
from rootless.storage.owners import overrides
from rootless.storage.owners.noted_owners import NotedOwners
from rootless.storage.tar.layer_rules import MAX_DEPTH
from rootless.storage.tar.recipe import RecipeWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def commit(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    """Enter the namespace and write the layer: see `commit_here`."""
    prepare(id_map)
    return commit_here(job, id_map)


def commit_here(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    """Write the layer, in a namespace of `id_map`.

    Job: plan; container_map; exclude, mount targets that are no change; timestamp, seconds or None; target, the new
    layer's directory with an empty `diff`; move, whether `upper` may become the layer; squash, whether the layer is to
    hold the whole tree. Without changes the answer has 0 entries, and nothing else was done.
    """
    plan, exclude = RootfsPlan.from_job(job["plan"]), job["exclude"]
    form = find_driver(plan.driver).form
    if job["squash"]:
        exclude = _without_own(plan, exclude)
        plan, form = _flatten(plan, job["target"]), ChangeForm()
    owner = _translation(id_map, IdMap.from_json(job["container_map"]))
    single = id_map.kind == "single"
    difference = Difference(plan, form, owner or _same, exclude)
    if not difference.nodes:
        return {"entries": 0}
    # A copied tree holds the whole image: only its changes may become the layer
    move = (job["move"] and not form.holds_whole_tree) or job["squash"]
    layer = job["target"]
    source = os.open(plan.upper, DIRECTORY)
    target = -1 if move else os.open(f"{layer}/diff", DIRECTORY)
    if move:
        _remove_dropped(source, difference.dropped)
    table = NotedOwners(RootfsPlan.from_job(job["plan"]))
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
        os.rename(plan.upper, f"{layer}/diff")
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


def _without_own(plan: RootfsPlan, exclude: Sequence[str]) -> list[str]:
    """The mount targets, and directories above them, that the image does not have itself."""
    lowers = Lowers(plan.lowerdirs, by_name=find_driver(plan.driver).form.has_named_whiteouts)
    missing: set[str] = set()
    for target in exclude:
        place, path = lowers, ""
        for name in resolve(lowers, target).split("/"):
            path = f"{path}/{name}"
            if place.find(name) is None:
                missing.add(path)
            place = place.enter(name)
    return sorted(missing)


def _flatten(plan: RootfsPlan, layer: str) -> RootfsPlan:
    """The plan of a directory that holds all of the tree, on nothing: every file in it is a change."""
    flat = f"{layer}/flat"
    os.mkdir(flat, 0o700)
    target = os.open(flat, DIRECTORY)
    is_whole = find_driver(plan.driver).form.holds_whole_tree
    for directory in (plan.upper,) if is_whole else (*reversed(plan.lowerdirs), plan.upper):
        source = os.open(directory, DIRECTORY)
        copy_tree(source, target, Copier(), flat)
        os.close(source)
    os.close(target)
    whole = RootfsPlan("", layer, [])
    whole.upper = flat
    return whole


def changes(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    """What `diff` shows: [kind, path] in order. Job: plan, container_map, exclude."""
    prepare(id_map)
    owner = _translation(id_map, IdMap.from_json(job["container_map"]))
    plan = RootfsPlan.from_job(job["plan"])
    difference = Difference(plan, find_driver(plan.driver).form, owner or _same, job["exclude"])
    found = []
    for node in difference.nodes:
        if node.path:
            kind = "D" if node.kind == GONE else "C" if node.exists else "A"
            found.append([kind, f"/{node.path}"])
    return {"changes": found}


def compare_images(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    """What is different between two lists of layers, topmost first. Job: one, other."""
    from rootless.storage.changes.union_difference import compare

    prepare(id_map)
    one, other = (Lowers(job[key], by_name=True) for key in ("one", "other"))
    return {"changes": compare(one, other)}


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


def _remove_dropped(top: int, paths: Sequence[str]) -> None:
    """Delete what is in the writable directory and is no change, children first, without a trace in their parents."""
    for path in paths:
        parent, _, name = path.rpartition("/")
        fd = os.dup(top)
        for part in filter(None, parent.split("/")):
            inner = os.open(part, DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        try:
            status = os.fstat(fd)
            try:
                os.unlink(name, dir_fd=fd)
            except IsADirectoryError:
                try:
                    os.rmdir(name, dir_fd=fd)
                except OSError as e:
                    raise HostLimit(f"cannot take '{path}' out of the layer: {e.strerror}") from e
            except FileNotFoundError:
                os.unlink(WHITEOUT + name, dir_fd=fd)
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(fd)
