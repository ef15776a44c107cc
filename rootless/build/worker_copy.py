"""COPY, ADD and WORKDIR inside the worker: a child mounts the step's tree and the sources' trees, and places files.

The child is root of the shared user namespace in a mount namespace of its own; when it ends, the kernel takes the
mounts. The answer is what it prints on a pipe.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from rootless.errors import InvalidInput, NotFound
from rootless.host.idmap import IdMap

if TYPE_CHECKING:
    from rootless.build.files import Match, Skip
    from rootless.build.worker import Session


def copy(session: Session, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Place the files of job["items"] on the tree of job["rootfs"]. fds: the roots that items name by position.

    {"skipped": special files that could not be made, "newest": latest mtime in ns of what was read, "changed": ctime}.
    """
    from rootless.host import userns
    from rootless.storage import drivers

    id_map = IdMap.from_json(job["id_map"])
    spaces = session.namespaces(id_map)
    plan = job["rootfs"]
    mounter = None if job["detached"] else drivers.mounter(plan)
    sources = [_Mounted(source) for source in job["trees"]]

    def inside() -> bytes:
        _own_mounts()
        target = f"{job['directory']}/rootfs"
        if mounter is None:
            _bind(plan["upper"], target)
        else:
            mounter(target)
        roots = [*fds, *(source.mount() for source in sources)]
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return json.dumps(_place(root, roots, job, single=id_map.kind == "single")).encode()

    try:
        result: dict[str, Any] = json.loads(userns.call_in(spaces.user, inside))
        return result
    finally:
        if mounter is not None:
            mounter.close()
            drivers.unmount(plan)
        for source in sources:
            source.close()


def digest(session: Session, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """{"digest", "newest"} of what job["items"] take from the trees: for cache keys of COPY --from."""
    from rootless.host import userns

    spaces = session.namespaces(IdMap.from_json(job["id_map"]))
    sources = [_Mounted(source) for source in job["trees"]]

    def inside() -> bytes:
        from rootless.build.digests import Content, Known

        _own_mounts()
        roots = [*fds, *(source.mount() for source in sources)]
        content = Content(Known(None), owned=True)
        for item in job["items"]:
            skip, may_hold = _rules(item)
            for match in _matches(roots[item["root"]], item, skip):
                content.add(roots[item["root"]], [match], skip, may_hold)
        return json.dumps({"digest": content.hexdigest(), "newest": content.newest}).encode()

    try:
        result: dict[str, Any] = json.loads(userns.call_in(spaces.user, inside))
        return result
    finally:
        for source in sources:
            source.close()


class _Mounted:
    """The read-only tree of layers, mounted in the child."""

    __slots__ = ("_mounter", "_plan", "_target")

    def __init__(self, source: dict[str, Any]) -> None:
        from rootless.storage import drivers

        self._plan = source["rootfs"]
        self._target = source["target"]
        self._mounter = drivers.mounter(self._plan)

    def mount(self) -> int:
        self._mounter(self._target)
        return os.open(self._target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        from rootless.storage import drivers

        self._mounter.close()
        drivers.unmount(self._plan)


def _own_mounts() -> None:
    from rootless.kernel import mounts
    from rootless.kernel.namespaces import CLONE_NEWNS, unshare

    unshare(CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_SLAVE)
    os.umask(0)


def _bind(source: str, target: str) -> None:
    from rootless.kernel import mounts

    mounts.mount(source, target, None, mounts.MS_BIND)


def _rules(item: dict[str, Any]) -> tuple[Skip, Skip | None]:
    from rootless.build.exclusions import exclusions

    return exclusions(item["ignore"], item["exclude"])


def _matches(root: int, item: dict[str, Any], skip: Skip) -> list[Match]:
    from rootless.build.files import matches

    found: list[Match] = []
    for source in item["sources"]:
        found += matches(root, source, skip, wildcards=item.get("wildcards", True))
    if not found and item["sources"]:
        raise NotFound(f"no file matches '{' '.join(item['sources'])}'")
    return found


def _place(root: int, roots: list[int], job: dict[str, Any], *, single: bool) -> dict[str, Any]:
    from rootless.build.modes import parse_chmod
    from rootless.build.placing import Placer, Rules

    rules = Rules(
        owner=None if job["owner"] is None else (job["owner"][0], job["owner"][1]),
        chmod=parse_chmod(job["chmod"]) if job["chmod"] else None,
        timestamp=job["timestamp"],
        latest=job["latest"],
        is_owned=job["owned"],
        single=single,
        table=job["rootfs"]["directory"],
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
        from rootless.build.unpacking import unpack

        skipped += unpack(root, archives, rules)
    return {"skipped": skipped}


def _place_files(placer: Any, root: int, item: dict[str, Any], job: dict[str, Any], archives: list[tuple[int, str]]) -> None:
    from rootless.kernel.files import open_in_root

    skip, may_hold = _rules(item)
    found = _matches(root, item, skip)
    destination = item["destination"]
    files = [match for match in found if not match.is_directory]
    if len(found) > 1 and files and not destination.endswith("/") and not item["parents"] and not placer.is_directory(destination):
        raise InvalidInput(f"when more than one file is copied, the destination '{destination}' must end with a '/'")
    for match in found:
        if item["unpack"] and not match.is_directory:
            from rootless.build.unpacking import is_archive

            fd = open_in_root(root, match.path, os.O_RDONLY | os.O_NONBLOCK)
            if is_archive(fd):
                archives.append((fd, placer.directories(destination)))
                continue
            os.close(fd)
        if item.get("rename"):
            match = match._replace(name=item["rename"])
        placer.copy(root, match, destination, parents=item["parents"], skip=skip, may_hold=may_hold)
