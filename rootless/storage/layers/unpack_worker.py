"""The process that works on layers: enters the user namespace, unpacks, commits, copies, deletes. One job each.

stdin: length, job as JSON, then the compressed archive. stdout: an answer (host.answer) with the result as JSON.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any

from rootless.errors import DigestMismatch, HostLimit, InvalidInput, RootlessError
from rootless.host.answer import encode_error, encode_result, write_all
from rootless.host.userns import enter
from rootless.kernel import mounts
from rootless.kernel.files import syncfs
from rootless.records.id_map import IdMap


def main() -> int:
    """Entry point of `worker_command("rootless.storage.layers.unpack_worker")`."""
    out = os.dup(1)
    os.dup2(2, 1)  # nothing but the answer may reach the caller
    try:
        job = json.loads(_exactly(struct.unpack("!I", _exactly(4))[0]))
        id_map = IdMap.from_json(job["id_map"])
        answer = encode_result(json.dumps(_OPERATIONS[job["operation"]](job, id_map)).encode())
    except RootlessError as e:
        answer = encode_error(e)
    except OSError as e:
        answer = encode_error(HostLimit(f"cannot work on a layer: {e}"))
    except (RecursionError, MemoryError) as e:
        answer = encode_error(InvalidInput(f"layer is too deep or too large: {e!r}"))
    try:
        write_all(out, answer)
    except BrokenPipeError:
        pass  # who asked has gone: a reader that was closed early
    os.close(out)
    os._exit(0)  # the inflating thread may still wait for a place in its queue


def _exactly(size: int) -> bytes:
    content = b""
    while len(content) < size:
        piece = os.read(0, size - len(content))
        if not piece:
            raise HostLimit("the caller of the unpacking process is gone")
        content += piece
    return content


def _unpack(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    # Everything is imported before the root changes: afterwards a file of the image would be found in its place

    from rootless.storage.layers.apply import Applier
    from rootless.storage.layers.attributes import LayerAttributes
    from rootless.storage.owners.overrides import append_to
    from rootless.storage.tar.inflate import Inflated
    from rootless.storage.tar.recipe import RecipeWriter
    from rootless.storage.tar.tarstream import TarStream

    enter(id_map)
    target = job["target"]
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    beside = os.open(os.path.dirname(target), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    codec = Inflated.codec(job["compression"])
    with RecipeWriter.create(os.path.dirname(target)) as recipe:
        _shut_in(target)
        source = Inflated(0, codec, recipe)
        uids, gids = ([(e.container, e.size) for e in extents] for extents in (id_map.uids, id_map.gids))
        attributes = LayerAttributes(uids, gids, single=id_map.kind == "single")
        applier = Applier(root, attributes, recipe)
        applier.apply(TarStream(source), source)
        diff_id = source.drain()
    if diff_id != (job["diff_id"] or diff_id):
        raise DigestMismatch(f"uncompressed layer has digest '{diff_id}' instead of '{job['diff_id']}'")
    if attributes.noted:
        table = append_to(".", dir_fd=beside)
        with open(table, "wb") as f:
            f.writelines(attributes.noted)
    os.close(beside)
    # One call for all files, before the layer gets its name; a full disk may show only here
    syncfs(root)
    return {
        "diff_id": diff_id,
        "tar_size": recipe.tar_size,
        "replaced": applier.replaced.name,
        "size": applier.size,
        "entries": applier.entries,
        "markers": applier.markers,
        "lost": attributes.lost.to_json(),
        "links": [[os.fsdecode(path), os.fsdecode(target)] for path, target in applier.links.items()],
        "implied": [os.fsdecode(path) for path in sorted(applier.implied)],
    }


def _shut_in(directory: str) -> None:
    """Make `directory` the root of this process' mount namespace, so that even a mistake here cannot leave it."""
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.mount(directory, directory, None, mounts.MS_BIND)
    os.chdir(directory)
    try:
        mounts.pivot_root(".", ".")
        mounts.umount(".", mounts.MNT_DETACH)
    except OSError:
        os.chroot(".")  # an initramfs cannot be pivoted away
    os.chdir("/")


def _finish(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    from rootless.storage.layers.complete import complete
    from rootless.storage.layers.replaced import take_out

    enter(id_map)
    if job["replaced"]:
        take_out(job["target"], job["replaced"])
    complete(job["target"], job["lowers"], [(p, t) for p, t in job["links"]], job["implied"])
    return {}


def _remap(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    from rootless.storage.files.tree_copy import PATH_DIRECTORY, Copier, copy_tree

    other = IdMap.from_json(job["other_map"])
    enter(id_map)

    def translate(uid: int, gid: int) -> tuple[int, int]:
        return (
            _through(other.to_host_uid(uid), other.to_host_uid(other.first_uid()), id_map.to_container_uid),
            _through(other.to_host_gid(gid), other.to_host_gid(other.first_gid()), id_map.to_container_gid),
        )

    copier = Copier(owner=translate, capability_root=translate(0, 0)[0], marks=True)
    os.umask(0)
    source, target = os.open(job["source"], PATH_DIRECTORY), os.open(job["target"], PATH_DIRECTORY)
    copy_tree(source, target, copier, job["target"])
    syncfs(target)
    return {"lost": {"xattrs": copier.lost}}


def _through(host: int | None, fallback: int | None, inward: Any) -> int:
    """Host id → id in this namespace; an id that the other map lacks becomes its root's."""
    found = inward(host if host is not None else fallback)
    if found is None:
        raise InvalidInput(f"id map uses id {host}, which is not yours")
    return int(found)


def _delete(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    from rootless.storage.files.removal import remove_tree

    remove_tree(job["target"], id_map)
    return {}


def _rebuild(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    from rootless.storage.layers.rebuild import Rebuilder

    enter(id_map)
    top, names = job["top"], job["names"]
    rebuilders = [Rebuilder(f"{top}/{name}") for name in names]
    _shut_in(top)  # a link in a changed tree must not lead to files that are not the layers'
    for name, rebuilder in zip(names, rebuilders, strict=True):
        rebuilder.enter(f"/{name}")
        rebuilder.write(job["out"])
        rebuilder.close()
    return {}


def _verify(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    from rootless.storage.layers.verify import verify
    from rootless.storage.tar.layer_rules import MAX_DEPTH

    enter(id_map)
    sys.setrecursionlimit(3 * MAX_DEPTH + 500)
    directory = job["directory"]
    return verify(directory, id_map, job["lost"], lambda: _shut_in(directory))


def _measure(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    from rootless.storage.layers.measure import measure

    enter(id_map)
    return {"sizes": measure(job["paths"])}


def _commit(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    from rootless.storage.layers import snapshot_worker

    return snapshot_worker.commit(job, id_map)


def _changes(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    from rootless.storage.layers import snapshot_worker

    return snapshot_worker.changes(job, id_map)


def _compare(job: dict[str, Any], id_map: IdMap) -> dict[str, Any]:
    from rootless.storage.layers import snapshot_worker

    return snapshot_worker.compare_images(job, id_map)


_OPERATIONS = {
    "unpack": _unpack,
    "finish": _finish,
    "remap": _remap,
    "delete": _delete,
    "rebuild": _rebuild,
    "verify": _verify,
    "measure": _measure,
    "commit": _commit,
    "changes": _changes,
    "compare": _compare,
}
