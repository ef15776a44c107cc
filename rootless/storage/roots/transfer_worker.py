"""The process that reads and writes a container's files for `cp` and `export`, in the container's user namespace.

fd 0: the messages of transfer_job, of which the first one names the container; fd 1: an answer to each of them; fd 3:
an archive to place; fd 4: the archive that is written. Files are reached below the descriptor of the root only.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
import struct
import sys

from rootless.errors import HostLimit, InvalidInput, InvalidState, NotFound, RootlessError
from rootless.host.answer import error_to_json, write_all
from rootless.kernel.files import open_in_root
from rootless.storage.files.archiver import Archiver
from rootless.storage.files.placer import ArchivePlacer, PlacedOwners
from rootless.storage.owners import overrides
from rootless.storage.owners.noted_owners import NotedOwners
from rootless.storage.roots.root_view import open_running, open_stopped
from rootless.storage.roots.transfer_job import (
    DestinationRequest,
    ExportRequest,
    PackRequest,
    PlaceRequest,
    SourceRequest,
    TransferAnswer,
    TransferJob,
    read_request,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.storage.roots.transfer_job import TransferRequest
    from rootless.storage.tar.tarstream import TarEntry

IN, OUT = 3, 4
_MAX_LINKS = 40
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_WORDS = {
    errno.ENOENT: NotFound,
    errno.ENOTDIR: InvalidInput,
    errno.ELOOP: InvalidInput,
    errno.EROFS: InvalidState,
}


def main() -> int:
    """Entry point of `worker_command("rootless.storage.roots.transfer_worker")`."""
    sys.setrecursionlimit(20000)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files: TransferFiles | None = None
    while (request := _receive()) is not None:
        try:
            if files is None:
                files = TransferFiles(TransferJob.from_json(request))
                answer = TransferAnswer().to_json()
            else:
                answer = files.answer(read_request(request)).to_json()
        except RootlessError as e:
            answer = {"error": error_to_json(e)}
        except RecursionError:
            answer = {"error": error_to_json(InvalidInput("the tree is too deep"))}
        except BrokenPipeError as e:
            answer = {"error": error_to_json(e)}
        except OSError as e:
            kind = _WORDS.get(e.errno or 0, HostLimit)
            name = os.fsdecode(e.filename) if isinstance(e.filename, (str, bytes)) else ""
            answer = {"error": error_to_json(kind(f"{name}: {e.strerror}".removeprefix(": ")))}
        content = json.dumps(answer).encode()
        try:
            write_all(1, struct.pack("!I", len(content)) + content)
        except BrokenPipeError:
            return 1  # the process that asked has ended
    return 0


def _receive() -> object | None:
    header = _exactly(4)
    if len(header) < 4:
        return None
    found: object = json.loads(_exactly(struct.unpack("!I", header)[0]))
    return found


def _exactly(size: int) -> bytes:
    content = b""
    while len(content) < size and (piece := os.read(0, size - len(content))):
        content += piece
    return content


class _Input:
    """A reader of fd 3."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        return os.read(IN, size if size >= 0 else 1 << 20)


class TransferFiles:
    """The files of one container. A `source` request precedes `pack`, a `destination` request precedes `place`;
    `export` needs no other."""

    def __init__(self, job: TransferJob) -> None:
        self._id_map = job.id_map
        self._single = self._id_map.kind == "single"
        self._plan = job.plan
        self._noted = overrides.append_to(job.directory) if self._single and job.writes else -1
        self._root = open_running(job.pid, job.started, bare=job.bare) if job.pid else open_stopped(job)
        os.umask(0)
        self._place = -1
        self._name = ""
        self._path = ""

    def answer(self, request: TransferRequest) -> TransferAnswer:
        """Do what one request asks. Raises OSError and RootlessError, which become the answer."""
        match request:
            case SourceRequest():
                return self._source(request)
            case PackRequest():
                return self._pack(request)
            case DestinationRequest():
                return self._destination(request)
            case PlaceRequest():
                return self._place_archive(request)
            case ExportRequest():
                return self._export()

    def _export(self) -> TransferAnswer:
        archiver = Archiver(lambda piece: write_all(OUT, piece), table=self._noted_owners())
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        archiver.directory(fd, "")
        archiver.finish()
        os.close(OUT)
        return TransferAnswer(size=archiver.size)

    def _noted_owners(self, name: str = "", path: str = "") -> NotedOwners | None:
        return NotedOwners(self._plan, name=name, path=path) if self._single else None

    def _source(self, request: SourceRequest) -> TransferAnswer:
        """Find what is to be copied out. A link at the end of the path means the link itself, unless the request asks
        to follow it or the path ends in `/`."""
        self._path = path = request.path
        name = path.rstrip("/").rpartition("/")[2]
        if name in ("", ".", "..") or path.endswith("/"):
            self._place, self._name = open_in_root(self._root, path, _PLACE), ""
            return TransferAnswer(is_directory=True)
        if request.follow:
            fd = open_in_root(self._root, path, os.O_PATH | os.O_CLOEXEC)
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                self._place, self._name = fd, ""
                return TransferAnswer(is_directory=True)
            os.close(fd)
            self._place, self._name, _ = self._resolve(path)
        else:
            parent = path.rstrip("/").rpartition("/")[0]
            self._place, self._name = open_in_root(self._root, parent or "/", _PLACE), name
        status = os.stat(self._name, dir_fd=self._place, follow_symlinks=False)
        return TransferAnswer(is_directory=stat.S_ISDIR(status.st_mode))

    def _pack(self, request: PackRequest) -> TransferAnswer:
        table = self._noted_owners(request.name, self._path)
        archiver = Archiver(lambda piece: write_all(OUT, piece), table=table)
        if self._name:
            archiver.add(self._place, self._name, request.name)
        else:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._place)
            archiver.directory(fd, request.name)
            os.close(fd)
        archiver.finish()
        os.close(OUT)
        return TransferAnswer(size=archiver.size)

    def _resolve(self, path: str) -> tuple[int, str, os.stat_result | None]:
        """Where `path` leads when all links are followed inside the root: the directory (an fd), the name in it, and
        the status of what is there, None for nothing. The name is "" when the fd itself is meant."""
        for _ in range(_MAX_LINKS):
            parent, _, name = path.rstrip("/").rpartition("/")
            if name in ("", ".", ".."):
                fd = open_in_root(self._root, path, _PLACE)
                return fd, "", os.fstat(fd)
            place = open_in_root(self._root, parent or "/", _PLACE)
            try:
                status = os.stat(name, dir_fd=place, follow_symlinks=False)
            except FileNotFoundError:
                return place, name, None
            if not stat.S_ISLNK(status.st_mode):
                return place, name, status
            target = os.readlink(name, dir_fd=place)
            os.close(place)
            path = target if target.startswith("/") else f"{parent}/{target}"
            self._path = path
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def _destination(self, request: DestinationRequest) -> TransferAnswer:
        """Find where to copy to; links are followed to their end, inside the root."""
        self._path = request.path
        self._place, self._name, status = self._resolve(request.path)
        if status is None:
            return TransferAnswer(name=self._name)
        is_directory = stat.S_ISDIR(status.st_mode)
        if not is_directory and request.path.endswith("/"):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), request.path)
        return TransferAnswer(exists=True, is_directory=is_directory, name=self._name)

    def _place_archive(self, request: PlaceRequest) -> TransferAnswer:
        """Place the archive from fd 3 in the directory that was found, or in the one that holds what was found."""
        top, where = self._place, self._path
        if not request.inside:
            where = where.rstrip("/").rpartition("/")[0]
        elif self._name:
            top = os.open(self._name, _PLACE | os.O_NOFOLLOW, dir_fd=self._place)
        own = self._id_map.first_uid(), self._id_map.first_gid()
        root = (0, 0) if self._has(0, 0) else own

        def find_owner(entry: TarEntry) -> tuple[int, int]:
            if not request.owners:
                return root
            return (entry.uid, entry.gid) if self._has(entry.uid, entry.gid) else own

        placer = ArchivePlacer(
            top,
            PlacedOwners(find_owner, own, self._noted),
            overwrite=request.overwrite,
            keep=request.keep,
            follow=lambda names: open_in_root(self._root, f"{where}/{names}", _PLACE),
        )
        try:
            placer.place(_Input())
        finally:
            # A placer that fails early leaves bytes of the archive unread. Without this end closed, the client would
            # wait for ever to write the rest into a full pipe, and this process for the client's next request.
            os.close(IN)
        answer = TransferAnswer(size=placer.size)
        answer.lost = placer.lost
        return answer

    def _has(self, uid: int, gid: int) -> bool:
        return self._single or (self._id_map.has_uid(uid) and self._id_map.has_gid(gid))
