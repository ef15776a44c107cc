"""The verbs `cp` and `export`: files of containers, as archives between processes."""

from __future__ import annotations

import os
import posixpath
import stat
import sys

from rootless.engine.files import cp_rules
from rootless.engine.files.container_files import ContainerFiles
from rootless.engine.files.cp_rules import CopyPlacing, FoundDestination, base_name
from rootless.engine.report_types import FileCopyOptions
from rootless.engine.types import CopyResult
from rootless.errors import HostLimit, InvalidInput, NotFound, UsageError
from rootless.storage.roots.transfer_job import DestinationRequest, PlaceRequest, SourceRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.context import Engine
    from rootless.engine.files.cp_rules import CopyPlace
    from rootless.image.decompress import ByteSource
    from rootless.storage.roots.transfer_job import TransferAnswer

_PIECE = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def copy_files(engine: Engine, source: str, target: str, options: FileCopyOptions) -> CopyResult:
    """Copy files between a container and the host, or two containers (`cp`), by docker's rules.

    source, target: CONTAINER:PATH, a path of the host, or "-" for a tar stream. The files in a container's volumes are
    there whether it runs or not. Raises UsageError, NotFound, InvalidInput, HostLimit; InvalidState where something is
    in the way or read-only.
    """
    one, other = cp_rules.parse_place(source), cp_rules.parse_place(target)
    if one.container and other.container:
        return _between(engine, one, other, options)
    if one.container:
        return _out(engine, one, other, options)
    if other.container:
        return _in(engine, one, other, options)
    raise UsageError("must specify at least one container source", hint="write CONTAINER:PATH for one of the two")


def export_container(engine: Engine, container: str, output: str) -> None:
    """Write a container's whole root file system as a tar to the file `output` ("-": standard output), without volumes.

    A regular file gets its name when it is whole. Raises NotFound, HostLimit.
    """
    write_dump(output, lambda out: _export(engine, container, out))


def write_dump(output: str, export: Callable[[int], None]) -> None:
    """Let `export` write an archive to the descriptor of the file `output` ("-": standard output).

    A regular file gets its name when it is whole: no dump that a full disk or a kill cut short has it. Raises HostLimit
    and what `export` raises.
    """
    if output == "-":
        sys.stdout.flush()
        export(sys.stdout.fileno())
        return
    is_special = os.path.exists(output) and not os.path.isfile(output)
    temporary = output if is_special else f"{output}.{os.getpid()}.part"
    try:
        # The mode is 0600, as docker's: the archive has files that other users of the host may not read (etc/shadow)
        fd = os.open(temporary, os.O_WRONLY | (0 if is_special else os.O_CREAT | os.O_EXCL) | os.O_CLOEXEC, 0o600)
        try:
            export(fd)
        finally:
            os.close(fd)
        if not is_special:
            os.rename(temporary, output)
    except OSError as e:
        raise HostLimit(f"cannot write '{output}': {e.strerror}") from e
    finally:
        if not is_special and os.path.exists(temporary):
            os.unlink(temporary)


def _export(engine: Engine, container: str, out: int) -> None:
    with ContainerFiles(engine, container, writes=False, bare=True, out=out) as files:
        files.export()


def _writer(fd: int) -> Callable[[bytes], None]:
    def write(piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]

    return write


def _pump(reader: ByteSource, write: Callable[[bytes], object]) -> None:
    while piece := reader.read(_PIECE):
        write(piece)


def _inside(path: str) -> str:
    """The absolute path in a container that `path` means; a relative one is below its root.

    A slash or `/.` at the end stays, since it says that a directory is meant.
    """
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    if cleaned != "/" and path.endswith(("/", "/.")):
        cleaned += "/." if path.endswith("/.") else "/"
    return cleaned


def _out(engine: Engine, source: CopyPlace, target: CopyPlace, options: FileCopyOptions) -> CopyResult:
    path = _inside(source.path)
    with ContainerFiles(engine, source.container, writes=False) as files:
        found = _find_source(files, path, follow=options.follow)
        name = base_name(path)
        if target.is_stream:
            reader = files.pack(name)
            sys.stdout.flush()
            _pump(reader, _writer(sys.stdout.fileno()))
            return CopyResult(files.answer().size, 0)
        resolved, there = _host_destination(target.path)
        placing = cp_rules.choose(name, found.is_directory, target.path, there)
        top = resolved if placing.inside else os.path.dirname(resolved.rstrip("/")) or "/"
        from rootless.storage.files.placer import ArchivePlacer

        try:
            # _host_destination has followed all links of the path. If there is one at its end now, it was put there
            # since, perhaps by a container that has the directory above as a volume: following it would let that
            # container choose which of the user's files are overwritten
            fd = os.open(top, _DIRECTORY | (os.O_NOFOLLOW if placing.inside else 0))
            try:
                placer = ArchivePlacer(fd, None, overwrite=options.overwrite, keep=options.archive)
                placer.place(files.pack(placing.name))
            finally:
                os.close(fd)
        except OSError as e:
            raise _host_error(e, target.path) from e
        files.answer()
        return CopyResult(placer.size, placer.lost)


def _in(engine: Engine, source: CopyPlace, target: CopyPlace, options: FileCopyOptions) -> CopyResult:
    path = _inside(target.path)
    if source.is_stream:
        with ContainerFiles(engine, target.container, writes=True) as files:
            there = _find_destination(files, path)
            if not there.is_directory:
                raise InvalidInput(f"destination '{target.container}:{target.path}' must be a directory")
            # Docker's contract: the owners that an archive from standard input names are kept
            request = _request(CopyPlacing(True, "."), options, owners=True)
            request.keep = True
            return _place(files, request, _stream_in)
    place, name, shown, is_directory = _host_source(source.path, follow=options.follow)
    try:
        with ContainerFiles(engine, target.container, writes=True) as files:
            placing = cp_rules.choose(shown, is_directory, path, _find_destination(files, path))

            def pack(write: Callable[[bytes], None]) -> None:
                _pack_host(files, place, name, placing.name, write)

            return _place(files, _request(placing, options, owners=options.archive), pack)
    finally:
        os.close(place)


def _between(engine: Engine, source: CopyPlace, target: CopyPlace, options: FileCopyOptions) -> CopyResult:
    origin, path = _inside(source.path), _inside(target.path)
    with (
        ContainerFiles(engine, source.container, writes=False) as one,
        ContainerFiles(engine, target.container, writes=True) as other,
    ):
        if one.id == other.id:
            raise UsageError("cannot copy within one container", hint="rootless exec CONTAINER cp ...")
        found = _find_source(one, origin, follow=options.follow)
        placing = cp_rules.choose(base_name(origin), found.is_directory, path, _find_destination(other, path))
        reader = one.pack(placing.name)
        result = _place(other, _request(placing, options, owners=True), lambda write: _pump(reader, write))
        one.answer()
        return result


def _find_source(files: ContainerFiles, path: str, *, follow: bool) -> TransferAnswer:
    try:
        return files.ask(SourceRequest(path, follow=follow))
    except NotFound:
        raise NotFound(f"could not find the file '{path}' in container '{files.record.name}'") from None


def _find_destination(files: ContainerFiles, path: str) -> FoundDestination:
    try:
        found = files.ask(DestinationRequest(path))
        return FoundDestination(found.exists, found.is_directory, found.name)
    except NotFound:
        parent = posixpath.dirname(path.rstrip("/"))
        raise NotFound(f"could not find the directory '{parent}' in container '{files.record.name}'") from None


def _request(placing: CopyPlacing, options: FileCopyOptions, *, owners: bool) -> PlaceRequest:
    """The request to place an archive. owners: keep those that the archive names; else files get the first ids."""
    return PlaceRequest(inside=placing.inside, owners=owners, overwrite=options.overwrite, keep=options.archive)


def _place(
    files: ContainerFiles, request: PlaceRequest, source: Callable[[Callable[[bytes], None]], None]
) -> CopyResult:
    """Feed the archive of `source` into a container. A broken pipe is not raised, but the worker's error behind it."""
    files.send(request)
    try:
        source(_writer(files.feed))
    except BrokenPipeError:
        pass
    files.end_feed()
    answer = files.answer()
    return CopyResult(answer.size, answer.lost)


def _stream_in(write: Callable[[bytes], None]) -> None:
    from rootless.image.decompress import HEAD, PlainBytes

    stream = sys.stdin.buffer
    head = b""
    while len(head) < HEAD and (piece := stream.read(HEAD - len(head))):
        head += piece
    _pump(PlainBytes(head, stream), write)


def _host_source(path: str, *, follow: bool) -> tuple[int, str, str, bool]:
    """Open the directory of a file of the host that is to be copied.

    Returns its descriptor, the file's name in it, the name that it has in the archive, and whether it is a directory. A
    link is copied itself, unless `follow` or a slash at the end of `path` says otherwise. Raises NotFound, HostLimit.
    """
    shown = base_name(os.path.abspath(path) + ("/." if path.endswith("/.") or path in (".", "./") else ""))
    real = os.path.realpath(path) if follow or path.endswith(("/", "/.")) or path in (".", "..") else path
    try:
        status = os.lstat(real)
        parent, name = os.path.split(os.path.abspath(real))
        return (
            os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
            name or ".",
            shown,
            stat.S_ISDIR(status.st_mode),
        )
    except OSError as e:
        raise _host_error(e, path) from e


def _pack_host(files: ContainerFiles, place: int, name: str, archived: str, write: Callable[[bytes], None]) -> None:
    from rootless.storage.files.archiver import Archiver

    id_map = files.id_map

    def owner(uid: int, gid: int) -> tuple[int, int]:
        inner_uid, inner_gid = id_map.to_container_uid(uid), id_map.to_container_gid(gid)
        return (
            id_map.first_uid() if inner_uid is None else inner_uid,
            id_map.first_gid() if inner_gid is None else inner_gid,
        )

    archiver = Archiver(write, owner=owner)
    try:
        if archived == ".":
            fd = os.open(name, _DIRECTORY, dir_fd=place)
            try:
                archiver.directory(fd, "")
            finally:
                os.close(fd)
        else:
            archiver.add(place, name, archived)
        archiver.finish()
    except BrokenPipeError:
        raise
    except OSError as e:
        raise _host_error(e, name) from e


def _host_destination(path: str) -> tuple[str, FoundDestination]:
    """The path to which `path` of the host leads through its links, and what is there.

    As with docker, a link to a file that does not exist names that new file. Raises NotFound, InvalidInput.
    """
    try:
        where = path
        for _ in range(10):
            named = where.rstrip("/") or "/"
            if not os.path.islink(named):
                break
            where = os.path.join(os.path.dirname(named), os.readlink(named) + where[len(named) :])
        if os.path.basename(where) in (".", ".."):
            where = os.path.realpath(where)
        if os.path.lexists(where):
            is_directory = os.path.isdir(where)
            if not is_directory and path.endswith(("/", "/.")):
                raise InvalidInput(f"'{path}' is not a directory")
            absolute = os.path.abspath(where)
            return absolute, FoundDestination(True, is_directory, os.path.basename(absolute))
        absolute = os.path.abspath(where)
        if not os.path.isdir(os.path.dirname(absolute)):
            raise NotFound(f"no such directory: '{os.path.dirname(absolute)}'")
        return absolute, FoundDestination(False, False, os.path.basename(absolute))
    except OSError as e:
        raise _host_error(e, path) from e


def _host_error(error: OSError, path: str) -> HostLimit | NotFound:
    name = error.filename if isinstance(error.filename, str) else path
    if isinstance(error, FileNotFoundError):
        return NotFound(f"no such file or directory: '{name}'")
    return HostLimit(f"cannot copy '{name}': {error.strerror}")
