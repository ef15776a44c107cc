"""Measures trees: allocated bytes, inodes and bytes of content. A file with several names counts once.

It follows no link. Inside the user namespace, in the worker, directories of mapped ids can be read too.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512  # bytes: the unit of st_blocks, whatever the block size of the file system is (inode(7))
_REFUSALS = (errno.EACCES, errno.EPERM)


class TreeSize(NamedTuple):
    """The size of a tree. allocated: bytes of its blocks on disk; inodes: number of files and directories; content: sum
    of the sizes of its files, without its directories, in bytes."""

    allocated: int
    inodes: int
    content: int


def measure_paths(paths: Sequence[str]) -> list[TreeSize]:
    """The size of each path, which may be a file, a tree or absent (all 0), as far as this process may read it. A file
    that has names in several of the paths counts for the first of them."""
    walker = _Walker()
    return [walker.measure(path) for path in paths]


def measure_alone(path: str) -> tuple[TreeSize, bool]:
    """The size of one path, and whether something of it could not be read."""
    walker = _Walker()
    return walker.measure(path), walker.was_refused


class _Walker:
    """Walks trees and remembers the files with several names that it has met. was_refused: whether something could not
    be read."""

    __slots__ = ("_allocated", "_content", "_inodes", "_seen", "was_refused")

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()
        self._allocated = self._inodes = self._content = 0
        self.was_refused = False

    def measure(self, path: str) -> TreeSize:
        """The size of one file or tree, without files that were met before."""
        self._allocated = self._inodes = self._content = 0
        try:
            fd = os.open(path, _DIRECTORY)
        except OSError as e:
            self._note(e)
            # With O_DIRECTORY a symbolic link is ENOTDIR too, although O_NOFOLLOW alone makes it ELOOP
            if e.errno == errno.ENOTDIR:
                status = os.lstat(path)
                return TreeSize(status.st_blocks * _BLOCK, 1, status.st_size)
            return TreeSize(0, 0, 0)
        self._walk(fd)
        return TreeSize(self._allocated * _BLOCK, self._inodes, self._content)

    def _note(self, problem: OSError) -> None:
        if problem.errno in _REFUSALS:
            self.was_refused = True

    def _walk(self, fd: int) -> None:
        """Walk the open directory `fd`, and close it in the end."""
        status = os.fstat(fd)
        self._allocated += status.st_blocks
        self._inodes += 1
        # Only one directory is open at a time: a container can make a tree deeper than the number of files that a
        # process may have open. For each directory on the way down: names still to visit, and its device and inode.
        stack: list[tuple[list[str], tuple[int, int]]] = [(self._count_entries(fd), (status.st_dev, status.st_ino))]
        try:
            while True:
                names, _ = stack[-1]
                if names:
                    try:
                        inner = os.open(names.pop(), _DIRECTORY, dir_fd=fd)
                    except OSError as e:
                        self._note(e)
                        continue  # gone meanwhile, or not ours to read
                    os.close(fd)
                    fd = inner
                    status = os.fstat(fd)
                    stack.append((self._count_entries(fd), (status.st_dev, status.st_ino)))
                    continue
                stack.pop()
                if not stack:
                    return
                try:
                    outer = os.open("..", _DIRECTORY, dir_fd=fd)
                except OSError as e:
                    self._note(e)  # a directory that may be read and not entered: what was counted is the answer
                    return
                os.close(fd)
                fd = outer
                status = os.fstat(fd)
                if (status.st_dev, status.st_ino) != stack[-1][1]:
                    return  # somebody has moved the directory meanwhile, and `..` leads elsewhere: the walk ends here
        finally:
            os.close(fd)

    def _count_entries(self, fd: int) -> list[str]:
        """Count everything in directory `fd`, and return the names of the directories in it."""
        directories = []
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as e:
                    self._note(e)
                    continue
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.name)
                else:
                    if status.st_nlink > 1:
                        if (status.st_dev, status.st_ino) in self._seen:
                            continue
                        self._seen.add((status.st_dev, status.st_ino))
                    self._content += status.st_size
                self._allocated += status.st_blocks
                self._inodes += 1
        return directories
