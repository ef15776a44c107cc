"""COPY, ADD and WORKDIR inside the worker: a child mounts the step's tree and the sources' trees, and places files.

The child is root of the shared user namespace in a mount namespace of its own; when it ends, the kernel takes the
mounts. The answer is what it prints on a pipe.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from rootless.builder.worker.worker_session import MountedTree, own_mounts
from rootless.errors import InvalidInput
from rootless.records.id_map import IdMap
from rootless.records.rootfs import RootfsPlan

if TYPE_CHECKING:
    from rootless.builder.context.context_files import Match
    from rootless.builder.context.ignore import Exclusions
    from rootless.builder.worker.worker_session import WorkerSession


def copy(session: WorkerSession, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Place the files of job["items"] on the tree of job["rootfs"], or into the plain directory job["into"].

    fds: the first roots that items name by position; the mounted job["trees"] are the next ones.
    {"skipped": count of special files that could not be made, "changed": latest ctime (ns) of a file that was read}.
    """
    from rootless.host import userns
    from rootless.storage import drivers

    id_map = IdMap.from_json(job["id_map"])
    spaces = session.namespaces(id_map)
    plan = None if job["into"] else RootfsPlan.from_job(job["rootfs"])
    mounter = None if plan is None else drivers.mounter(plan)
    sources = [MountedTree(source) for source in job["trees"]]

    def inside() -> bytes:
        own_mounts()
        target = job["into"] or f"{job['directory']}/rootfs"
        if mounter is not None:
            mounter(target)
        roots = [*fds, *(source.open() for source in sources)]
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return json.dumps(_place(root, roots, job, single=id_map.kind == "single")).encode()

    try:
        result: dict[str, Any] = json.loads(userns.call_in(spaces.user, inside))
        return result
    finally:
        if mounter is not None and plan is not None:
            mounter.close()
            drivers.unmount(plan)
        for source in sources:
            source.close()


def digest(session: WorkerSession, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """{"digest", "newest"} of what job["items"] take from the trees: for cache keys of COPY --from."""
    from rootless.host import userns

    spaces = session.namespaces(IdMap.from_json(job["id_map"]))
    sources = [MountedTree(source) for source in job["trees"]]

    def inside() -> bytes:
        from rootless.builder.context.digests import Content, Known

        own_mounts()
        roots = [*fds, *(source.open() for source in sources)]
        content = Content(Known(None), owned=True)
        for item in job["items"]:
            exclusions = _exclusions(item)
            for match in _matches(roots[item["root"]], item, exclusions):
                content.add(roots[item["root"]], match, exclusions)
        return json.dumps({"digest": content.hexdigest(), "newest": content.newest}).encode()

    try:
        result: dict[str, Any] = json.loads(userns.call_in(spaces.user, inside))
        return result
    finally:
        for source in sources:
            source.close()


def _exclusions(item: dict[str, Any]) -> Exclusions:
    from rootless.builder.context.ignore import Exclusions

    return Exclusions(item["ignore"], item["exclude"])


def _matches(root: int, item: dict[str, Any], exclusions: Exclusions) -> list[Match]:
    from rootless.builder.context.ignore import all_matches

    return all_matches(root, item["sources"], exclusions, wildcards=item["wildcards"])


def _place(root: int, roots: list[int], job: dict[str, Any], *, single: bool) -> dict[str, Any]:
    from rootless.builder.dockerfile.modes import parse_chmod
    from rootless.builder.worker.placing import Placer, Rules

    rules = Rules(
        owner=None if job["owner"] is None else (job["owner"][0], job["owner"][1]),
        chmod=parse_chmod(job["chmod"]) if job["chmod"] else None,
        timestamp=job["timestamp"],
        latest=job["latest"],
        is_owned=job["owned"],
        single=single,
        table=job["directory"],
    )
    placer = Placer(root, rules)
    archives: list[tuple[int, str]] = []
    for item in job["items"]:
        kind = item["kind"]
        if kind == "directory":
            placer.directories(item["path"])
        elif kind == "content":
            import base64

            where, name = placer.place(item["destination"], item["name"])
            placer.write(where, name, base64.b64decode(item["content"]), mode=item["mode"], time=item["time"])
        else:
            _place_files(placer, roots[item["root"]], item, job, archives)
    placer.finish()
    skipped = placer.skipped
    if archives:
        from rootless.builder.worker.unpacking import unpack

        skipped += unpack(root, archives, rules)
    return {"skipped": skipped, "changed": placer.latest_change}


def _place_files(
    placer: Any, root: int, item: dict[str, Any], job: dict[str, Any], archives: list[tuple[int, str]]
) -> None:
    from rootless.kernel.files import open_in_root

    exclusions = _exclusions(item)
    found = _matches(root, item, exclusions)
    destination = item["destination"]
    files = [match for match in found if not match.is_directory]
    if (
        len(found) > 1
        and files
        and not destination.endswith("/")
        and not item["parents"]
        and not placer.is_directory(destination)
    ):
        raise InvalidInput(f"when more than one file is copied, the destination '{destination}' must end with a '/'")
    for match in found:
        if item["unpack"] and not match.is_directory:
            from rootless.builder.worker.unpacking import is_archive

            fd = open_in_root(root, match.path, os.O_RDONLY | os.O_NONBLOCK)
            if is_archive(fd):
                archives.append((fd, placer.directories(destination)))
                continue
            os.close(fd)
        placer.copy(root, match, destination, parents=item["parents"], exclusions=exclusions)
