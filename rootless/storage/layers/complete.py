"""Completes an unpacked layer with what needs the layers below it.

A hard link cannot lead to a file of another layer, so the file is copied into this one (blocks shared where possible).
overlayfs shows a directory with the attributes that the topmost layer gives it, so a directory that the archive only
implies gets those of the layer below. Whiteouts of what no layer below has are taken out.
"""

from __future__ import annotations

import errno
import os
import stat

from rootless.errors import InvalidInput
from rootless.kernel.files import is_whiteout, link_beneath
from rootless.storage.files.tree_copy import OPAQUE_NAME, PATH_DIRECTORY, WHITEOUT, Copier, NoInheritance, is_opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rootless.storage.layers.jobs import Unfinished

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def complete_tree(target: str, lowers: Sequence[str], unfinished: Unfinished) -> None:
    """Complete the tree `target`, inside the user namespace. lowers: the trees of the layers below, topmost first.

    Raises InvalidInput when the target of a hard link is in no layer.
    """
    os.umask(0)
    layers = [os.open(directory, PATH_DIRECTORY) for directory in (target, *lowers)]
    copier = Copier()
    made: dict[tuple[int, int], tuple[int, str]] = {}
    for path, wanted in unfinished.links:
        _link(layers, path, wanted, copier, made)
    _drop_needless(layers, unfinished.whiteouts)
    for path in sorted(unfinished.implied, key=len, reverse=True):
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
        with NoInheritance(parent):
            copier.entry(source, name, parent, new_name, status)
        made[key] = (layers[0], path)
    os.utime(parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.close(source)
    os.close(parent)


def _drop_needless(layers: Sequence[int], whiteouts: Sequence[str]) -> None:
    """Take out the whiteouts that delete nothing.

    overlayfs filters whiteouts only out of directories that it merges. In a directory that no layer below has, it would
    list the whiteout's name, and any look at the file would fail with ENOENT.
    """
    for directory, names in by_directory(whiteouts).items():
        needless = needless_whiteouts(layers[1:], directory, names)
        if needless is None:
            needless = names
        parent = _walk(layers[0], directory) if needless else None
        if parent is None:
            continue
        try:
            times = os.fstat(parent)
            for name in needless:
                try:
                    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                except FileNotFoundError:
                    os.unlink(f"{WHITEOUT}{name}", dir_fd=parent)  # where there are no character devices
                else:
                    if is_whiteout(status):
                        os.unlink(name, dir_fd=parent)
            os.utime(parent, ns=(times.st_atime_ns, times.st_mtime_ns))
        finally:
            os.close(parent)


def by_directory(paths: Iterable[str]) -> dict[str, list[str]]:
    """The last names of `paths`, grouped by the directory that they are in."""
    found: dict[str, list[str]] = {}
    for path in paths:
        directory, _, name = path.rpartition("/")
        found.setdefault(directory, []).append(name)
    return found


def needless_whiteouts(lowers: Sequence[int], directory: str, names: Sequence[str]) -> list[str] | None:
    """Those of `names` that the layers below do not show in `directory`, so that a whiteout of them deletes nothing.

    lowers: fds of the layers' trees, topmost first. None when the layers do not even show `directory`.
    """
    places = _lower_directories(lowers, directory)
    try:
        return None if not places else [name for name in names if not _shows(places, name)]
    finally:
        for fd in places:
            os.close(fd)


def _shows(places: Sequence[int], name: str) -> bool:
    for fd in places:
        try:
            return not is_whiteout(os.stat(name, dir_fd=fd, follow_symlinks=False))
        except FileNotFoundError:
            if _is_marked(fd, name):
                return False
    return False


def _lower_directories(layers: Sequence[int], path: str) -> list[int]:
    """The layers' directories that the union merges at `path`: fds, topmost first, which the caller closes."""
    places = _until_opaque([os.dup(layer) for layer in layers])
    for name in filter(None, path.split("/")):
        found: list[int] = []
        try:
            for fd in places:
                try:
                    found.append(os.open(name, PATH_DIRECTORY, dir_fd=fd))
                except FileNotFoundError:
                    if _is_marked(fd, name):
                        break
                except OSError as e:
                    if e.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                    break  # a file, a link or a whiteout: it hides what is below
        finally:
            for fd in places:
                os.close(fd)
        places = _until_opaque(found)
    return places


def _until_opaque(places: list[int]) -> list[int]:
    """Those of the directories, topmost first, that no opaque one above them hides; the hidden ones are closed."""
    for position, fd in enumerate(places):
        if is_opaque(fd):
            for hidden in places[position + 1 :]:
                os.close(hidden)
            return places[: position + 1]
    return places


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
    """(directory fd, name, status) of what the union of the layers shows at `path`; None for nothing. The caller closes
    the fd."""
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
