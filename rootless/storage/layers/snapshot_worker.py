"""The jobs of storage.layers.unpack_worker that compare trees: `commit`, `changes` and `compare`."""

from __future__ import annotations

import os
import resource
import sys

from rootless.errors import HostLimit
from rootless.host.userns import enter_new_namespace
from rootless.kernel.files import syncfs
from rootless.records.id_map import IdMap
from rootless.records.rootfs import RootfsPlan
from rootless.storage.changes.differ import LayerOwners, LayerWriter, Tar
from rootless.storage.changes.difference import GONE, Difference
from rootless.storage.changes.lowers import Lowers, resolve_in_union
from rootless.storage.drivers import ChangeForm, find_driver
from rootless.storage.files.entry_attributes import DIRECTORY
from rootless.storage.files.layer_views import SolidCopier
from rootless.storage.files.tree_copy import WHITEOUT, copy_tree
from rootless.storage.layers.jobs import ChangeList
from rootless.storage.layers.layer_record import LayerContent
from rootless.storage.owners import overrides
from rootless.storage.owners.noted_owners import NotedOwners
from rootless.storage.tar.layer_rules import MAX_DEPTH
from rootless.storage.tar.recipe import RecipeWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Thread

    from rootless.storage.layers.jobs import ChangesJob, CommitJob, CompareJob


_MANY = 500  # entries of a layer: for fewer, a second syncfs(2) costs more than it saves


def commit_changes(job: CommitJob, id_map: IdMap) -> LayerContent:
    """Write the layer, in a new namespace of `id_map`. When nothing was changed, the answer has 0 entries and no layer
    is made."""
    enter_for_trees(id_map)
    plan, exclude = job.changed.plan, job.changed.exclude
    form = find_driver(plan.driver).form
    if job.squash:
        exclude = _without_own(plan, exclude)
        plan, form = _flatten(plan, job.target), ChangeForm()
    owner = _translation(id_map, job.changed.container_map)
    single = id_map.kind == "single"
    difference = Difference(plan, form, owner or _same, exclude)
    if not difference.nodes:
        return LayerContent("", 0, 0, 0, "overlay")
    # A copied tree holds the whole image: only its changes may become the layer
    move = (job.move and not form.holds_whole_tree) or job.squash
    layer = job.target
    source = os.open(plan.upper, DIRECTORY)
    target = -1 if move else os.open(f"{layer}/diff", DIRECTORY)
    early: Thread | None = None
    if move:
        _remove_dropped(source, difference.dropped)
        if len(difference.nodes) >= _MANY:
            early = _begin_sync(plan.upper)
    table = NotedOwners(job.changed.plan)
    with RecipeWriter.create(layer) as recipe:
        tar = Tar(recipe)
        writer = LayerWriter(source, target, tar, LayerOwners(owner, table, single), job.timestamp)
        writer.write(difference.nodes)
        diff_id = tar.finish()
    if writer.noted:
        with open(overrides.append_to(layer), "wb") as file:
            file.writelines(writer.noted)
    if move:
        os.rmdir(f"{layer}/diff")
        os.rename(plan.upper, f"{layer}/diff")
    # One syncfs(2) for all files, in place of an fsync(2) for each. It comes before the layer gets its name, which says
    # that the layer is whole; on some file systems a full disk shows only here.
    if early is not None:
        early.join()
    syncfs(source)
    return LayerContent(diff_id, recipe.tar_size, writer.size, writer.entries, writer.markers)


def _begin_sync(directory: str) -> Thread | None:
    """Begin to bring the files of `directory` to the disk in a thread, while they are read for their digest: the
    syncfs(2) that counts has little left to do then.

    The thread has a descriptor of its own, because the kernel reports a failed write once for each (syncfs(2),
    "ERRORS"). So an error that this one meets is ignored here, and met again by the one that counts. None where a limit
    of processes leaves no room for a thread.
    """
    from threading import Thread

    fd = os.open(directory, DIRECTORY)

    def sync() -> None:
        try:
            syncfs(fd)
        except OSError:
            pass
        finally:
            os.close(fd)

    thread = Thread(target=sync)
    try:
        thread.start()
    except RuntimeError:
        os.close(fd)
        return None
    return thread


def _without_own(plan: RootfsPlan, exclude: Sequence[str]) -> list[str]:
    """The mount targets, and directories above them, that the image lacks: the runtime has made these."""
    lowers = Lowers(plan.lowerdirs, by_name=find_driver(plan.driver).form.has_named_whiteouts)
    missing: set[str] = set()
    for target in exclude:
        place, path = lowers, ""
        for name in resolve_in_union(lowers, target).split("/"):
            path = f"{path}/{name}"
            if place.find(name) is None:
                missing.add(path)
            place = place.enter(name)
    return sorted(missing)


def _flatten(plan: RootfsPlan, layer: str) -> RootfsPlan:
    """Copy the whole tree of a plan into one directory, and return a plan with that directory and no layers below it:
    every file in it is a change then."""
    flat = f"{layer}/flat"
    os.mkdir(flat, 0o700)
    target = os.open(flat, DIRECTORY)
    is_whole = find_driver(plan.driver).form.holds_whole_tree
    for directory in (plan.upper,) if is_whole else (*reversed(plan.lowerdirs), plan.upper):
        source = os.open(directory, DIRECTORY)
        copy_tree(source, target, SolidCopier(plan.content), flat)
        os.close(source)
    os.close(target)
    whole = RootfsPlan("", layer, [])
    whole.upper = flat
    return whole


def list_changes(job: ChangesJob, id_map: IdMap) -> ChangeList:
    """What `rootless diff` shows: every change, directories before what is in them."""
    enter_for_trees(id_map)
    changed = job.changed
    owner = _translation(id_map, changed.container_map)
    form = find_driver(changed.plan.driver).form
    difference = Difference(changed.plan, form, owner or _same, changed.exclude)
    found = []
    for node in difference.nodes:
        if node.path:
            kind = "D" if node.kind == GONE else "C" if node.exists else "A"
            found.append((kind, f"/{node.path}"))
    return ChangeList(found)


def compare_images(job: CompareJob, id_map: IdMap) -> ChangeList:
    """What is different between the trees of two images."""
    from rootless.storage.changes.union_difference import compare_unions

    enter_for_trees(id_map)
    return ChangeList(compare_unions(Lowers(job.one, by_name=True), Lowers(job.other, by_name=True)))


def enter_for_trees(id_map: IdMap) -> None:
    """Become root of a new user namespace, with limits for the deepest tree that a layer may have."""
    enter_new_namespace(id_map)
    os.umask(0)
    sys.setrecursionlimit(3 * MAX_DEPTH + 500)
    # The functions that walk trees keep two directories open for each level of the path
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _same(uid: int, gid: int) -> tuple[int, int]:
    return uid, gid


def _translation(own: IdMap, other: IdMap) -> Callable[[int, int], tuple[int, int]] | None:
    """What translates (uid, gid) of a namespace with the map `own` to those with the map `other`; None when they are
    the same. An id that `other` lacks, which only the host can have given to a file, becomes that of its root."""
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
    """Delete from the writable directory what is no change. The directories keep their times.

    paths: what is in a directory comes before the directory.
    """
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
