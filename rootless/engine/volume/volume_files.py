"""The verbs `volume export` and `import`: a volume's files as a tar archive.

A child process with the user's default ids does the work, since the files may belong to any of them.
"""

from __future__ import annotations

import os
import sys

from rootless.engine.files.cp import write_dump
from rootless.errors import HostLimit, InvalidInput, InvalidState, NotFound
from rootless.host.answer import write_all
from rootless.host.userns import call_in_new_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.context import Engine
    from rootless.image.decompress import ByteSource
    from rootless.storage.tar.tarstream import TarEntry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_DEPTH = 20_000  # Python's frames, for trees that are thousands of directories deep


def export_volume(engine: Engine, name: str, output: str) -> None:
    """Write the files of a volume as a tar to the file `output` ("-": standard output).

    A regular file gets its name when it is whole. Raises NotFound, InvalidState for a volume that mounts something
    else, HostLimit.
    """
    data = _data(engine, name)

    def export(out: int) -> None:
        def pack() -> bytes:
            from rootless.storage.files.archiver import Archiver

            archiver = Archiver(lambda piece: write_all(out, piece))
            archiver.directory(os.open(data, _DIRECTORY), "")
            archiver.finish()
            return b""

        _work(engine, pack, f"cannot export volume '{name}'")

    write_dump(output, export)


def import_volume(engine: Engine, name: str, source: str) -> None:
    """Place the tar archive `source` ("-": standard input), compressed or not, in a volume that exists.

    What the volume has stays, but for the files that the archive has too. Owners are kept where the user has their ids;
    other files become those of the volume's root. Raises NotFound, InvalidState for a volume that mounts something
    else, InvalidInput for a malformed archive, HostLimit.
    """
    data = _data(engine, name)
    id_map = engine.store.id_map
    try:
        stream = sys.stdin.buffer if source == "-" else open(source, "rb")
    except FileNotFoundError:
        raise NotFound(f"no such file: '{source}'") from None
    except OSError as e:
        raise HostLimit(f"cannot read '{source}': {e.strerror}") from e

    def place() -> bytes:
        from rootless.image.decompress import PlainBytes, read_head
        from rootless.kernel.files import open_in_root
        from rootless.storage.files.placer import ArchivePlacer, PlacedOwners

        own = id_map.first_uid(), id_map.first_gid()

        def find_owner(entry: TarEntry) -> tuple[int, int]:
            return (entry.uid, entry.gid) if id_map.has_uid(entry.uid) and id_map.has_gid(entry.gid) else own

        os.umask(0)
        top = os.open(data, _DIRECTORY)
        # A link in the volume, which a container may have made, leads nowhere but into the volume
        follow: Callable[[str], int] = lambda names: open_in_root(top, names, _PLACE)  # noqa: E731
        placer = ArchivePlacer(top, PlacedOwners(find_owner, own), overwrite=True, keep=True, follow=follow)
        plain: ByteSource = PlainBytes(read_head(stream), stream)
        placer.place(plain)
        return str(placer.lost).encode()

    try:
        lost = _work(engine, place, f"cannot import into volume '{name}'")
    except InvalidInput as e:
        named = "standard input" if source == "-" else f"'{source}'"
        hint = "what stands before that in the archive is in the volume now"
        raise InvalidInput(f"cannot import {named} into volume '{name}': {e.message}", hint=hint) from e
    finally:
        if source != "-":
            stream.close()
    if lost != b"0":
        engine.warn(f"{lost.decode()} devices of the archive were left out: an ordinary user cannot make any")


def _data(engine: Engine, name: str) -> str:
    """The directory with a volume's files. Raises NotFound; InvalidState for a volume that mounts something else."""
    volume = engine.store.volumes.get(name)
    if volume.options:
        raise InvalidState(
            f"volume '{name}' has no files of its own: it mounts what its options say",
            hint=f"rootless volume inspect {name}",
        )
    return volume.path


def _work(engine: Engine, function: Callable[[], bytes], failure: str) -> bytes:
    """Run `function` in a child with the user's default ids, and return its result.

    failure: what the message of an error from the system begins with. Raises HostLimit and what `function` raises.
    """

    def inside() -> bytes:
        sys.setrecursionlimit(_DEPTH)
        try:
            return function()
        except RecursionError:
            raise InvalidInput("the tree is too deep") from None

    sys.stdout.flush()
    try:
        return call_in_new_namespace(engine.store.id_map, inside)
    except BrokenPipeError:
        raise
    except OSError as e:
        where = f": '{os.fsdecode(e.filename)}'" if e.filename else ""
        raise HostLimit(f"{failure}{where}: {e.strerror}") from e
