"""The verb `system reset`: the whole store is removed, with files of subordinate ids. It does not ask the user."""

from __future__ import annotations

import os
import time

from rootless.engine.container.container_removal import remove_container
from rootless.errors import HostLimit, InvalidState, RootlessError
from rootless.records.json_file import random_name
from rootless.storage.files.removal import delete_tree
from rootless.storage.store.store import is_own_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine

_WAIT = 10.0
_POLL = 0.05


def reset_store(engine: Engine, *, force: bool = False) -> None:
    """Remove containers, images, volumes, caches and the store itself; the next command makes an empty store.

    Settings and credentials stay. force: containers that run are killed. Raises InvalidState while containers run or
    other commands use the store; HostLimit when something cannot be deleted.
    """
    running = _running(engine)
    if running and not force:
        names = ", ".join(running[:5]) + (", ..." if len(running) > 5 else "")
        raise InvalidState(
            f"{len(running)} containers are running: {names}", hint="stop them first, or use --force, which kills them"
        )
    for container_id in _ids(engine):
        try:
            remove_container(engine, container_id, force=True)
        except RootlessError as e:
            engine.warn(f"container {container_id[:12]}: {e.message}")
        except OSError as e:
            engine.warn(f"container {container_id[:12]}: {e.strerror}")
    still = _running(engine)
    if still:
        raise InvalidState(f"containers still run: {', '.join(still[:5])}", hint="they may run on another host")
    lock = engine.store.exclusive()
    deadline = time.monotonic() + _WAIT
    while not lock.acquire(blocking=False):
        if time.monotonic() > deadline:
            raise InvalidState("other commands are using the store", hint="wait for them to end")
        time.sleep(_POLL)
    try:
        _remove(engine)
    finally:
        lock.release()


def _ids(engine: Engine) -> list[str]:
    """The ids of the containers, none where the store is too damaged to list them: a reset must work then, too."""
    try:
        return engine.store.containers.list()
    except (RootlessError, OSError):
        return []


def _running(engine: Engine) -> list[str]:
    """The names of the containers that have a process, on this or another host."""
    from rootless.engine.container.reconcile import state_of

    found = []
    for container_id in _ids(engine):
        try:
            state = state_of(engine, container_id)
            if state.is_running or state.status in ("restarting", "paused"):
                found.append(container_id[:12])
                found[-1] = engine.store.containers.read(container_id).name
        except (RootlessError, OSError):
            continue  # a damaged container cannot keep the store from being reset
    return found


def _remove(engine: Engine) -> None:
    store, directories = engine.store, engine.directories
    # The file `version` goes first: a store without it is made anew by the next command, so that a reset which was
    # killed leaves nothing that counts as a store
    try:
        os.unlink(store.path("version"))
    except FileNotFoundError:
        pass
    problems = []
    for path in dict.fromkeys((directories.cache, directories.runtime, store.root)):
        fd = _open_own(engine, path)
        if fd is None:
            continue
        try:
            problems += _empty(engine, path, fd)
        finally:
            os.close(fd)
        try:
            os.rmdir(path)
        except OSError:
            pass  # another command has made something new in it, or it is a mount point
    if problems:
        raise HostLimit(f"not everything could be removed: {problems[0]}", hint="`rootless unshare rm -rf` may help")


def _open_own(engine: Engine, path: str) -> int | None:
    """Open the directory `path`. None when it does not exist, or (with a warning) when it is not ours to empty.

    In /tmp another user may have put a link, or a directory of their own, where our runtime directory would be. A link
    would make this command delete files of its caller that the other user chose: so it is not followed.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        engine.warn(f"'{path}' is a link or no directory: what is behind it stays")
        return None
    except OSError as e:
        raise HostLimit(f"cannot read '{path}': {e.strerror}") from e
    if os.fstat(fd).st_uid != os.geteuid():
        engine.warn(f"'{path}' belongs to another user: what is in it stays")
        os.close(fd)
        return None
    return fd


def _empty(engine: Engine, path: str, fd: int) -> list[str]:
    """Remove the store's own entries of the directory `fd`, whose name is `path`, and return a text for each failure.

    All goes by the descriptor, so that a link which is put in the place of `path` meanwhile has no effect. Each entry
    is renamed first, so that no command can find it half deleted.
    """
    names = os.listdir(fd)
    if path == engine.store.root:
        foreign = sorted(name for name in names if not is_own_name(name))
        if foreign:
            engine.warn(f"not of the store, and left in '{path}': {', '.join(foreign[:5])}")
        names = [name for name in names if is_own_name(name)]
    here = f"/proc/self/fd/{fd}"
    problems = []
    for name in names:
        moved = f".reset-{random_name()}"
        try:
            os.rename(name, moved, src_dir_fd=fd, dst_dir_fd=fd)
            delete_tree(f"{here}/{moved}", engine.store.id_map)
        except FileNotFoundError:
            continue
        except RootlessError as e:
            problems.append(e.message.replace(here, path))
        except OSError as e:
            problems.append(f"'{path}/{name}': {e.strerror}")
    return problems
