"""Where a path of a tree leads when its symbolic links are followed as the kernel would, with the tree as the root.

It touches no file system: the caller brings the function that says where a link points. So the same rule serves a tree
on disk, a union of layers, and an archive of which no file has been made yet.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    ReadLink = Callable[[bytes], bytes | None]

MAX_LINKS = 40  # the kernel's MAXSYMLINKS: a path through more of them is ELOOP
MAX_PATH = 4095  # the kernel's PATH_MAX without the NUL at the end


def resolve_links(path: bytes, read_link: ReadLink) -> bytes:
    """`path` without links, `.` and `..`, and without a slash at its ends: b"" is the root itself.

    read_link: is given a path below the root that leads through no link; it says where the link there points, None when
    no link is there. As in a chroot, an absolute target starts at the root again, and `..` of the root is the root.
    Names that are not there stay as they are. Raises OSError with ELOOP after MAX_LINKS links, and with ENAMETOOLONG
    above MAX_PATH bytes: without both bounds a crafted archive could make links cost any time and memory.
    """
    real: list[bytes] = []
    todo = path.split(b"/")[::-1]
    followed = 0
    while todo:
        name = todo.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            if real:
                real.pop()
            continue
        here = b"/".join((*real, name))
        if len(here) > MAX_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        target = read_link(here)
        if target is None:
            real.append(name)
            continue
        followed += 1
        if followed > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith(b"/"):
            real.clear()
        todo += target.split(b"/")[::-1]
    return b"/".join(real)
