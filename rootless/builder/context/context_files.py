"""Which files a COPY or ADD takes: sources below one root, wildcards, exclusions, the walk. Nothing is copied.

The root is a build context, a named one or the mounted tree of a stage. Every path is resolved inside of it, as in a
chroot: a link or a `..` that led out would put files of the host into an image (CVE-2024-1753 and its kin). The same
walk makes the cache key and the copy, so that nothing is copied that the key does not cover.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from typing import NamedTuple

from rootless.builder.context.wildcard import Wildcard, has_wildcard
from rootless.errors import InvalidInput, NotFound
from rootless.kernel.files import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Skip = Callable[[str, bool], bool]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_CLOEXEC
MAX_DEPTH = 500  # of nested directories: each level of a walk holds an fd and a frame of Python's stack


class Match(NamedTuple):
    """One file or directory that a source means.

    path: from the root, with links resolved, "" for the root itself; name: the last name as it was written, which the
    copy gets; under: the part of the written path that `--parents` keeps.
    """

    path: str
    name: str
    under: str
    is_directory: bool


class FileNode(NamedTuple):
    """One entry of a walk. path: from where the walk began; parent: fd of its directory, valid until the next entry.

    status: of the entry itself, a link is not followed; is_implied: a directory that is itself excluded, and given only
    because something below it is not.
    """

    path: str
    parent: int
    name: str
    status: os.stat_result
    is_implied: bool = False


def clean_path(path: str) -> str:
    """`path` from the root, without `.`, `..` and slashes at its ends. As in a chroot, `..` of the root is the root."""
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            if names:
                names.pop()
        elif name not in ("", "."):
            names.append(name)
    return "/".join(names)


def matches(root: int, source: str, skip: Skip, *, wildcards: bool = True) -> list[Match]:
    """The files and directories that `source` means in the directory `root` (fd), sorted.

    skip: says of (path, is directory) whether it is excluded as a whole; wildcards: whether `source` may be a pattern,
    which may match nothing. Raises NotFound for a plain path, or the plain directories in front of a pattern, that are
    not there or excluded; InvalidInput.
    """
    pivot, written = _pivot(source)
    names = written.split("/")
    is_pattern = wildcards and has_wildcard(written)
    plain = "/".join(itertools.takewhile(lambda name: not has_wildcard(name), names)) if is_pattern else written
    if plain or not is_pattern:
        found = _resolve(root, plain)
        if found is None or skip(found[0], found[1]):
            why = "" if found is None else " (.dockerignore or --exclude leaves it out)"
            raise NotFound(f"'{plain if is_pattern else source}': no such file or directory{why}")
        if not is_pattern:
            return [Match(found[0], names[-1], written[pivot:], found[1])]
    result = []
    for path, kept in _expanded(root, written, written[:pivot].count("/"), skip):
        found = _resolve(root, path)
        if found is not None and not skip(found[0], found[1]):
            result.append(Match(found[0], path.rpartition("/")[2], path[kept:], found[1]))
    return result


def _expanded(root: int, pattern: str, pivot: int, skip: Skip) -> list[tuple[str, int]]:
    """(path, position in it where the part begins that --parents keeps) of all that matches `pattern`.

    pivot: how many names come before that part in the pattern. `**` is any number of directories.
    """
    names = pattern.split("/")
    paths = [("", 0)]
    for at, name in enumerate(names):
        if at == pivot:
            paths = [(path, len(path) + 1 if path else 0) for path, _ in paths]
        if name == "**" and at + 1 < len(names):
            found = [(below, kept) for path, kept in paths for below in _directories(root, path, skip, 0)]
            paths = sorted(dict.fromkeys(found))
        elif has_wildcard(name):
            wildcard = _wildcard(name, pattern)
            paths = [
                (f"{path}/{entry}" if path else entry, kept)
                for path, kept in paths
                for entry in _entries(root, path)
                if wildcard.fullmatch(entry)
            ]
        else:
            paths = [(f"{path}/{name}" if path else name, kept) for path, kept in paths]
    return list(dict.fromkeys(paths))


def without_depth(source: str) -> str:
    """`source` with each `**` as `*`, which it means for docker unless --parents is given."""
    return "/".join("*" if name == "**" else name for name in source.split("/"))


def _pivot(source: str) -> tuple[int, str]:
    """(position where the part begins that --parents keeps, the clean path). `/./` in `source` marks that part."""
    before, mark, after = source.partition("/./")
    if not mark:
        return 0, clean_path(source)
    first, rest = clean_path(before), clean_path(after)
    return (len(first) + 1 if first and rest else 0), "/".join(part for part in (first, rest) if part)


def _resolve(root: int, path: str) -> tuple[str, bool] | None:
    """(path without links, whether it is a directory) of `path`, which is followed when it is a link; None without one.

    The kernel's name of the open file is compared with that of the root, because somebody may move the file out of the
    root between the two. Raises InvalidInput.
    """
    try:
        fd = open_in_root(root, path, _PATH)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise InvalidInput(f"cannot read '{path}': {e.strerror}") from e
    try:
        base = os.readlink(f"/proc/self/fd/{root}").rstrip("/")
        real = os.readlink(f"/proc/self/fd/{fd}")
        if real != base and not real.startswith(f"{base}/"):
            raise InvalidInput(f"'{path}' was moved out of its root meanwhile")
        return real[len(base) + 1 :], stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _entries(root: int, path: str) -> list[str]:
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


def _directories(root: int, path: str, skip: Skip, depth: int) -> Iterator[str]:
    """`path` and every directory below it that is not excluded. Links are not followed. Raises InvalidInput."""
    if depth > MAX_DEPTH:
        raise InvalidInput(f"directories are nested deeper than {MAX_DEPTH} below '{path[:100]}'")
    yield path
    for entry in _entries(root, path):
        below = f"{path}/{entry}" if path else entry
        if skip(below, True):
            continue
        try:
            os.close(open_in_root(root, below, DIRECTORY))
        except OSError:
            continue
        yield from _directories(root, below, skip, depth + 1)


def _wildcard(name: str, pattern: str) -> Wildcard:
    try:
        return Wildcard(name)
    except ValueError as e:
        raise InvalidInput(f"'{pattern}': malformed pattern: {e}") from None


def walk(root: int, path: str, skip: Skip, *, may_hold: Skip | None = None) -> Iterator[FileNode]:
    """Everything below the directory `path` of `root` (fd), each directory before what it holds, with names in order.

    skip: says of (path from the root, is directory) whether it is left out; may_hold: says of an excluded directory
    whether something below it is not excluded, None for never. Links are not followed. Sockets are left out, as by
    docker. Raises InvalidInput, OSError.
    """
    top = open_in_root(root, path or "/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield from _Walk(path, skip, may_hold).below(top, "", 0)
    finally:
        os.close(top)


class _Walk:
    """One walk of the directory whose path from the root is `prefix`."""

    __slots__ = ("_may_hold", "_prefix", "_skip")

    def __init__(self, prefix: str, skip: Skip, may_hold: Skip | None) -> None:
        self._prefix = prefix
        self._skip = skip
        self._may_hold = may_hold

    def below(self, directory: int, below: str, depth: int) -> Iterator[FileNode]:
        """What `directory` (fd) holds. below: its path from where the walk began; depth: how deep it is nested there.

        A subdirectory is opened by its parent's fd with O_NOFOLLOW: it may have become a link since it was looked at.
        """
        if depth > MAX_DEPTH:
            raise InvalidInput(f"directories are nested deeper than {MAX_DEPTH} below '{self._prefix}'")
        with os.scandir(directory) as found:
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
        may_hold = self._may_hold
        for name, is_directory in names:
            path = f"{below}/{name}" if below else name
            whole = f"{self._prefix}/{path}" if self._prefix else path
            excluded = self._skip(whole, is_directory)
            if excluded and not (is_directory and may_hold is not None and may_hold(whole, True)):
                continue
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISSOCK(status.st_mode):
                continue
            yield FileNode(path, directory, name, status, excluded)
            if stat.S_ISDIR(status.st_mode):
                inner = os.open(name, DIRECTORY, dir_fd=directory)
                try:
                    yield from self.below(inner, path, depth + 1)
                finally:
                    os.close(inner)


def skip_nothing(path: str, is_directory: bool) -> bool:
    """The `skip` of `walk` that leaves nothing out."""
    return False
