"""Several layers seen as one tree: what their union shows under a name. It reads layers and changes nothing.

No container can write to a layer, and a layer never changes. So files are looked up by path here, and nobody can swap
a directory for a link meanwhile. Links are not followed.
"""

from __future__ import annotations

import errno
import os
import stat

from rootless.errors import InvalidInput
from rootless.kernel.files import is_whiteout
from rootless.storage.files.link_resolution import resolve_links
from rootless.storage.files.tree_copy import OPAQUE_NAME, OPAQUE_XATTRS, WHITEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_ABSENT = (errno.ENOENT, errno.ENOTDIR)


class Lowers:
    """One directory of the union.

    directories: the directories of the layers that it is made of, topmost first; by_name: whether a file named
    `.wh.NAME` is a whiteout too, as for fuse-overlayfs and the copy driver. For the kernel it is a plain file.
    """

    __slots__ = ("_by_name", "_directories")

    def __init__(self, directories: Sequence[str], *, by_name: bool) -> None:
        self._directories = directories
        self._by_name = by_name

    def __bool__(self) -> bool:
        return bool(self._directories)

    @property
    def path(self) -> str | None:
        """The topmost layer's directory, whose attributes the union shows; None when no layer has one."""
        return self._directories[0] if self._directories else None

    def find(self, name: str) -> tuple[str, os.stat_result] | None:
        """Path and status of what shows under `name`; None when nothing does."""
        for directory in self._directories:
            path = f"{directory}/{name}"
            status = _status(path)
            if status is None:
                if self._by_name and _status(f"{directory}/{WHITEOUT}{name}") is not None:
                    return None
                continue
            return None if is_whiteout(status) else (path, status)
        return None

    def enter(self, name: str) -> Lowers:
        """The directory `name` in this one; one without any layer's directory when none shows under that name."""
        found = []
        for directory in self._directories:
            path = f"{directory}/{name}"
            status = _status(path)
            if status is None:
                if self._by_name and _status(f"{directory}/{WHITEOUT}{name}") is not None:
                    break
                continue
            if not stat.S_ISDIR(status.st_mode):
                break
            found.append(path)
            if self._is_opaque(path):
                break
        return Lowers(found, by_name=self._by_name)

    def names(self) -> set[str]:
        """The names that show in the directory."""
        shown: set[str] = set()
        hidden: set[str] = set()
        for directory in self._directories:
            here = set()
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name in hidden or entry.name in shown:
                        continue
                    if self._by_name and entry.name.startswith(WHITEOUT):
                        here.add(entry.name[len(WHITEOUT) :])
                    elif _may_be_device(entry) and is_whiteout(entry.stat(follow_symlinks=False)):
                        hidden.add(entry.name)
                    else:
                        shown.add(entry.name)
            hidden |= here
        return shown

    def _is_opaque(self, path: str) -> bool:
        for attribute in OPAQUE_XATTRS:
            try:
                if os.getxattr(path, attribute, follow_symlinks=False) == b"y":
                    return True
            except OSError:
                continue
        return self._by_name and _status(f"{path}/{OPAQUE_NAME}") is not None


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError as e:
        if e.errno in _ABSENT:
            return None
        if e.errno == errno.ENAMETOOLONG:
            raise InvalidInput(f"path is too long for a layer: '{path[-120:]}'") from e
        raise


def _may_be_device(entry: os.DirEntry[str]) -> bool:
    return not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False) or entry.is_symlink())


def resolve_in_union(union: Lowers, path: str) -> str:
    """The path without links, and without a slash at the start, to which `path` leads for a process with the union as
    its root.

    Names that are not there stay as they are. A path with too many links, or one that is too long, is returned without
    being resolved: the kernel refuses it, so nothing can lie at its end.
    """
    directories = {b"": union}

    def enter(directory: bytes) -> Lowers:
        found = directories.get(directory)
        if found is None:
            parent, _, name = directory.rpartition(b"/")
            found = directories[directory] = enter(parent).enter(os.fsdecode(name))
        return found

    def read_link(here: bytes) -> bytes | None:
        directory, _, name = here.rpartition(b"/")
        found = enter(directory).find(os.fsdecode(name))
        return os.fsencode(os.readlink(found[0])) if found is not None and stat.S_ISLNK(found[1].st_mode) else None

    try:
        return os.fsdecode(resolve_links(os.fsencode(path), read_link))
    except OSError as e:
        if e.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
            raise
        return path.strip("/")
