"""Jobs on whole trees inside the worker: unpack a context, squash layers, write a tree as files or as a tar."""

from __future__ import annotations

import io
import os
import stat
import tarfile

from rootless.builder.worker.worker_session import MountedTree, own_mounts
from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from _typeshed import ReadableBuffer

    from rootless.builder.context.context_files import FileNode
    from rootless.builder.worker.step_jobs import ExportedStatement, ExportJob, SquashJob, UnpackContextJob
    from rootless.builder.worker.worker_session import WorkerSession


def unpack(session: WorkerSession, job: UnpackContextJob, archive: int) -> None:
    """Unpack the archive behind the fd `archive` into the directory of `job`. Raises InvalidInput, HostLimit.

    Everything belongs to the calling user, who is root of the user namespace: the build reads the context as that user.
    """

    def inside() -> bytes:
        from rootless.builder.worker.placed_attributes import Rules
        from rootless.builder.worker.unpacking import unpack as apply

        own_mounts(session.pid)
        root = os.open(job.into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        apply(root, [(archive, "")], Rules(owner=(0, 0), chmod=_reachable, timestamp=0))
        return b""

    session.call(job.id_map, inside)


def _reachable(mode: int, is_directory: bool) -> int:
    """The mode that an entry of a context gets: its owner can read it, whatever its archive says, and it has no set-id
    bits, which would stand in a directory of the host."""
    return mode & 0o777 | (0o700 if is_directory else 0o400)


def squash(session: WorkerSession, job: SquashJob) -> None:
    """Merge the layers of `job` into its writable directory."""

    def inside() -> bytes:
        from rootless.builder.worker.squashing import merge

        own_mounts(session.pid)
        merge(job.layers, job.upper)
        return b""

    session.call(job.id_map, inside)


def export(session: WorkerSession, job: ExportJob) -> None:
    """Copy the tree into the directory of `job`. Everything belongs to the calling user.

    No file keeps a set-id bit: a set-uid program from an image would run on the host as the calling user for whoever
    starts it.
    """
    tree = MountedTree(job.tree)

    def inside() -> bytes:
        from rootless.builder.context.context_files import Match
        from rootless.builder.context.ignore import Exclusions
        from rootless.builder.worker.placed_attributes import Rules
        from rootless.builder.worker.placing import Placer

        own_mounts(session.pid)
        source = tree.open()
        statement = b"" if job.statement is None else _statement(source, job.statement)
        target = os.open(job.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        placer = Placer(target, Rules(owner=(0, 0), chmod=lambda mode, _: mode & 0o1777, timestamp=0))
        placer.copy(source, Match("", "", "", True), "/", parents=False, exclusions=Exclusions("", ()))
        placer.finish()
        if job.statement is not None:
            _write_statement(target, job.statement, statement)
        return b""

    try:
        session.call(job.id_map, inside)
    finally:
        tree.close()


def export_tar(session: WorkerSession, job: ExportJob, output: int) -> None:
    """Write the tree as a tar to the fd `output`, with names in order, so that the same tree gives the same bytes."""
    tree = MountedTree(job.tree)

    def inside() -> bytes:
        from rootless.builder.context.context_files import skip_nothing, walk

        own_mounts(session.pid)
        source = tree.open()
        with open(output, "wb", closefd=False) as out:
            # Not in tarfile's mode for streams, which can write no tar without its end
            archive = tarfile.TarFile(fileobj=_Counted(out), mode="w", format=tarfile.PAX_FORMAT)
            links: dict[tuple[int, int], str] = {}
            prefix = f"{job.prefix}/" if job.prefix else ""
            statement = b"" if job.statement is None else _statement(source, job.statement)
            if prefix:
                archive.addfile(_directory_member(job.prefix))
            for node in walk(source, "", skip_nothing):
                _add_member(archive, node, links, prefix)
            if job.statement is not None:
                member = tarfile.TarInfo(prefix + job.statement.name)
                member.size, member.mode, member.mtime = len(statement), 0o600, job.statement.moment
                archive.addfile(member, io.BytesIO(statement))
            if job.is_last:
                archive.close()
        return b""

    try:
        session.call(job.id_map, inside)
    finally:
        tree.close()


def _statement(root: int, wanted: ExportedStatement) -> bytes:
    """The statement about the regular files of the tree `root` (fd), each of which is a subject with its digest.

    Raises UsageError where the tree has a file of that name itself.
    """
    import hashlib
    import json

    from rootless.builder.context.context_files import skip_nothing, walk

    subjects = []
    for node in walk(root, "", skip_nothing):
        if node.path == wanted.name:
            hint = "give the provenance another name: --provenance=filename=NAME"
            raise UsageError(f"the image has a file '{node.path}' itself", hint=hint)
        if stat.S_ISREG(node.status.st_mode):
            fd = os.open(node.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=node.parent)
            with open(fd, "rb") as file:
                digits = hashlib.file_digest(file, "sha256").hexdigest()
            subjects.append({"name": node.path, "digest": {"sha256": digits}})
    document = json.loads(wanted.document)
    return json.dumps({**document, "subject": subjects}, indent=2).encode()


def _write_statement(directory: int, wanted: ExportedStatement, content: bytes) -> None:
    """Write the statement into the directory (fd), in the place of one of an earlier build."""
    try:
        os.unlink(wanted.name, dir_fd=directory)
    except FileNotFoundError:
        pass
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(wanted.name, flags, 0o600, dir_fd=directory), "wb") as file:
        file.write(content)
        file.flush()
        os.utime(file.fileno(), (wanted.moment, wanted.moment))


class _Counted(io.RawIOBase):
    """A file that knows its position, as tarfile wants it, where the file is a pipe."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._position = 0

    def write(self, content: ReadableBuffer, /) -> int:
        """Write all of `content`."""
        size = self._file.write(content)
        self._position += size
        return size

    def tell(self) -> int:
        """The number of bytes that were written."""
        return self._position


def _directory_member(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    return member


def _add_member(archive: tarfile.TarFile, node: FileNode, links: dict[tuple[int, int], str], prefix: str) -> None:
    """Add one entry, whose name begins with `prefix`.

    links: (device, inode) of files with several names → the name that was added first.
    """
    from rootless.storage.owners import overrides

    member = tarfile.TarInfo(prefix + node.path)
    status = node.status
    member.mode = status.st_mode & 0o7777
    member.uid, member.gid = status.st_uid, status.st_gid
    member.mtime = status.st_mtime_ns // 10**9
    kind = stat.S_IFMT(status.st_mode)
    if kind in (stat.S_IFREG, stat.S_IFDIR):
        override = overrides.read_override(f"/proc/self/fd/{node.parent}/{node.name}")
        if override is not None:
            member.uid, member.gid, member.mode = override.uid, override.gid, override.mode_now(status.st_mode)
    if kind == stat.S_IFDIR:
        member.type = tarfile.DIRTYPE
    elif kind == stat.S_IFLNK:
        member.type = tarfile.SYMTYPE
        member.linkname = os.readlink(node.name, dir_fd=node.parent)
    elif kind == stat.S_IFIFO:
        member.type = tarfile.FIFOTYPE
    elif kind == stat.S_IFREG:
        name = member.name
        first = links.setdefault((status.st_dev, status.st_ino), name) if status.st_nlink > 1 else name
        if first != name:
            member.type = tarfile.LNKTYPE
            member.linkname = first
        else:
            fd = os.open(node.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=node.parent)
            with open(fd, "rb") as file:
                member.size = status.st_size
                archive.addfile(member, file)
            return
    else:
        return
    archive.addfile(member)
