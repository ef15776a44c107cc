"""Bytes and inodes that trees take on disk: allocated blocks, each hard-linked file once. It follows nothing.

It runs in the worker inside the user namespace, where directories of mapped ids can be read.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512  # st_blocks' unit, whatever the file system's


def measure(paths: Sequence[str]) -> list[tuple[int, int]]:
    """(bytes, inodes) of each path, which may be a file, a tree or absent (0, 0). A file with several names counts
    where it is met first."""
    seen: set[tuple[int, int]] = set()
    return [_measure(path, seen) for path in paths]


def _measure(path: str, seen: set[tuple[int, int]]) -> tuple[int, int]:
    try:
        fd = os.open(path, _DIRECTORY)
    except NotADirectoryError:
        status = os.lstat(path)
        return status.st_blocks * _BLOCK, 1
    except OSError:
        return 0, 0
    status = os.fstat(fd)
    total, inodes = status.st_blocks, 1
    # One open directory at a time: trees may be deeper than there are fds. Names still to do, and who the parent is
    names, blocks, count = _entries(fd, seen)
    total, inodes = total + blocks, inodes + count
    stack: list[tuple[list[str], tuple[int, int]]] = [(names, (status.st_dev, status.st_ino))]
    try:
        while True:
            names, _ = stack[-1]
            if names:
                try:
                    inner = os.open(names.pop(), _DIRECTORY, dir_fd=fd)
                except OSError:
                    continue  # gone meanwhile
                os.close(fd)
                fd = inner
                status = os.fstat(fd)
                below, blocks, count = _entries(fd, seen)
                total, inodes = total + blocks, inodes + count
                stack.append((below, (status.st_dev, status.st_ino)))
                continue
            stack.pop()
            if not stack:
                break
            outer = os.open("..", _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = outer
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != stack[-1][1]:
                break  # moved away while we looked: what was seen is the answer
    finally:
        os.close(fd)
    return total * _BLOCK, inodes


def _entries(fd: int, seen: set[tuple[int, int]]) -> tuple[list[str], int, int]:
    """Names of the directories in `fd`, and blocks and number of everything in it (directories included)."""
    directories = []
    blocks = count = 0
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            elif status.st_nlink > 1:
                key = (status.st_dev, status.st_ino)
                if key in seen:
                    continue
                seen.add(key)
            blocks += status.st_blocks
            count += 1
    return directories, blocks, count
