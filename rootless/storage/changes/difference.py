"""Finds what a container's writable directory changes in the layers below it, in the order of a layer's tar.

Directories stand before what is in them, names are sorted by their bytes, whiteouts stand before their siblings. It
changes nothing on disk. A running container may swap any directory for a link meanwhile, so the walk opens each one
below the one above it and follows no link.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from rootless.errors import InvalidInput
from rootless.kernel.files import is_whiteout, lgetxattr
from rootless.storage.changes.lowers import Lowers, resolve_in_union
from rootless.storage.files.entry_attributes import CHUNK, DIRECTORY, READ, EntryAttributes, read_attributes
from rootless.storage.files.layer_views import open_content
from rootless.storage.files.tree_copy import OPAQUE_NAME, WHITEOUT
from rootless.storage.tar.layer_rules import MAX_DEPTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rootless.records.rootfs import RootfsPlan
    from rootless.storage.drivers import ChangeForm

GONE = 0  # the kind of a whiteout
XATTR_WHITEOUT = "user.overlay.whiteout"


class ChangedNode(NamedTuple):
    """One change.

    path: without a slash at the start, "" for the top; kind: stat.S_IF*, or GONE for a whiteout; exists: whether the
    layers below show something there; made: whether the whiteout is not on disk, because the directory above it hides
    everything of the layers below.
    """

    path: str
    kind: int
    exists: bool
    made: bool = False


class _Place:
    """A directory of the walk.

    fd: the directory in the writable tree; path: from the top of that tree, "" for the top itself; lowers: what the
    layers below have there; opaque: the value of its own mark; hidden: whether its mark, or that of a directory above
    it, hides what the layers below have; depth: number of directories above it.
    """

    __slots__ = ("depth", "fd", "hidden", "lowers", "opaque", "path")

    def __init__(self, fd: int, path: str, lowers: Lowers, above: _Place | None = None) -> None:
        self.fd = fd
        self.path = path
        self.lowers = lowers
        self.opaque = b""
        self.hidden: bool = above is not None and above.hidden
        self.depth: int = 0 if above is None else above.depth + 1

    def path_of(self, name: str) -> str:
        """The path of the entry `name` of this directory."""
        return f"{self.path}/{name}" if self.path else name

    def mark(self, opaque: bytes) -> None:
        """Note the value of this directory's mark: only `y` hides the layers below."""
        self.opaque = opaque
        self.hidden = self.hidden or opaque == b"y"


class Difference:
    """Walks the writable directory (`upper`) of a driver's plan, when it is made.

    form: how that driver's `upper` tells what was changed; owner: translates the (uid, gid) on disk into the
    container's; exclude: the paths on which something is mounted. The runtime makes them where the image lacks them,
    and they are no change of the container's then.
    nodes: the changes; dropped: paths in `upper` that are no change, what is in a directory before the directory.
    """

    __slots__ = ("_ancestors", "_compare", "_content", "_copied", "_exclude", "_forced", "_fuse", "_has_lowers",
                 "_linked", "_owner", "dropped", "nodes")  # fmt: skip

    def __init__(
        self,
        plan: RootfsPlan,
        form: ChangeForm,
        owner: Callable[[int, int], tuple[int, int]],
        exclude: Collection[str],
    ) -> None:
        self._compare = form.holds_whole_tree
        self._fuse = not form.keeps_parent_times
        self._copied = plan.copied
        self._owner = owner
        self._has_lowers = bool(plan.lowerdirs)
        self._content = plan.content
        self._exclude: set[str] = set()
        self._ancestors: set[str] = set()
        self._forced: set[tuple[int, int]] = set()
        by_name = form.has_named_whiteouts
        self._find_excluded(Lowers([plan.upper, *plan.lowerdirs], by_name=by_name), exclude)
        while True:
            self.nodes: list[ChangedNode] = []
            self.dropped: list[str] = []
            self._linked: dict[tuple[int, int], bool] = {}
            fd = os.open(plan.upper, DIRECTORY)
            try:
                self._top(fd, Lowers(plan.lowerdirs, by_name=by_name))
            finally:
                os.close(fd)
            # A file with several names is in the layer with all of them or with none. With some of them the archive
            # would have a hard link to a file of another layer, which other tools cannot unpack.
            forced = {key for key, is_changed in self._linked.items() if is_changed} - self._forced
            if not forced:
                return
            self._forced |= forced

    def _find_excluded(self, union: Lowers, exclude: Collection[str]) -> None:
        for path in exclude:
            found = resolve_in_union(union, path)
            names = found.split("/")
            self._exclude.add(found)
            if self._has_lowers:  # without layers below everything is new, and the caller names directories above too
                self._ancestors.update("/".join(names[:length]) for length in range(len(names)))

    def _top(self, fd: int, lowers: Lowers) -> None:
        status = os.fstat(fd)
        here = read_attributes(fd)
        self.nodes.append(ChangedNode("", stat.S_IFDIR, True))
        top = _Place(fd, "", lowers)
        top.hidden = self._compare  # a copied tree holds the whole image: what it lacks was deleted
        top.mark(here.opaque)
        self._directory(top)
        same = not lowers or _same(status, here, lowers, ignore_override=True)
        # Where a layer without an entry for its top is unpacked, the top gets plain attributes: a plain top needs none
        is_plain = self._is_plain(status, here) or (here.override is None and not lowers)
        if same and (is_plain or len(self.nodes) == 1):
            del self.nodes[0]

    def _directory(self, place: _Place) -> None:
        """Add the changes in a directory and below it. Raises InvalidInput for more than MAX_DEPTH directories."""
        if place.depth > MAX_DEPTH:
            raise InvalidInput(
                f"path has more than {MAX_DEPTH} directories, which no layer may have: '{place.path[:120]}'"
            )
        lowers = place.lowers
        present: list[tuple[bytes, str, os.DirEntry[str]]] = []
        gone: set[str] = set()
        with os.scandir(place.fd) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(WHITEOUT):
                    if not self._fuse:
                        # A plain file that the container has given such a name. In a layer it would be a whiteout, and
                        # would delete something where the image is used.
                        self.dropped.append(place.path_of(name))
                    elif name == OPAQUE_NAME:
                        place.hidden = True
                        self.dropped.append(place.path_of(name))
                    else:
                        gone.add(name[len(WHITEOUT) :])
                elif self._is_whiteout(place.fd, entry, by_xattr=place.opaque == b"x"):
                    gone.add(name)
                else:
                    present.append((os.fsencode(name), name, entry))
        made: set[str] = set()
        if place.hidden and lowers:
            made = lowers.names() - {name for _, name, _ in present} - gone
        for name in sorted(gone | made, key=os.fsencode):
            if lowers.find(name) is not None:
                self.nodes.append(ChangedNode(place.path_of(name), GONE, True, name in made))
            else:
                self.dropped.append(place.path_of(name))
        for _, name, entry in sorted(present, key=_by_bytes):
            if entry.is_dir(follow_symlinks=False):
                self._enter(place, name)
            else:
                self._file(place, entry)

    @staticmethod
    def _is_whiteout(fd: int, entry: os.DirEntry[str], *, by_xattr: bool) -> bool:
        if entry.is_symlink() or entry.is_dir(follow_symlinks=False):
            return False
        if not entry.is_file(follow_symlinks=False):
            return is_whiteout(entry.stat(follow_symlinks=False))
        if not by_xattr or entry.stat(follow_symlinks=False).st_size:
            return False
        try:
            lgetxattr(fd, entry.name, XATTR_WHITEOUT)
        except OSError:
            return False
        return True

    def _enter(self, above: _Place, name: str) -> None:
        try:
            fd = os.open(name, DIRECTORY, dir_fd=above.fd)
        except (FileNotFoundError, NotADirectoryError):
            return  # a running container has removed it since
        try:
            status = os.fstat(fd)
            here = read_attributes(fd)
            place = _Place(fd, above.path_of(name), above.lowers.enter(name), above)
            place.mark(here.opaque)
            exists = bool(place.lowers) or above.lowers.find(name) is not None
            position, dropped = len(self.nodes), len(self.dropped)
            self.nodes.append(ChangedNode(place.path, stat.S_IFDIR, exists))
            self._directory(place)
            if len(self.nodes) > position + 1:
                return  # something in it has changed
            # fuse-overlayfs changes the time of a directory when it copies a file up into it
            is_way = self._is_way(place.path) or (self._fuse and len(self.dropped) > dropped)
            if place.lowers:
                assert place.lowers.path is not None
                is_same_time = is_way or os.lstat(place.lowers.path).st_mtime_ns == status.st_mtime_ns
                is_nothing = is_same_time and _same(status, here, place.lowers)
            else:
                is_nothing = not exists and self._is_made_by_runtime(place.path, status, here)
            if is_nothing:
                self.nodes.pop()
                self.dropped.append(place.path)
        finally:
            os.close(fd)

    def _is_way(self, path: str) -> bool:
        """Whether something is mounted at or below this directory. Making the mount point has changed its time then."""
        return path in self._exclude or path in self._ancestors

    def _is_made_by_runtime(self, path: str, status: os.stat_result, here: EntryAttributes) -> bool:
        """Whether a directory that no layer has was made by the runtime, to mount something on it or below it."""
        return path in self._exclude or (path in self._ancestors and self._is_plain(status, here))

    def _is_plain(self, status: os.stat_result, here: EntryAttributes) -> bool:
        """Whether a directory is as `mkdir -p` of the container's root makes it: 0:0, 0755, no further attributes."""
        owner = self._owner(status.st_uid, status.st_gid)
        mode = stat.S_IMODE(status.st_mode)
        return owner == (0, 0) and mode == 0o755 and here.override is None and not here.xattrs

    def _file(self, place: _Place, entry: os.DirEntry[str]) -> None:
        path = place.path_of(entry.name)
        try:
            if entry.is_symlink():
                kind = stat.S_IFLNK
            elif entry.is_file(follow_symlinks=False):
                kind = stat.S_IFREG
            else:
                kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
            if kind not in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO):
                self.dropped.append(path)  # a socket, which no archive can hold
                return
            found = place.lowers.find(entry.name)
            if path in self._exclude and found is None and not entry.stat(follow_symlinks=False).st_size:
                self.dropped.append(path)
                return
            if self._is_unchanged(place.fd, entry, found):
                if not self._compare:  # a copied tree is never adopted
                    self.dropped.append(path)
                return
        except FileNotFoundError:
            return  # a running container has removed it since
        self.nodes.append(ChangedNode(path, kind, found is not None))

    def _is_unchanged(self, fd: int, entry: os.DirEntry[str], found: tuple[str, os.stat_result] | None) -> bool:
        """Whether a file is still the one that the layers show: the copy driver has copied it with them, or an overlay
        has copied it up and then nothing of it was changed."""
        status = entry.stat(follow_symlinks=False)
        is_same = found is not None and self._is_equal(fd, entry.name, status, *found)
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            self._linked[key] = self._linked.get(key, False) or not is_same
            is_same = is_same and key not in self._forced
        return is_same

    def _is_equal(self, fd: int, name: str, status: os.stat_result, path: str, below: os.stat_result) -> bool:
        for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns"):
            if getattr(status, field) != getattr(below, field):
                return False
        if status.st_ctime_ns <= self._copied:
            return True  # untouched since it was copied: any change of content or attributes sets this time (inode(7))
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=fd) == os.readlink(path)
        if not stat.S_ISREG(status.st_mode):
            return True
        here = os.open(name, READ, dir_fd=fd)
        try:
            there = os.open(path, READ)
            try:
                mine, theirs = read_attributes(here), read_attributes(there)
                if (mine.xattrs, mine.override) != (theirs.xattrs, theirs.override):
                    return False
                content = open_content(there, self._content)
                try:
                    while (piece := os.read(here, CHUNK)) == os.read(content, CHUNK):
                        if not piece:
                            return True
                    return False
                finally:
                    os.close(content)
            finally:
                os.close(there)
        finally:
            os.close(here)


def _same(status: os.stat_result, here: EntryAttributes, below: Lowers, *, ignore_override: bool = False) -> bool:
    """Whether a directory has the attributes that the layers below show for it."""
    assert below.path is not None
    other = os.lstat(below.path)
    if (status.st_mode, status.st_uid, status.st_gid) != (other.st_mode, other.st_uid, other.st_gid):
        return False
    there = read_attributes(below.path)
    return here.xattrs == there.xattrs and (ignore_override or here.override == there.override)


def _by_bytes(entry: tuple[bytes, str, os.DirEntry[str]]) -> bytes:
    return entry[0]
