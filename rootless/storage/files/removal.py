"""Deleting trees, also those with files of mapped ids and directories of mode 000. It decides not what may go.

A tree is first renamed into the store's trash, in one step; then it is deleted as ourselves, and whatever that cannot
reach from inside the user namespace. A kill leaves trash, which garbage collection empties.
"""

from __future__ import annotations

import errno
import os
import stat

from rootless.errors import HostLimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.id_map import IdMap

_DENIED = (errno.EACCES, errno.EPERM)
_DEPTH = 200  # open directories at a time; deeper ones are moved up first
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(
    path: str, id_map: IdMap | None = None, *, trash: str | None = None, userns_fd: int | None = None
) -> None:
    """Delete the tree `path`; harmless when it is not there. No link is followed.

    id_map: whose ids its files may have; userns_fd: a living user namespace to delete in, instead.
    trash: where to rename it first; by default `../../trash`, the trash of the store that `path` (an object of
    containers, layers or volumes) is in, and in place where there is none.
    Raises HostLimit when something cannot be deleted.
    """
    path = path.rstrip("/")
    if trash is None:
        trash = f"{os.path.dirname(os.path.dirname(path))}/trash"
    moved = f"{trash}/{os.urandom(16).hex()}"
    try:
        os.rename(path, moved)
        path = moved
    except FileNotFoundError:
        if not os.path.lexists(path):
            return
    except OSError as e:
        # A mount point, another filesystem, or no room for a longer directory `trash`: delete in place
        if e.errno not in (errno.EBUSY, errno.EXDEV, errno.ENOSPC, errno.EDQUOT, *_DENIED):
            raise HostLimit(f"cannot remove '{path}': {e.strerror}") from e
    delete(path, id_map, userns_fd=userns_fd)


def delete(path: str, id_map: IdMap | None = None, *, userns_fd: int | None = None) -> None:
    """Delete the tree `path` where it is. Raises HostLimit when something of it stays."""
    refused = _delete(path)
    if refused is None:
        return
    # In a directory of another id we may delete nothing, and its parent is then "not empty". Root of a user namespace
    # with that id may.
    if refused.errno in (*_DENIED, errno.ENOTEMPTY) and (id_map is not None or userns_fd is not None):
        from rootless.host import subid, userns

        def work() -> bytes:
            problem = _delete(path)
            return b"" if problem is None else f"{problem.errno} {problem.filename}".encode("utf-8", "replace")

        if userns_fd is not None:
            answer = userns.call_in(userns_fd, work)
        else:
            assert id_map is not None
            if id_map.to_container_uid(os.geteuid()) is None:
                # Root of a map without our own id (`--userns=nomap`) may not enter our private directories; the default
                # map has all ids that are ours
                id_map = subid.default_id_map()
            answer = userns.call(id_map, work)
        if not answer:
            return
        number, _, name = answer.decode("utf-8", "replace").partition(" ")
        refused = OSError(int(number), os.strerror(int(number)), name)
    raise HostLimit(
        f"cannot remove '{path}': {refused.filename or path}: {refused.strerror}",
        hint="files of another id map are removed by `rootless unshare rm -rf PATH`",
    )


def _delete(path: str) -> OSError | None:
    """Delete as this process; the first refusal is returned, and everything else is deleted all the same."""
    parent, name = os.path.split(path)
    try:
        top = os.open(parent or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as e:
        return e
    try:
        return delete_at(top, name, path)
    finally:
        os.close(top)


def delete_at(top: int, name: str, path: str) -> OSError | None:
    """Delete `name` in directory `top`, depth first, with a stack of open directories instead of recursion."""
    if _unlink(top, name):
        return None
    first: OSError | None = None
    # (fd of the directory, its name in its parent, names of its directories still to do)
    stack: list[tuple[int, str, list[str]]] = []
    pending = [name]
    lifted = 0
    while True:
        parent = stack[-1][0] if stack else top
        todo = stack[-1][2] if stack else pending
        if todo:
            child = todo.pop()
            if len(stack) >= _DEPTH:
                # A tree may be deeper than a process may have files open: what is deeper is renamed to the top, and
                # deleted from there
                lifted += 1
                moved = f".{os.getpid()}-{lifted}-{name}"[:200]
                try:
                    os.rename(child, moved, src_dir_fd=parent, dst_dir_fd=top)
                    pending.append(moved)
                except OSError as e:
                    first = first or _named(e, path, child)
                continue
            try:
                fd = _open(parent, child)
            except FileNotFoundError:
                continue
            except OSError as e:
                # An empty directory of mode 000 (overlayfs' work/work) goes without being opened
                if not _rmdir(parent, child):
                    first = first or _named(e, path, child)
                continue
            directories, problem = _clear(fd, path)
            first = first or problem
            stack.append((fd, child, directories))
            continue
        if not stack:
            return first
        fd, child, _ = stack.pop()
        os.close(fd)
        if not _rmdir(stack[-1][0] if stack else top, child) and first is None:
            first = OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)


def _clear(fd: int, path: str) -> tuple[list[str], OSError | None]:
    """Unlink the files of directory `fd`; returns its directories' names and the first refusal."""
    directories: list[str] = []
    first: OSError | None = None
    writable = False
    with os.scandir(fd) as entries:
        names = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
    for name, is_directory in names:
        if is_directory:
            directories.append(name)
            continue
        try:
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            pass
        except OSError as e:
            if not writable and e.errno == errno.EACCES:
                writable = True
                try:
                    os.fchmod(fd, 0o700)
                    os.unlink(name, dir_fd=fd)
                    continue
                except OSError:
                    pass
            first = first or _named(e, path, name)
    return directories, first


def _open(parent: int, name: str) -> int:
    """The directory for reading; one of ours without the mode bits for that is given them."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid() or status.st_mode & stat.S_IRWXU == stat.S_IRWXU:
                raise
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
        finally:
            os.close(fd)
        return os.open(name, _DIRECTORY, dir_fd=parent)


def _unlink(parent: int, name: str) -> bool:
    """True when `name` was no directory (or is not there) and is gone."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _rmdir(parent: int, name: str) -> bool:
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except PermissionError:
        # The parent lacks its write bit; when it is ours we may give it
        try:
            os.chmod(f"/proc/self/fd/{parent}", 0o700)
            os.rmdir(name, dir_fd=parent)
        except OSError:
            return False
        return True
    except OSError:
        return False
    return True


def _named(error: OSError, path: str, name: str) -> OSError:
    return OSError(error.errno, error.strerror, f"{path}/…/{name}")
