"""Mount points that a step's root lacked: noted before the mounts are made, taken away again after the step has ended.

A file or directory that the runtime had to make to mount on (/etc/resolv.conf in an image that has none, the target of
a RUN --mount) is no work of the step and must not come into its layer.

The step may have put a link in any place meanwhile, so the removal opens directories by their parents' fds and follows
no link: it would otherwise remove or touch files of the host.
"""

from __future__ import annotations

import errno
import json
import os
import stat

from rootless.kernel.files import open_in_root, walk_beneath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Missing = tuple[str, list[str]]  # (directory that is there, names below it that are not)

_LINKS = 40  # as many links as the kernel follows in one path (path_resolution(7))
_FUSE_MARKS = frozenset((".wh..wh..opq", ".wh..opq"))
_PATH = os.O_PATH | os.O_CLOEXEC


class RootNotes:
    """What was noted of a root before anything was mounted on it.

    missing: mount points that the root lacks; listings: (mtime in ns, names) of the directories in which they will be
    made, for a driver whose `upper` is the whole tree.
    """

    __slots__ = ("listings", "missing")

    def __init__(self, missing: Sequence[Missing], listings: dict[str, tuple[int, list[str]]]) -> None:
        self.missing = missing
        self.listings = listings

    def to_json(self) -> bytes:
        """The notes as a message for the pipe from the child that mounted the root."""
        return json.dumps([self.missing, self.listings]).encode()

    @classmethod
    def from_json(cls, content: bytes) -> RootNotes:
        """What `to_json` wrote; an empty message, from a child that could not mount the root, notes nothing."""
        missing, listings = json.loads(content or b"[[],{}]")
        return cls(
            [(str(here), [str(name) for name in names]) for here, names in missing],
            {str(here): (int(mtime), [str(name) for name in names]) for here, (mtime, names) in listings.items()},
        )


def missing_targets(root: int, targets: Iterable[str]) -> list[Missing]:
    """Those of `targets` (absolute paths) that the directory `root` (fd) lacks. Links are followed as in a chroot."""
    base = os.readlink(f"/proc/self/fd/{root}").rstrip("/")
    found = []
    for target in targets:
        note = _missing(root, base, target)
        if note is not None:
            found.append(note)
    return found


def _missing(root: int, base: str, target: str) -> Missing | None:
    names = [n for n in target.split("/") if n not in ("", ".")]
    here = "/"
    for _ in range(_LINKS):
        for position, name in enumerate(names):
            path = f"{here.rstrip('/')}/{name}"
            try:
                fd = open_in_root(root, path, _PATH)
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    return None
                link = _dangling(root, path)
                if link is None:
                    return None if ".." in names[position:] else (here, names[position:])
                # The name is a link to nothing. The runtime will make what it points to, so that is noted in its place.
                start = "" if link.startswith("/") else here
                names = [n for n in f"{start}/{link}".split("/") if n not in ("", ".")] + names[position + 1 :]
                here = "/"
                break
            try:
                here = os.readlink(f"/proc/self/fd/{fd}").removeprefix(base) or "/"
            finally:
                os.close(fd)
        else:
            return None
    return None


def _dangling(root: int, path: str) -> str | None:
    try:
        fd = open_in_root(root, path, _PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def remove_targets(upper: str, lowerdirs: Sequence[str], notes: Iterable[Missing], *, is_whole: bool = False) -> None:
    """Remove from `upper` what was made only to be mounted on: empty files and directories of `notes`.

    A directory that overlayfs has copied up for a mount point, and that is left without any change, goes too. is_whole:
    `upper` is the whole tree (the copy driver's), where such a directory is the image's own. lowerdirs: the layers
    below, topmost first. To be called as root of the user namespace, when nobody has the tree mounted any more:
    overlayfs leaves it undefined what a mounted tree shows when its upper directory is changed.
    """
    top = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for here, names in sorted(notes, key=lambda note: -len(note[1])):
            there = [n for n in here.split("/") if n]
            for length in range(len(names), 0, -1):
                if not _remove(top, [*there, *names[:length]]):
                    break
            for length in range(0 if is_whole else len(there), 0, -1):
                if not _remove_unchanged(top, there[:length], lowerdirs):
                    break
    finally:
        os.close(top)


def _remove(top: int, names: list[str]) -> bool:
    try:
        parent = _directory(top, names[:-1])
    except OSError:
        return False
    try:
        status = os.stat(names[-1], dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            _rmdir(parent, names[-1])
        elif stat.S_ISREG(status.st_mode) and not status.st_size:
            os.unlink(names[-1], dir_fd=parent)
        else:
            return False
    except FileNotFoundError:
        return True
    except OSError:
        return False
    finally:
        os.close(parent)
    return True


def _rmdir(parent: int, name: str) -> None:
    """Remove an empty directory. fuse-overlayfs marks the directories that it makes with files, which go first."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        present = os.listdir(fd)
        if _FUSE_MARKS.issuperset(present):
            for mark in present:
                os.unlink(mark, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def _remove_unchanged(top: int, names: list[str], lowerdirs: Sequence[str]) -> bool:
    try:
        fd = _directory(top, names)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        status = os.fstat(fd)
        if os.listdir(f"/proc/self/fd/{fd}") or _is_opaque(fd):
            return False
    finally:
        os.close(fd)
    for lower in lowerdirs:
        try:
            below = os.stat(f"{lower}/{'/'.join(names)}", follow_symlinks=False)
        except OSError:
            continue
        same = (below.st_mode, below.st_uid, below.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
        return same and _remove(top, names)
    return False


def _is_opaque(fd: int) -> bool:
    from rootless.storage.files.tree_copy import is_opaque

    real = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return is_opaque(real)
    finally:
        os.close(real)


def _directory(top: int, names: list[str]) -> int:
    if not names:
        return os.dup(top)
    return walk_beneath(top, "/".join(names), os.O_PATH | os.O_DIRECTORY)


def directory_listings(root: int, notes: Iterable[Missing]) -> dict[str, tuple[int, list[str]]]:
    """(mtime in ns, names) of the directories of `notes`, to be noted before anything is made in them."""
    found = {}
    for here, _ in notes:
        fd = open_in_root(root, here, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found[here] = os.fstat(fd).st_mtime_ns, sorted(os.listdir(fd))
        finally:
            os.close(fd)
    return found


def restore_times(upper: str, before: dict[str, tuple[int, list[str]]]) -> None:
    """Give the directories that hold what they held before their times back.

    The only change of such a directory was the mount point that came and went. A driver whose `upper` is the whole tree
    would otherwise have it as a change in the layer. before: what `listings` has noted.
    """
    top = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for here, (mtime, names) in before.items():
            try:
                fd = _directory(top, [n for n in here.split("/") if n])
            except OSError:
                continue
            try:
                path = f"/proc/self/fd/{fd}"
                if sorted(os.listdir(path)) == names:
                    os.utime(path, ns=(mtime, mtime))
            finally:
                os.close(fd)
    finally:
        os.close(top)


def settle_times(upper: str, since: int, timestamp: int, lowerdirs: Sequence[str] = ()) -> None:
    """Give what was written since `since` (ns) the time `timestamp` (seconds); older times stay.

    A time of now would make each build's layer another one. An entry with the time that it has in `lowerdirs`
    (uppermost first) was not written by this step, however young it is: a driver whose `upper` is the whole tree has
    such entries too, and a file that an earlier step copied a moment ago would become a change. A directory's own time
    is set after its entries'.
    """
    moment = timestamp * 10**9
    stack = [("", False)]
    while stack:
        name, done = stack.pop()
        path = f"{upper}/{name}" if name else upper
        if done:
            mtime = os.stat(path, follow_symlinks=False).st_mtime_ns
            if mtime >= since and not _has_time_below(lowerdirs, name, mtime):
                os.utime(path, ns=(moment, moment), follow_symlinks=False)
            continue
        stack.append((name, True))
        with os.scandir(path) as entries:
            for entry in entries:
                inner = f"{name}/{entry.name}" if name else entry.name
                if entry.is_dir(follow_symlinks=False):
                    stack.append((inner, False))
                    continue
                mtime = entry.stat(follow_symlinks=False).st_mtime_ns
                if mtime >= since and not _has_time_below(lowerdirs, inner, mtime):
                    os.utime(entry.path, ns=(moment, moment), follow_symlinks=False)


def _has_time_below(lowerdirs: Sequence[str], name: str, mtime: int) -> bool:
    """Whether the uppermost layer that has `name` has it with this time, in ns."""
    for lower in lowerdirs:
        try:
            return os.stat(f"{lower}/{name}", follow_symlinks=False).st_mtime_ns == mtime
        except OSError:
            continue
    return False
