"""Keeps aside the files that a layer's archive first brings and then replaces: the recipe needs their bytes.

While the archive is unpacked, they lie in a directory of the tree that the archive cannot name, since no file gets a
`.wh.` name, nor reach by a link, since its name is random. Afterwards `take_out` moves that directory beside the tree.
"""

from __future__ import annotations

import errno
import os
import stat

from rootless.storage.files.link_resolution import MAX_PATH, resolve_links
from rootless.storage.tar.recipe import REPLACED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.storage.tar.recipe import RecipeWriter

_HIDDEN = ".wh..wh.replaced-"


class Replaced:
    """Moves files and directories of the tree `root` (an fd) aside, and notes that in the recipe.

    name: name of the directory that holds them, "" when there are none.
    """

    __slots__ = ("_directory", "_recipe", "_root", "name")

    def __init__(self, root: int, recipe: RecipeWriter) -> None:
        self._root = root
        self._recipe = recipe
        self._directory = -1
        self.name = ""

    def take(self, parent: int, name: bytes, path: bytes) -> bool:
        """Move `name` in directory `parent` aside. False when the recipe needs nothing of it, so that the caller may
        unlink it. path: its path in the tree, free of links."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            try:
                os.rmdir(name, dir_fd=parent)
                return True
            except OSError:
                pass  # it has entries
        elif not stat.S_ISREG(status.st_mode) or not status.st_size:
            return False
        if self._directory < 0:
            self.name = _HIDDEN + os.urandom(16).hex()
            os.mkdir(self.name, 0o700, dir_fd=self._root)
            self._directory = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        os.rename(name, str(self._recipe.replaced(path)), src_dir_fd=parent, dst_dir_fd=self._directory)
        return True


def take_out(diff: str, name: str) -> None:
    """Move the directory of replaced files out of the unpacked tree `diff`, whose own times stay as they are."""
    status = os.stat(diff)
    os.rename(f"{diff}/{name}", f"{os.path.dirname(diff)}/{REPLACED}")
    os.utime(diff, ns=(status.st_atime_ns, status.st_mtime_ns))


def real_path(root: int, path: bytes) -> bytes:
    """`path` below the directory `root` with the links on the way to its last name resolved, as a chroot would.

    Raises OSError: ELOOP, or ENAMETOOLONG when it is longer than the kernel takes.
    """

    def read_link(here: bytes) -> bytes | None:
        try:
            return os.readlink(here, dir_fd=root)
        except OSError:
            return None  # no link

    parent, _, name = path.rpartition(b"/")
    found = b"/".join(filter(None, (resolve_links(parent, read_link), name)))
    if len(found) > MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    return found
