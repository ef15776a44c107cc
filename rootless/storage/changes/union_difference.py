"""What is different between two images' trees, without mounting either. It reads layers and changes nothing."""

from __future__ import annotations

import os
import stat

from rootless.storage.files.entry_attributes import CHUNK, READ, read_attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.storage.changes.lowers import Lowers

    Change = tuple[str, str]


def compare_unions(one: Lowers, other: Lowers, prefix: str = "") -> list[Change]:
    """What is in `other` and not in `one`, or the reverse: (kind, path), directories before what is in them.

    kind: A for added, C for changed, D for deleted; prefix: path of both directories. Times alone are no change.
    """
    found: list[Change] = []
    before, after = one.names(), other.names()
    for name in sorted(before | after):
        path = f"{prefix}/{name}"
        was, now = one.find(name), other.find(name)
        if now is None:
            if was is not None:
                found.append(("D", path))
            continue
        is_told = was is None or not _is_equal(*was, *now)
        inner: list[Change] = []
        if stat.S_ISDIR(now[1].st_mode):
            inner = compare_unions(one.enter(name), other.enter(name), path)
        if is_told or inner:
            found.append(("A" if was is None else "C", path))
        found += inner
    return found


def _is_equal(was_path: str, was: os.stat_result, now_path: str, now: os.stat_result) -> bool:
    if (was.st_dev, was.st_ino) == (now.st_dev, now.st_ino):
        return True
    if (was.st_mode, was.st_uid, was.st_gid) != (now.st_mode, now.st_uid, now.st_gid):
        return False
    if stat.S_ISLNK(now.st_mode):
        return os.readlink(was_path) == os.readlink(now_path)
    if stat.S_ISDIR(now.st_mode):
        return read_attributes(was_path)[:2] == read_attributes(now_path)[:2]
    if not stat.S_ISREG(now.st_mode):
        return True
    if was.st_size != now.st_size or read_attributes(was_path)[:2] != read_attributes(now_path)[:2]:
        return False
    fds = [os.open(path, READ) for path in (was_path, now_path)]
    try:
        while (piece := os.read(fds[0], CHUNK)) == os.read(fds[1], CHUNK):
            if not piece:
                return True
        return False
    finally:
        for fd in fds:
            os.close(fd)
