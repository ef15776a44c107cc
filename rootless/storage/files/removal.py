"""Deletes trees, also those with files of mapped ids and directories of mode 000. What may go, the caller decides.

A tree is first renamed into the store's trash, so that it is gone from its place in one step. Then this process deletes
what it can as the user, and what only a mapped id may delete from inside a user namespace. A process that is killed
meanwhile leaves trash, which garbage collection empties.
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
_DEPTH = 200  # directories that are open at a time; deeper ones are moved to the top first
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(
    path: str, id_map: IdMap | None = None, *, trash: str | None = None, userns_fd: int | None = None
) -> None:
    """Delete the tree `path`, following no link; nothing happens when it is not there.

    id_map: the id map of which its files may have ids; userns_fd: a living user namespace to delete in, in place of a
    new one with that map.
    trash: the directory into which the tree is renamed first. By default it is `../../trash`: `path` is an object of
    the store's `containers`, `layers` or `volumes`. Where it cannot be renamed it is deleted in its place.
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
        # `path` is a mount point or on another file system, or the full disk has no room for one more name in `trash`.
        # A full disk must not keep the user from freeing it, so the tree is deleted in its place.
        if e.errno not in (errno.EBUSY, errno.EXDEV, errno.ENOSPC, errno.EDQUOT, *_DENIED):
            raise HostLimit(f"cannot remove '{path}': {e.strerror}") from e
    delete_tree(path, id_map, userns_fd=userns_fd)


def delete_tree(path: str, id_map: IdMap | None = None, *, userns_fd: int | None = None) -> None:
    """Delete the tree `path` where it is. Raises HostLimit when something of it stays."""
    refused = _delete(path)
    if refused is None:
        return
    # In a directory that belongs to another id this process may delete nothing, and the directory above it is "not
    # empty" then. Root of a user namespace in which that id is mapped may (user_namespaces(7)).
    if refused.errno in (*_DENIED, errno.ENOTEMPTY) and (id_map is not None or userns_fd is not None):
        from rootless.host import subid, userns

        def work() -> bytes:
            problem = _delete(path)
            return b"" if problem is None else f"{problem.errno} {problem.filename}".encode("utf-8", "replace")

        if userns_fd is not None:
            answer = userns.call_in_namespace(userns_fd, work)
        else:
            assert id_map is not None
            if id_map.to_container_uid(os.geteuid()) is None:
                # A map without the user's own id (`--userns=nomap`) makes a root that may not enter the user's
                # directories of mode 0700. The default map has every id that any map of this user can have.
                id_map = subid.default_id_map()
            answer = userns.call_in_new_namespace(id_map, work)
        if not answer:
            return
        number, _, name = answer.decode("utf-8", "replace").partition(" ")
        refused = OSError(int(number), os.strerror(int(number)), name)
    raise HostLimit(
        f"cannot remove '{path}': {refused.filename or path}: {refused.strerror}",
        hint="files of another id map are removed by `rootless unshare rm -rf PATH`",
    )


def _delete(path: str) -> OSError | None:
    """Delete `path` with the rights that this process has. What is refused is passed over, and everything else is
    deleted all the same; the first refusal is returned, None when there was none."""
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
    """Delete `name`, a file or a tree, in directory `top`; returns the first refusal as `_delete` does. path: for
    messages.

    Every directory is opened below the one above it without following links: a container that swaps a directory for a
    link while its tree is deleted cannot lead the deletion elsewhere.
    """
    if _unlink(top, name):
        return None
    first: OSError | None = None
    # The open directories on the way down: fd, name in the directory above, names of inner directories still to delete
    stack: list[tuple[int, str, list[str]]] = []
    pending = [name]
    lifted = 0
    while True:
        parent = stack[-1][0] if stack else top
        todo = stack[-1][2] if stack else pending
        if todo:
            child = todo.pop()
            if len(stack) >= _DEPTH:
                # A container can make a tree deeper than the number of files that a process may have open. What lies
                # deeper than _DEPTH is renamed into the top directory and deleted from there.
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
                # An empty directory of mode 000, such as overlayfs' `work/work`, can be removed without being opened
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
    """Unlink all files in directory `fd`; returns the names of the directories in it, and the first refusal."""
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
    """Open the directory `name` for reading; one of this user's that lacks the mode bits for that is given them.

    The mode is changed by an fd of the directory: chmod(2) by name would follow a link that has taken the name since.
    """
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
    """Unlink `name`. True when it is gone now, or was not there; False for a directory or when it is refused."""
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
        # The directory above may lack its write bit. Its owner, if that is who runs this, may set it.
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
