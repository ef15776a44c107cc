"""ADD of a local archive: its entries over the tree of the step, into which the process is shut.

An entry takes the place of what the tree has under its name: a directory of both is merged, anything else goes before
the entry is made, be it a directory with all that is in it or a link to one. The Dockerfile reference has it so, and
`tar -x`.

The step's tree becomes the process's root before the first entry is read, so that a hostile name or link leads to
nothing but the image itself. Names with `..` are refused all the same. Everything that the unpacking needs has to be
imported before: afterwards a module would come out of the image.
"""

from __future__ import annotations

import os
import stat

from rootless.builder.worker.placed_attributes import owner_error
from rootless.errors import InvalidInput
from rootless.image.decompress import HEAD, PlainBytes
from rootless.storage.files.placer import Bytes, write_content
from rootless.storage.files.removal import delete_at
from rootless.storage.files.tree_copy import drop_acl
from rootless.storage.tar.tarstream import DIRECTORY, FIFO, FILE, LINK, SYMLINK, TarStream, is_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from rootless.builder.worker.placed_attributes import Rules
    from rootless.storage.tar.tarstream import TarEntry

_BLOCK = 512
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_ENTRIES = 10_000_000
_LAST_ID = 0xFFFFFFFE  # the number after it means "no change" to chown(2)


def is_archive(fd: int) -> bool:
    """Whether the file is a tar archive, plain or compressed in a known way. The fd is at its start afterwards."""
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
    return len(head) == _BLOCK and bool(head.strip(b"\0")) and is_header(head)


def unpack(root: int, archives: Sequence[tuple[int, str]], rules: Rules) -> int:
    """Unpack each of `archives` (fd, directory in the tree `root`), and make `root` this process's root for ever.

    Returns the number of special files that could not be made. Raises InvalidInput, OSError.
    """
    for fd, _ in archives:
        is_archive(fd)  # this imports what the decompression needs, before the root is the image's
    from rootless.storage.owners import overrides

    notes = overrides.append_to(rules.table) if rules.single and rules.table is not None else -1
    try:
        _shut_in(root)
        skipped = 0
        for fd, directory in archives:
            with os.fdopen(fd, "rb") as file:
                skipped += _Unpacker(directory.rstrip("/"), rules, notes).apply(file)
        return skipped
    finally:
        if notes >= 0:
            os.close(notes)


def _shut_in(root: int) -> None:
    from rootless.kernel import mounts

    os.fchdir(root)
    try:
        mounts.pivot_root(".", ".")
        mounts.umount(".", mounts.MNT_DETACH)
    except OSError:
        # pivot_root(2) refuses a root that is no mount point, as a context's directory. chroot(2) keeps nobody in who
        # has an fd outside and calls fchdir(2), but this process runs no code of the archive
        os.chroot(".")
    os.chdir("/")


class _Unpacker:
    """Unpacks one archive below one directory of the tree, which is the root of this process by now.

    notes: fd of the table in which the owners of links and FIFOs are noted where the id map has one id; -1 for none.
    """

    def __init__(self, directory: str, rules: Rules, notes: int) -> None:
        self._directory = directory
        self._notes = notes
        self._rules = rules
        self._times: list[tuple[str, int]] = []
        self._before: dict[str, tuple[int, int]] = {}
        self._seen: set[str] = set()
        self.skipped = 0

    def apply(self, file: BinaryIO) -> int:
        """Unpack the whole archive; return how many special files could not be made. Raises InvalidInput, OSError."""
        source = Bytes(PlainBytes(file.read(HEAD), file))
        archive = TarStream(source)
        count = 0
        while (entry := archive.next()) is not None:
            count += 1
            if count > _MAX_ENTRIES:
                raise InvalidInput("the archive has too many entries")
            try:
                is_content_taken = self._member(entry, source)
            except (ValueError, OverflowError) as e:
                # The entry has a time or an owner that the system calls cannot take
                raise InvalidInput(f"the archive has an impossible entry {_shown(entry)}: {e}") from e
            if entry.type == FILE:
                source.skip(TarStream.padding(entry) + (0 if is_content_taken else entry.stored))
        for path, (atime, mtime) in self._before.items():
            _touch(path or "/", atime, mtime)
        for path, time in reversed(self._times):
            _touch(path, time, time)
        return self.skipped

    def _member(self, member: TarEntry, source: Bytes) -> bool:
        """Make one entry; return whether its content was read."""
        names = _names(member.name)
        if ".." in names:
            raise InvalidInput(f"the archive has an entry outside of its directory: {_shown(member)}")
        if not names:
            return False
        if self._rules.owner is None and not (member.uid <= _LAST_ID and member.gid <= _LAST_ID):
            # With one id no chown(2) would refuse this owner: it would be noted, and come into the layer
            raise InvalidInput(f"the archive has an impossible entry {_shown(member)}: no such owner")
        parent = self._parents(names[:-1])
        path = f"{parent}/{names[-1]}"
        time = member.mtime
        if self._rules.latest is not None:
            time = min(time, self._rules.latest * 10**9)
        if member.type == DIRECTORY:
            self._directory_entry(path, member, time)
            return False
        self._clear(path)
        if member.type == FILE:
            self._regular(member, source, path)
        elif member.type == SYMLINK:
            os.symlink(os.fsdecode(member.linkname), path)
        elif member.type == LINK:
            os.link(self._target(member), path, follow_symlinks=False)
            return False
        elif member.type == FIFO:
            os.mkfifo(path, 0o600)
            drop_acl(path)
        else:
            self.skipped += 1  # a device: an ordinary user can make none
            return False
        if member.type != FILE:
            self._own(path, member)
        if member.type == FIFO:
            # The mode comes after the owner, because chown(2) takes set-id bits away. A name may be used, because
            # nobody else changes this tree
            os.chmod(path, self._mode(member, is_directory=False))
        os.utime(path, ns=(time, time), follow_symlinks=False)
        return member.type == FILE

    def _target(self, member: TarEntry) -> str:
        names = _names(member.linkname)
        linkname = os.fsdecode(member.linkname)
        if ".." in names:
            raise InvalidInput(f"the archive has a link outside of its directory: '{linkname}'")
        path = f"{self._directory}/{'/'.join(names)}"
        if not os.path.lexists(path):
            raise InvalidInput(f"the archive has a hard link to a missing file: '{linkname}'")
        return path

    def _parents(self, names: list[str]) -> str:
        """The path of the directory `names`, which is made where it is missing. Raises InvalidInput."""
        path = "/".join([self._directory, *names])
        # Only what is below the deepest directory that was seen before is looked at. To begin at the top for each entry
        # would take a time that grows with the square of the depth, for an archive that is a chain of directories
        missing = []
        while path != self._directory and path not in self._seen:
            path, _, name = path.rpartition("/")
            missing.append(name)
        for name in reversed(missing):
            above, path = path, f"{path}/{name}"
            try:
                mode = os.stat(path).st_mode
            except FileNotFoundError:
                self._keep(above)
                try:
                    self._make_directory(path)
                except FileExistsError:
                    raise InvalidInput(f"cannot unpack below '{path}': a dangling link is there") from None
                self._times.append((path, self._rules.timestamp * 10**9))
            else:
                if not stat.S_ISDIR(mode):
                    raise InvalidInput(f"cannot unpack below '{path}': no directory is there")
            self._seen.add(path)
        self._keep(path)
        return path

    def _keep(self, path: str) -> None:
        if path not in self._before:
            status = os.stat(path or "/")
            self._before[path] = status.st_atime_ns, status.st_mtime_ns

    def _clear(self, path: str) -> None:
        """Remove what has the name `path`, a directory with all that is in it. Raises OSError."""
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISLNK(mode) or stat.S_ISDIR(mode):
            self._seen.clear()  # paths that led through it lead nowhere now, or elsewhere
        if not stat.S_ISDIR(mode):
            os.unlink(path)
            return
        parent, _, name = path.rpartition("/")
        top = os.open(parent or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            refusal = delete_at(top, name, path)
        finally:
            os.close(top)
        if refusal is not None:
            raise refusal

    def _directory_entry(self, path: str, member: TarEntry, time: int) -> None:
        try:
            self._make_directory(path)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                self._clear(path)
                self._make_directory(path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._own_open(fd, member, stat.S_IFDIR)
        finally:
            os.close(fd)
        self._times.append((path, time))

    def _make_directory(self, path: str) -> None:
        """Make a directory that inherits no access control list and no group from the one above it."""
        os.mkdir(path, 0o755)
        drop_acl(path)
        if not self._rules.single:
            os.chown(path, 0, 0)
        os.chmod(path, 0o755)  # noqa: S103 - as docker makes what an archive only implies

    def _regular(self, member: TarEntry, source: Bytes, path: str) -> None:
        fd = os.open(path, _NEW, 0o600)
        try:
            write_content(fd, member, source)
            drop_acl(fd)
            self._own_open(fd, member, stat.S_IFREG)
        finally:
            os.close(fd)

    def _own_open(self, fd: int, member: TarEntry, kind: int) -> None:
        from rootless.storage.owners import overrides

        owner = self._rules.owner or (member.uid, member.gid)
        mode = self._mode(member, is_directory=kind == stat.S_IFDIR)
        if self._rules.single:
            if owner != (0, 0):
                overrides.write_override(fd, overrides.Override(*owner, mode, kind))
                mode = overrides.on_disk(mode, kind)
        else:
            try:
                os.fchown(fd, *owner)
            except OSError as e:
                raise owner_error(e, owner) from e
        os.fchmod(fd, mode)

    def _mode(self, member: TarEntry, *, is_directory: bool) -> int:
        mode = member.mode & 0o7777
        return mode if self._rules.chmod is None else self._rules.chmod(mode, is_directory)

    def _own(self, path: str, member: TarEntry) -> None:
        """Give a new link or FIFO its owner, or note the owner where the id map has one id."""
        owner = self._rules.owner or (member.uid, member.gid)
        if self._rules.single:
            if self._notes >= 0 and owner != (0, 0):
                from rootless.storage.owners import overrides

                kind = stat.S_IFIFO if member.type == FIFO else stat.S_IFLNK
                note = overrides.Override(*owner, self._mode(member, is_directory=False), kind)
                os.write(self._notes, overrides.table_line(os.fsencode(path), note, member.linkname))
            return
        try:
            os.chown(path, *owner, follow_symlinks=False)
        except OSError as e:
            raise owner_error(e, owner) from e


def _touch(path: str, atime: int, mtime: int) -> None:
    """Set the times of a directory that was kept or made, unless a later entry has taken its place."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            os.utime(path, ns=(atime, mtime))
    except (FileNotFoundError, NotADirectoryError):
        pass


def _names(path: bytes) -> list[str]:
    return [name for name in os.fsdecode(path).split("/") if name not in ("", ".")]


def _shown(member: TarEntry) -> str:
    return ascii(os.fsdecode(member.name)[:200])
