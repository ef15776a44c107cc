"""ADD of a local archive: its entries over the tree of the step. It runs inside of that tree and cannot leave it.

The process makes the step's tree its root before the first entry is read, so that a hostile name or link leads to
nothing but the image itself; names with `..` are refused all the same.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from typing import TYPE_CHECKING

from rootless.errors import InvalidInput
from rootless.image.decompress import HEAD, PlainBytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from rootless.builder.worker.placing import Rules

_BLOCK = 512
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_ENTRIES = 10_000_000
_PIECE = 1 << 20
_MAX_BESIDE = 1 << 20
_LAST_ID = 0xFFFFFFFE
_BESIDE = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def is_archive(fd: int) -> bool:
    """Whether the file is a tar archive, plain or compressed in a way we know; its position is the start afterwards."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return False
    try:
        with os.fdopen(os.dup(fd), "rb") as file:
            try:
                stream = PlainBytes(file.read(HEAD), file)
                head = b""
                while len(head) < _BLOCK and (piece := stream.read(_BLOCK - len(head))):
                    head += piece
            except InvalidInput:
                return False
    finally:
        os.lseek(fd, 0, os.SEEK_SET)
    if len(head) < _BLOCK or not head.strip(b"\0"):
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def unpack(root: int, archives: Sequence[tuple[int, str]], rules: Rules) -> int:
    """Unpack each (fd, directory in the tree); the number of special files that could not be made."""
    for fd, _ in archives:
        is_archive(fd)  # imports what its decompression needs, before the root is the image's
    from rootless.storage.owners import overrides  # noqa: F401 - the same

    _shut_in(root)
    skipped = 0
    for fd, directory in archives:
        with os.fdopen(fd, "rb") as file:
            skipped += _Unpacker(directory.rstrip("/"), rules).apply(file)
    return skipped


def _shut_in(root: int) -> None:
    from rootless.kernel import mounts

    os.fchdir(root)
    try:
        mounts.pivot_root(".", ".")
        mounts.umount(".", mounts.MNT_DETACH)
    except OSError:
        os.chroot(".")  # the caller has no way back in: no fd of the old root is used again
    os.chdir("/")


class _Member(tarfile.TarInfo):
    """A header. Names and attributes that are stored beside it are read into memory, so they have a bound."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _BESIDE and self.size > _MAX_BESIDE:
            raise InvalidInput(f"the archive has a header of {self.size} bytes")
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return found


class _Unpacker:
    """Unpacks one archive below one directory of the tree, which is the root of this process by now."""

    def __init__(self, directory: str, rules: Rules) -> None:
        self._directory = directory
        self._rules = rules
        self._times: list[tuple[str, int]] = []
        self._before: dict[str, tuple[int, int]] = {}
        self.skipped = 0

    def apply(self, file: BinaryIO) -> int:
        stream = PlainBytes(file.read(HEAD), file)
        try:
            # a stream is only ever read, whatever more the type of fileobj asks for
            with tarfile.open(fileobj=stream, mode="r|", errorlevel=2, tarinfo=_Member) as archive:  # type: ignore[call-overload]
                for count, member in enumerate(archive):
                    if count > _MAX_ENTRIES:
                        raise InvalidInput("the archive has too many entries")
                    try:
                        self._member(archive, member)
                    except (ValueError, OverflowError) as e:
                        # a name with a NUL, a time or an owner that no system has
                        raise InvalidInput(f"the archive has an impossible entry {member.name[:200]!a}: {e}") from e
                    archive.members = []
        except (tarfile.TarError, EOFError) as e:
            raise InvalidInput(f"the archive is damaged: {e}") from e
        for path, (atime, mtime) in self._before.items():
            os.utime(path or "/", ns=(atime, mtime))
        for path, time in reversed(self._times):
            os.utime(path, ns=(time, time), follow_symlinks=False)
        return self.skipped

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        names = [n for n in member.name.split("/") if n not in ("", ".")]
        if ".." in names:
            raise InvalidInput(f"the archive has an entry outside of its directory: '{member.name}'")
        if not names:
            return
        if self._rules.owner is None and not (0 <= member.uid <= _LAST_ID and 0 <= member.gid <= _LAST_ID):
            # with one id the owner would only be noted, and come into the layer
            raise InvalidInput(f"the archive has an impossible entry {member.name[:200]!a}: no such owner")
        parent = self._parents(names[:-1])
        path = f"{parent}/{names[-1]}"
        time = int(member.mtime * 10**9)
        if self._rules.latest is not None:
            time = min(time, self._rules.latest * 10**9)
        if member.isdir():
            self._directory_entry(path, member, time)
            return
        self._clear(path)
        if member.isreg():
            self._regular(archive, member, path)
        elif member.issym():
            os.symlink(member.linkname, path)
        elif member.islnk():
            os.link(self._target(member), path, follow_symlinks=False)
            return
        elif member.isfifo():
            os.mkfifo(path, 0o600)
        else:
            self.skipped += 1  # a device: an ordinary user can make none
            return
        if not member.isreg():
            self._own(path, member)
        os.utime(path, ns=(time, time), follow_symlinks=False)

    def _target(self, member: tarfile.TarInfo) -> str:
        names = [n for n in member.linkname.split("/") if n not in ("", ".")]
        if ".." in names:
            raise InvalidInput(f"the archive has a link outside of its directory: '{member.linkname}'")
        path = f"{self._directory}/{'/'.join(names)}"
        if not os.path.lexists(path):
            raise InvalidInput(f"the archive has a hard link to a missing file: '{member.linkname}'")
        return path

    def _parents(self, names: list[str]) -> str:
        path = self._directory
        for name in names:
            above, path = path, f"{path}/{name}"
            try:
                mode = os.stat(path).st_mode
            except FileNotFoundError:
                self._keep(above)
                try:
                    os.mkdir(path, 0o755)
                except FileExistsError:
                    raise InvalidInput(f"cannot unpack below '{path}': a dangling link is there") from None
                self._times.append((path, self._rules.timestamp * 10**9))
                continue
            if not stat.S_ISDIR(mode):
                raise InvalidInput(f"cannot unpack below '{path}': no directory is there")
        self._keep(path)
        return path

    def _keep(self, path: str) -> None:
        if path not in self._before:
            status = os.stat(path or "/")
            self._before[path] = status.st_atime_ns, status.st_mtime_ns

    def _clear(self, path: str) -> None:
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            raise InvalidInput(f"cannot replace directory '{path}' with a file of the archive")
        os.unlink(path)

    def _directory_entry(self, path: str, member: tarfile.TarInfo, time: int) -> None:
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            if not os.path.isdir(path):
                os.unlink(path)
                os.mkdir(path, 0o755)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._own_open(fd, member, stat.S_IFDIR)
        finally:
            os.close(fd)
        self._times.append((path, time))

    def _regular(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        fd = os.open(path, _NEW, 0o600)
        with open(fd, "wb", buffering=0) as out:
            content = archive.extractfile(member)
            assert content is not None
            while piece := content.read(_PIECE):
                out.write(piece)
            self._own_open(fd, member, stat.S_IFREG)

    def _own_open(self, fd: int, member: tarfile.TarInfo, kind: int) -> None:
        from rootless.storage.owners import overrides

        owner = self._rules.owner or (member.uid, member.gid)
        mode = member.mode & 0o7777
        if self._rules.chmod is not None:
            mode = self._rules.chmod(mode, kind == stat.S_IFDIR)
        if self._rules.single and owner != (0, 0):
            overrides.write(fd, overrides.Override(*owner, mode, kind))
            mode = overrides.on_disk(mode, kind)
        elif owner != (0, 0):
            try:
                os.fchown(fd, *owner)
            except OSError as e:
                raise _unmapped(e, owner) from e
        os.fchmod(fd, mode)

    def _own(self, path: str, member: tarfile.TarInfo) -> None:
        owner = self._rules.owner or (member.uid, member.gid)
        if owner == (0, 0) or self._rules.single:
            return
        try:
            os.chown(path, *owner, follow_symlinks=False)
        except OSError as e:
            raise _unmapped(e, owner) from e


def _unmapped(error: OSError, owner: tuple[int, int]) -> Exception:
    if error.errno != errno.EINVAL:
        return error
    return InvalidInput(f"owner {owner[0]}:{owner[1]} of an entry of the archive is not in your range of ids")
