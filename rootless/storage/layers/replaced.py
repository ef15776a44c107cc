"""What a layer's archive first brings and then replaces: kept aside, since the recipe needs its bytes.

During the unpacking it lies in a directory that no archive can name (`.wh.` names are never made) nor reach through a
link (it cannot guess the rest); afterwards `take_out` moves that directory beside the tree.
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
    """Moves files and directories of the tree `root` (an fd) aside, and notes it in the recipe.

    name: of the directory that they are in, "" when there are none.
    """

    __slots__ = ("_directory", "_recipe", "_root", "name")

    def __init__(self, root: int, recipe: RecipeWriter) -> None:
        self._root = root
        self._recipe = recipe
        self._directory = -1
        self.name = ""

    def take(self, parent: int, name: bytes, path: bytes) -> bool:
        """Move `name` in directory `parent` aside; False when there is nothing to keep, and it is for the caller to
        unlink. path: where it lies, free of links."""
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
    """After the unpacking: the directory of what was replaced leaves the tree, whose own times stay."""
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
