"""Views of images: trees of all names and other owners, whose files have their content in the layers themselves.

A file of a view is a hole of the right size with two attributes: METACOPY says that its content is elsewhere, REDIRECT
where. overlayfs follows them into its "data-only" layer (overlayfs.rst), in a user namespace from Linux 6.16 on. That
layer is the directory with all layers, so that REDIRECT is /LAYER/diff/PATH. It is not /PATH with one data-only layer
for each layer: of a file with several names REDIRECT has one, under which an upper layer may have another file.

Without the option `metacopy`, which user namespaces do not get, overlayfs follows REDIRECT only from the lowest layer
that is not data-only (EPERM). So there is one view of all layers of an image together, in which whiteouts have taken
effect, and not one of each layer.

A container cannot make such files: overlayfs hides its own attributes from it, and follows none that a writable
directory has. Those that images bring are not unpacked (storage.layers.attributes).
"""

from __future__ import annotations

import errno
import os

from rootless.storage.files.tree_copy import Copier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.storage.files.tree_copy import Owner

METACOPY = "user.overlay.metacopy"
REDIRECT = "user.overlay.redirect"
_LONGEST = 3000  # bytes of REDIRECT. The kernel looks no longer path than 4096 up, and ours has the store's before it
_TOO_LONG = (errno.ENOSPC, errno.E2BIG, errno.ERANGE)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ViewCopier(Copier):
    """Makes the view of one layer over those of the layers below it. location: the absolute path of the layer's tree in
    the data-only layer."""

    __slots__ = ("_location",)

    def __init__(self, location: str, *, owner: Owner, capability_root: int) -> None:
        super().__init__(owner=owner, capability_root=capability_root)
        self._location = location

    def content(self, read: int, write: int, name: str, status: os.stat_result) -> None:
        """Make `write` a hole that says where the content is. An empty file needs no such place."""
        if not status.st_size:
            return
        where = os.fsencode(f"{self._location}/{self.place}{name}")
        if len(where) > _LONGEST:
            super().content(read, write, name, status)
            return
        try:
            os.setxattr(write, REDIRECT, where)
            os.setxattr(write, METACOPY, b"")
        except OSError as e:
            # The path of a file in a deep tree may be longer than an attribute of this file system (ext4: one block)
            if e.errno not in _TOO_LONG:
                raise
            _forget(write)
            super().content(read, write, name, status)
            return
        os.ftruncate(write, status.st_size)


class SolidCopier(Copier):
    """Copies trees of which some may be views, and gives the copies their content. data: as for `open_content`."""

    __slots__ = ("_data",)

    def __init__(self, data: str) -> None:
        super().__init__()
        self._data = data

    def content(self, read: int, write: int, name: str, status: os.stat_result) -> None:
        """Copy the content, wherever it is."""
        origin = open_content(read, self._data)
        try:
            super().content(origin, write, name, os.fstat(origin))
        finally:
            os.close(origin)


def open_content(file: int, data: str) -> int:
    """A new descriptor of the content of `file`, an open file of a layer or of a view.

    data: the directory that is the view's data-only layer, "" where there are no views. Raises OSError.
    """
    if data:
        try:
            where = os.getxattr(file, REDIRECT)
        except OSError:
            return os.dup(file)
        return os.open(f"{data}{os.fsdecode(where)}", _READ)
    return os.dup(file)


def _forget(file: int) -> None:
    for attribute in (REDIRECT, METACOPY):
        try:
            os.removexattr(file, attribute)
        except OSError:
            continue
