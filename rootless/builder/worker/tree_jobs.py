"""Jobs on whole trees inside the worker: unpack a context, squash layers, write a tree as files or as a tar."""

from __future__ import annotations

import os
import stat
import tarfile
from typing import TYPE_CHECKING, Any

from rootless.builder.worker.worker_session import MountedTree, own_mounts
from rootless.records.id_map import IdMap
from rootless.records.rootfs import RootfsPlan

if TYPE_CHECKING:
    from rootless.builder.worker.worker_session import WorkerSession


def unpack(session: WorkerSession, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """The archive of fds[0] below the empty directory job["into"]; everything belongs to the user."""
    from rootless.host import userns

    def inside() -> bytes:
        from rootless.builder.worker.placing import Rules
        from rootless.builder.worker.unpacking import unpack as apply

        own_mounts()
        root = os.open(job["into"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        apply(root, [(fds[0], "")], Rules(owner=(0, 0), chmod=_reachable, timestamp=0))
        return b""

    userns.call_in(session.namespaces(IdMap.from_json(job["id_map"])).user, inside)
    return {}


def _reachable(mode: int, is_directory: bool) -> int:
    """A context must be readable for its owner, whatever its archive says."""
    return mode & 0o777 | (0o700 if is_directory else 0o400)


def squash(session: WorkerSession, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Merge job["layers"] (bottom first) into the writable directory of job["rootfs"]."""
    from rootless.host import userns

    def inside() -> bytes:
        from rootless.builder.worker.squashing import merge

        os.umask(0)
        merge(job["layers"], RootfsPlan.from_job(job["rootfs"]).upper)
        return b""

    userns.call_in(session.namespaces(IdMap.from_json(job["id_map"])).user, inside)
    return {}


def export(session: WorkerSession, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Copy the tree into job["directory"]; everything belongs to the user, without set-id bits."""
    from rootless.host import userns

    tree = MountedTree(job["trees"][0])

    def inside() -> bytes:
        from rootless.builder.context.context_files import Match
        from rootless.builder.context.ignore import Exclusions
        from rootless.builder.worker.placing import Placer, Rules

        own_mounts()
        source = tree.open()
        target = os.open(job["directory"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        placer = Placer(target, Rules(owner=(0, 0), chmod=lambda mode, _: mode & 0o1777, timestamp=0))
        placer.copy(source, Match("", "", "", True), "/", parents=False, exclusions=Exclusions("", ()))
        placer.finish()
        return b""

    try:
        userns.call_in(session.namespaces(IdMap.from_json(job["id_map"])).user, inside)
    finally:
        tree.close()
    return {}


def tar(session: WorkerSession, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Write the tree as a tar to fds[0], names sorted."""
    from rootless.host import userns

    tree = MountedTree(job["trees"][0])

    def inside() -> bytes:
        from rootless.builder.context.context_files import nothing, walk

        own_mounts()
        source = tree.open()
        with (
            open(fds[0], "wb", closefd=False) as out,
            tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive,
        ):
            links: dict[tuple[int, int], str] = {}
            for node in walk(source, "", nothing):
                _member(archive, node.parent, node.name, node.path, node.status, links)
        return b""

    try:
        userns.call_in(session.namespaces(IdMap.from_json(job["id_map"])).user, inside)
    finally:
        tree.close()
    return {}


def _member(
    archive: tarfile.TarFile, parent: int, name: str, path: str, status: os.stat_result, links: dict[Any, str]
) -> None:
    from rootless.storage.owners import overrides

    member = tarfile.TarInfo(path)
    member.mode = status.st_mode & 0o7777
    member.uid, member.gid = status.st_uid, status.st_gid
    member.mtime = status.st_mtime_ns // 10**9
    kind = stat.S_IFMT(status.st_mode)
    if kind in (stat.S_IFREG, stat.S_IFDIR):
        override = overrides.read(f"/proc/self/fd/{parent}/{name}")
        if override is not None:
            member.uid, member.gid, member.mode = override.uid, override.gid, override.mode_now(status.st_mode)
    if kind == stat.S_IFDIR:
        member.type = tarfile.DIRTYPE
    elif kind == stat.S_IFLNK:
        member.type = tarfile.SYMTYPE
        member.linkname = os.readlink(name, dir_fd=parent)
    elif kind == stat.S_IFIFO:
        member.type = tarfile.FIFOTYPE
    elif kind == stat.S_IFREG:
        first = links.setdefault((status.st_dev, status.st_ino), path) if status.st_nlink > 1 else path
        if first != path:
            member.type = tarfile.LNKTYPE
            member.linkname = first
        else:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            with open(fd, "rb") as file:
                member.size = status.st_size
                archive.addfile(member, file)
            return
    else:
        return
    archive.addfile(member)
