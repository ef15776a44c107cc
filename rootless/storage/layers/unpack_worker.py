"""The process that works on layers: it enters the user namespace, does one job of storage.layers.jobs and ends.

stdin: the length of the job, the job as JSON, then the compressed archive. stdout: an answer (host.answer) with the
result as JSON.
"""

from __future__ import annotations

import json
import os
import struct
import sys

from rootless.errors import DigestMismatch, HostLimit, InvalidInput, RootlessError
from rootless.host.answer import encode_error, encode_result, write_all
from rootless.host.userns import enter_new_namespace
from rootless.kernel import mounts
from rootless.kernel.files import syncfs
from rootless.kernel.process import end_with_parent
from rootless.records.fields import Fields
from rootless.records.id_map import IdMap
from rootless.storage.layers import jobs
from rootless.storage.layers.layer_record import LayerContent, LostAttributes
from rootless.storage.worker_jobs import NoAnswer, read_job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.storage.files.tree_copy import Owner
    from rootless.storage.worker_jobs import Answer


def main() -> int:
    """Entry point of `worker_command("rootless.storage.layers.unpack_worker")`."""
    out = os.dup(1)
    os.dup2(2, 1)  # what any code prints goes to stderr: the caller must read nothing but the answer
    try:
        message = Fields(json.loads(_exactly(struct.unpack("!I", _exactly(4))[0])), "job on a layer")
        id_map = IdMap.from_fields(message.require_member("id_map"))
        job = read_job(message, jobs.LAYER_JOB_READERS)
        answer = encode_result(json.dumps(_do(job, id_map).to_json()).encode())
    except RootlessError as e:
        answer = encode_error(e)
    except OSError as e:
        answer = encode_error(HostLimit(f"cannot work on a layer: {e}"))
    except (RecursionError, MemoryError) as e:
        answer = encode_error(InvalidInput(f"layer is too deep or too large: {e!r}"))
    try:
        write_all(out, answer)
    except OSError:
        pass  # the caller has ended, or cannot be told: without an answer it reports that this process has ended
    os.close(out)
    # Without waiting for threads: after an error, the inflating thread may wait for a place in its queue for ever
    os._exit(0)


def _enter(id_map: IdMap) -> None:
    """Enter the user namespace, and get killed by the kernel when the thread that waits for the answer ends."""
    parent = os.getppid()
    enter_new_namespace(id_map)
    end_with_parent(parent)  # after the change of ids, which clears the parent-death signal (PR_SET_PDEATHSIG)


def _exactly(size: int) -> bytes:
    content = b""
    while len(content) < size:
        piece = os.read(0, size - len(content))
        if not piece:
            raise HostLimit("the caller of the unpacking process is gone")
        content += piece
    return content


def _do(job: jobs.LayerJob, id_map: IdMap) -> Answer:
    """Do a job, in a namespace of `id_map`."""
    match job:
        case jobs.UnpackJob():
            return _unpack(job, id_map)
        case jobs.FinishJob():
            return _finish(job, id_map)
        case jobs.RemapJob():
            return _remap(job, id_map)
        case jobs.ViewJob():
            return _view(job, id_map)
        case jobs.DeleteJob():
            return _delete(job, id_map)
        case jobs.RebuildJob():
            return _rebuild(job, id_map)
        case jobs.VerifyJob():
            return _verify(job, id_map)
        case jobs.MeasureJob():
            return _measure(job, id_map)
    # The other jobs compare trees: their modules are loaded only for them
    from rootless.storage.layers import snapshot_worker

    match job:
        case jobs.CommitJob():
            return snapshot_worker.commit_changes(job, id_map)
        case jobs.ChangesJob():
            return snapshot_worker.list_changes(job, id_map)
        case jobs.CompareJob():
            return snapshot_worker.compare_images(job, id_map)


def _unpack(job: jobs.UnpackJob, id_map: IdMap) -> jobs.Unpacked:
    # Everything is imported before the root changes: afterwards Python would execute a module that the image brings

    from rootless.storage.layers.apply import Applier
    from rootless.storage.layers.attributes import LayerAttributes
    from rootless.storage.owners.overrides import append_to
    from rootless.storage.tar.inflate import Inflated
    from rootless.storage.tar.recipe import RecipeWriter
    from rootless.storage.tar.tarstream import TarStream

    _enter(id_map)
    target = job.target
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    beside = os.open(os.path.dirname(target), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    codec = Inflated.codec(0)
    with RecipeWriter.create(os.path.dirname(target)) as recipe:
        _shut_in(target)
        source = Inflated(0, codec, recipe)
        uids, gids = ([(e.container, e.size) for e in extents] for extents in (id_map.uids, id_map.gids))
        attributes = LayerAttributes(uids, gids, single=id_map.kind == "single")
        applier = Applier(root, attributes, recipe)
        applier.apply(TarStream(source), source)
        diff_id = source.drain()
    if diff_id != (job.diff_id or diff_id):
        raise DigestMismatch(f"uncompressed layer has digest '{diff_id}' instead of '{job.diff_id}'")
    if attributes.noted:
        table = append_to(".", dir_fd=beside)
        with open(table, "wb") as f:
            f.writelines(attributes.noted)
    os.close(beside)
    # One syncfs(2) for all files, in place of an fsync(2) for each. It comes before the layer gets its name, which says
    # that the layer is whole; on some file systems a full disk shows only here.
    syncfs(root)
    content = LayerContent(diff_id, recipe.tar_size, applier.size, applier.entries, applier.markers)
    content.lost = attributes.lost
    links = [(os.fsdecode(path), os.fsdecode(target)) for path, target in applier.links.items()]
    implied, whiteouts = (
        [os.fsdecode(path) for path in sorted(paths)] for paths in (applier.implied, applier.whiteouts)
    )
    return jobs.Unpacked(content, jobs.Unfinished(links, implied, applier.replaced.name, whiteouts))


def _shut_in(directory: str) -> None:
    """Make `directory` the root of this process, so that even a mistake in the code that follows cannot leave it."""
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.mount(directory, directory, None, mounts.MS_BIND)
    os.chdir(directory)
    try:
        mounts.pivot_root(".", ".")
        mounts.umount(".", mounts.MNT_DETACH)
    except OSError:
        os.chroot(".")  # pivot_root(2) refuses when the root is an initramfs
    os.chdir("/")


def _finish(job: jobs.FinishJob, id_map: IdMap) -> NoAnswer:
    from rootless.storage.layers.complete import complete_tree
    from rootless.storage.layers.replaced import take_out

    _enter(id_map)
    unfinished = job.unfinished
    if unfinished.replaced:
        take_out(job.target, unfinished.replaced)
    complete_tree(job.target, job.lowers, unfinished)
    return NoAnswer()


def _remap(job: jobs.RemapJob, id_map: IdMap) -> LostAttributes:
    from rootless.storage.files.tree_copy import PATH_DIRECTORY, Copier, copy_tree

    _enter(id_map)
    owner = _owners(job.other_map, id_map)
    copier = Copier(owner=owner, capability_root=owner(0, 0)[0], marks=True)
    os.umask(0)
    source, target = os.open(job.source, PATH_DIRECTORY), os.open(job.target, PATH_DIRECTORY)
    copy_tree(source, target, copier, job.target)
    syncfs(target)
    return LostAttributes(xattrs=copier.lost)


def _view(job: jobs.ViewJob, id_map: IdMap) -> LostAttributes:
    from rootless.storage.files.layer_views import ViewCopier
    from rootless.storage.files.tree_copy import PATH_DIRECTORY, copy_tree

    _enter(id_map)
    owner = _owners(job.other_map, id_map)
    os.umask(0)
    lost = 0
    target = os.open(job.target, PATH_DIRECTORY)
    for layer in job.layers:
        source = os.open(f"{job.data}/{layer}/diff", PATH_DIRECTORY)
        copier = ViewCopier(f"/{layer}/diff", owner=owner, capability_root=owner(0, 0)[0])
        copy_tree(source, target, copier, job.target)
        os.close(source)
        lost += copier.lost
    syncfs(target)
    return LostAttributes(xattrs=lost)


def _owners(other: IdMap, id_map: IdMap) -> Owner:
    """A function from a file's owner in an image to the ids, as a namespace of `id_map` sees them, by which a container
    of the map `other` sees that owner."""

    def translate(uid: int, gid: int) -> tuple[int, int]:
        return (
            _through(other.to_host_uid(uid), other.to_host_uid(other.first_uid()), id_map.to_container_uid),
            _through(other.to_host_gid(gid), other.to_host_gid(other.first_gid()), id_map.to_container_gid),
        )

    return translate


def _through(host: int | None, fallback: int | None, inward: Callable[[int], int | None]) -> int:
    """The id in this namespace of the host's id `host`, by `inward`. None stands for an id that the other map lacks:
    `fallback`, the host's id of its root, takes its place. Raises InvalidInput when this namespace lacks the id too."""
    wanted = fallback if host is None else host
    found = None if wanted is None else inward(wanted)
    if found is None:
        raise InvalidInput(f"id map uses id {host}, which is not yours")
    return found


def _delete(job: jobs.DeleteJob, id_map: IdMap) -> NoAnswer:
    from rootless.storage.files.removal import remove_tree

    remove_tree(job.target, id_map)
    return NoAnswer()


def _rebuild(job: jobs.RebuildJob, id_map: IdMap) -> NoAnswer:
    from rootless.storage.layers.rebuild import Rebuilder

    # Not by `_enter`: the parent-death signal comes when the thread that started this process ends, and another thread
    # may be the one that reads the tar
    enter_new_namespace(id_map)
    rebuilders = [Rebuilder(f"{job.top}/{name}") for name in job.names]
    _shut_in(job.top)  # a link in a tree that was tampered with must not lead to files outside of the layers
    for name, rebuilder in zip(job.names, rebuilders, strict=True):
        rebuilder.enter(f"/{name}")
        rebuilder.write(job.out)
        rebuilder.close()
    return NoAnswer()


def _verify(job: jobs.VerifyJob, id_map: IdMap) -> jobs.Verified:
    from rootless.storage.layers.verify import verify_layer
    from rootless.storage.tar.layer_rules import MAX_DEPTH

    _enter(id_map)
    sys.setrecursionlimit(3 * MAX_DEPTH + 500)
    return verify_layer(job, id_map, lambda: _shut_in(job.directory))


def _measure(job: jobs.MeasureJob, id_map: IdMap) -> jobs.Measured:
    from rootless.storage.layers.measure import measure_paths

    _enter(id_map)
    return jobs.Measured(measure_paths(job.paths))
