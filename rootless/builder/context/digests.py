"""The digest of what a COPY takes: content, mode, owner and kind of every file, never its times. Nothing is copied.

Content digests are remembered by (device, inode, size, mtime, ctime), so that a second build reads no file. ctime is
among them because only it cannot be set back by utime(2). A file that was changed in the last two seconds is read again
by the next build: a change within the clock's grain leaves the times as they are, and some file systems have whole
seconds.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from typing import NamedTuple

from rootless.builder.context.context_files import FileNode, Match, walk
from rootless.errors import InvalidInput
from rootless.records.fields import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.context.ignore import Exclusions

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GRAIN = 2 * 10**9  # ns
_FORMAT = 1
_MAX_KNOWN = 200_000  # files; beyond them only those of the last build are kept


class Known:
    """Content digests of one build context, kept in the file `path`; None keeps them in memory alone.

    The stages of a build share one in several threads: two of them may at worst read the same file.
    """

    __slots__ = ("_changed", "_fresh", "_known", "_path")

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._known: dict[str, list[object]] = {}  # "device:inode" → size, mtime, ctime, digest
        self._fresh: dict[str, list[object]] = {}
        self._changed = False
        if path is None:
            return
        try:
            with open(path, encoding="utf-8") as file:
                document = parse_json(file.read())
            if isinstance(document, dict) and document["format"] == _FORMAT:
                self._known = document["files"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # without the file, or with a damaged one, the context's files are read again

    def digest(self, node: FileNode) -> str:
        """The SHA-256 of a regular file in hexadecimal digits. A file whose digest is known is not read.

        Raises InvalidInput where the file has become something else, OSError.
        """
        status = node.status
        key = f"{status.st_dev}:{status.st_ino}"
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        found = self._known.get(key)
        if found is not None and found[:3] == stamp:
            self._fresh[key] = found
            return str(found[3])
        digest = file_digest(node.parent, node.name)
        if max(status.st_mtime_ns, status.st_ctime_ns) < time.time_ns() - _GRAIN:
            self._known[key] = self._fresh[key] = [*stamp, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Write what is known. An error is ignored: a build without it reads files that it need not have read."""
        if self._path is None or not self._changed:
            return
        from rootless.paths import atomic_write, make_private

        files = self._fresh if len(self._known) > _MAX_KNOWN else self._known | self._fresh
        try:
            make_private(os.path.dirname(self._path))
            content = json.dumps({"format": _FORMAT, "files": files}, separators=(",", ":"))
            atomic_write(self._path, content.encode(), durable=False)
        except OSError:
            pass


def file_digest(directory: int, name: str) -> str:
    """The SHA-256, in hexadecimal digits, of the regular file `name` in `directory` (fd).

    Raises InvalidInput where the file has become something else since the walk saw it: O_NOFOLLOW refuses a link, and
    O_NONBLOCK keeps the open of a FIFO from waiting for a writer. Raises OSError.
    """
    fd = os.open(name, _READ, dir_fd=directory)
    with open(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidInput(f"'{name}' is no regular file any more")
        return hashlib.file_digest(file, "sha256").hexdigest()


class Seen(NamedTuple):
    """What whoever has copied an entry knows of it. digest: SHA-256 of its bytes; attributes: those of
    `kept_attributes`. None stands for what is not known."""

    digest: str | None = None
    attributes: dict[str, bytes] | None = None


def kept_attributes(file: int | str) -> dict[str, bytes]:
    """The extended attributes of a file that COPY --from keeps: a noted owner, capabilities. Raises OSError.

    file: an fd (not one of O_PATH), or a path, of which a link at the end is not followed.
    """
    from rootless.storage.owners import overrides

    follow = isinstance(file, int)
    found = {}
    try:
        for name in os.listxattr(file, follow_symlinks=follow):
            if name in (overrides.ATTRIBUTE, "security.capability"):
                found[name] = os.getxattr(file, name, follow_symlinks=follow)
    except OSError as e:
        if e.errno not in (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA):
            raise
    return found


class Content:
    """Collects the digest of what several sources mean.

    owned: whether owners count, as they do for files of a stage; those of a context all become root's. newest: the
    latest mtime of what was seen, latest_change: the latest ctime, both in ns.
    """

    __slots__ = ("_hash", "_known", "_links", "_owned", "latest_change", "newest")

    def __init__(self, known: Known, *, owned: bool) -> None:
        self._hash = hashlib.sha256()
        self._known = known
        self._owned = owned
        self._links: dict[tuple[int, int], str] = {}
        self.newest = 0
        self.latest_change = 0

    def add(self, root: int, match: Match, exclusions: Exclusions) -> None:
        """Add to the digest what `match` means below `root` (fd)."""
        self.begin(match)
        if match.is_directory:
            skip, may_hold = exclusions.below(match)
            for node in walk(root, match.path, skip, may_hold=may_hold):
                if not node.is_implied:
                    self.node(node)
        else:
            self._single(root, match)

    def _single(self, root: int, match: Match) -> None:
        from rootless.kernel.files import open_in_root

        parent, _, name = match.path.rpartition("/")
        fd = open_in_root(root, parent or "/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            self.node(FileNode("", fd, name, status))
        finally:
            os.close(fd)

    def begin(self, match: Match) -> None:
        """Add the name of `match`, whose files come next, by `node`."""
        self._hash.update(repr((match.name, match.under, match.is_directory)).encode("utf-8", "surrogateescape"))

    def directories(self, root: int, match: Match) -> None:
        """Add mode and owner of each directory on the path of `match` below `root` (fd), which shows where the
        directories are made, or mounted, as well as what is in them."""
        from rootless.kernel.files import open_in_root

        names = match.path.split("/")
        for count in range(1, len(names) + match.is_directory):
            fd = open_in_root(root, "/".join(names[:count]) or "/", os.O_RDONLY | os.O_DIRECTORY)
            try:
                status = os.fstat(fd)
                noted = {name: value.hex() for name, value in kept_attributes(fd).items()}
            finally:
                os.close(fd)
            what = ["on the path", status.st_mode & 0o7777, status.st_uid, status.st_gid, noted]
            self._hash.update(json.dumps(what, sort_keys=True).encode())

    def node(self, node: FileNode, seen: Seen | None = None) -> None:
        """Add one entry. seen: what is known of it; what is not is read."""
        status = node.status
        kind = stat.S_IFMT(status.st_mode)
        what: list[object] = [node.path, kind, status.st_mode & 0o7777]
        self.newest = max(self.newest, status.st_mtime_ns)
        self.latest_change = max(self.latest_change, status.st_ctime_ns)
        if self._owned:
            what += [status.st_uid, status.st_gid]
            if kind in (stat.S_IFREG, stat.S_IFDIR):
                attributes = seen.attributes if seen is not None else None
                if attributes is None:
                    attributes = kept_attributes(f"/proc/self/fd/{node.parent}/{node.name}")
                what += [[name, attributes[name].hex()] for name in sorted(attributes)]
        if kind == stat.S_IFREG:
            first = self._links.setdefault((status.st_dev, status.st_ino), node.path)
            if first != node.path:
                what.append(["link", first])
            else:
                what.append(seen.digest if seen is not None and seen.digest else self._known.digest(node))
        elif kind == stat.S_IFLNK:
            what.append(os.readlink(node.name, dir_fd=node.parent))
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            what.append(status.st_rdev)
        # repr costs a fifth of json.dumps, and is as unambiguous: it escapes quotes, and bytes that are no UTF-8
        self._hash.update(repr(what).encode())

    def hexdigest(self) -> str:
        """The digest of all that was added, 64 hexadecimal digits."""
        return self._hash.hexdigest()
