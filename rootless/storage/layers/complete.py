"""The part of a layer that needs the layers below it: hard links to their files, attributes of implied directories.

overlayfs shows a layer's directory with the attributes of the topmost one, so a directory that the archive only implies
gets those of the layer below; a link cannot span layers, so the file is copied up (blocks shared where possible).
"""

from __future__ import annotations

import os
import stat

from rootless.errors import InvalidInput
from rootless.kernel.files import is_whiteout, link_beneath
from rootless.storage.files.tree_copy import OPAQUE_NAME, PATH_DIRECTORY, WHITEOUT, Copier, is_opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def complete(target: str, lowers: Sequence[str], links: Sequence[tuple[str, str]], implied: Sequence[str]) -> None:
    """Make the links and set the attributes; lowers: topmost first. Runs inside the user namespace.

    Raises InvalidInput when a link's target is in no layer.
    """
    os.umask(0)
    layers = [os.open(directory, PATH_DIRECTORY) for directory in (target, *lowers)]
    copier = Copier()
    made: dict[tuple[int, int], tuple[int, str]] = {}
    for path, wanted in links:
        _link(layers, path, wanted, copier, made)
    for path in sorted(implied, key=len, reverse=True):
        found = _find(layers[1:], path)
        if found is None or not stat.S_ISDIR(found[2].st_mode):
            continue
        here = _find(layers[:1], path)
        if here is None or not stat.S_ISDIR(here[2].st_mode):
            continue
        read = os.open(found[1], PATH_DIRECTORY, dir_fd=found[0])
        write = os.open(here[1], PATH_DIRECTORY, dir_fd=here[0])
        copier.attributes(read, write, found[2])
        for fd in (read, write, found[0], here[0]):
            os.close(fd)


def _link(
    layers: list[int], path: str, wanted: str, copier: Copier, made: dict[tuple[int, int], tuple[int, str]]
) -> None:
    found = _find(layers, wanted)
    if found is None or stat.S_ISDIR(found[2].st_mode) or is_whiteout(found[2]):
        raise InvalidInput(f"layer has a hard link '{path}' to '{wanted}', which is in no layer")
    source, name, status = found
    directory, _, new_name = path.rpartition("/")
    parent = _walk(layers[0], directory)
    if parent is None:
        raise InvalidInput(f"layer has a hard link '{path}' whose directory it replaces")
    times = os.fstat(parent)
    key = (status.st_dev, status.st_ino)
    if key in made:
        link_beneath(*made[key], parent, new_name)
    elif _find(layers[:1], wanted) is not None:
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
    else:
        copier.entry(source, name, parent, new_name, status)
        made[key] = (layers[0], path)
    os.utime(parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.close(source)
    os.close(parent)


def _walk(layer: int, path: str) -> int | None:
    """The directory `path` of one layer, without following links; None when it is not there."""
    fd = os.dup(layer)
    for name in filter(None, path.split("/")):
        try:
            inner = os.open(name, PATH_DIRECTORY, dir_fd=fd)
        except (FileNotFoundError, NotADirectoryError):
            return None
        finally:
            os.close(fd)
        fd = inner
    return fd


def _find(layers: Sequence[int], path: str) -> tuple[int, str, os.stat_result] | None:
    """(directory fd, name, status) of `path` as the union of the layers shows it, whiteouts honoured."""
    *parents, name = path.split("/")
    for layer in layers:
        fd = os.dup(layer)
        hidden = is_opaque(fd)
        for parent in [*parents, None]:
            wanted = name if parent is None else parent
            try:
                status = os.stat(wanted, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                if _is_marked(fd, wanted):
                    os.close(fd)
                    return None
                break
            if is_whiteout(status) or (parent is not None and not stat.S_ISDIR(status.st_mode)):
                os.close(fd)
                return None
            if parent is None:
                return fd, name, status
            inner = os.open(parent, PATH_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
            hidden = hidden or is_opaque(fd)
        os.close(fd)
        if hidden:
            return None
    return None


def _is_marked(fd: int, name: str) -> bool:
    """Whether a `.wh.` file deletes `name`: the form of whiteouts on file systems without character devices."""
    try:
        os.stat(f"{WHITEOUT}{name}", dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return f"{WHITEOUT}{name}" != OPAQUE_NAME
