"""The verb `system reset`: everything of this store goes, files of mapped ids too. It asks nothing."""

from __future__ import annotations

import os
import time

from rootless.engine.container.container_removal import remove_container
from rootless.errors import HostLimit, InvalidState, RootlessError
from rootless.records.json_file import random_name
from rootless.storage.files.removal import delete
from rootless.storage.store.store import PARTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine

_OWN = frozenset(part.partition("/")[0] for part in PARTS) | {
    "version", "oci-layout", "index.json", "quarantine", "build-cache",
    "events.log", "events.log.1", "events.log.lock", "cache", "run",
}  # fmt: skip
_WAIT = 10.0
_POLL = 0.05


def reset_store(engine: Engine, *, force: bool = False) -> None:
    """Remove containers, images, volumes, caches and the store itself; the next command makes an empty one.

    Settings and credentials stay. Raises InvalidState while containers run (force: they are killed) or other commands
    use the store; HostLimit when something cannot be deleted.
    """
    running = _running(engine)
    if running and not force:
        names = ", ".join(running[:5]) + (", ..." if len(running) > 5 else "")
        raise InvalidState(
            f"{len(running)} containers are running: {names}", hint="stop them first, or use --force, which kills them"
        )
    for container_id in engine.store.containers.list():
        try:
            remove_container(engine, container_id, force=True)
        except RootlessError as e:
            engine.warn(f"container {container_id[:12]}: {e.message}")
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


def _running(engine: Engine) -> list[str]:
    """Names of the containers that have a process, here or on another host."""
    from rootless.engine.container.reconcile import state_of

    found = []
    for container_id in engine.store.containers.list():
        try:
            state = state_of(engine, container_id)
            if state.is_running or state.status in ("restarting", "paused"):
                found.append(engine.store.containers.read(container_id).name)
        except RootlessError:
            continue  # a damaged record has no say
    return found


def _is_ours(name: str) -> bool:
    """Whether the store made this. --root may name a directory with other things in it, in the worst case a home."""
    return name in _OWN or (name.startswith(".") and name.endswith(".tmp")) or name.startswith(".reset-")


def _remove(engine: Engine) -> None:
    store, directories = engine.store, engine.directories
    # `version` first: a store without it is made anew, whatever else a killed reset leaves
    try:
        os.unlink(store.path("version"))
    except FileNotFoundError:
        pass
    problems = []
    for path in dict.fromkeys((directories.cache, directories.runtime, store.root)):
        try:
            names = os.listdir(path)
        except FileNotFoundError:
            continue
        except OSError as e:
            raise HostLimit(f"cannot read '{path}': {e.strerror}") from e
        if path == store.root:
            foreign = sorted(name for name in names if not _is_ours(name))
            if foreign:
                engine.warn(f"not of the store, and left in '{path}': {', '.join(foreign[:5])}")
            names = [name for name in names if _is_ours(name)]
        for name in names:
            moved = f"{path}/.reset-{random_name()}"
            try:
                os.rename(f"{path}/{name}", moved)
                delete(moved, store.id_map)
            except FileNotFoundError:
                continue
            except (OSError, RootlessError) as e:
                problems.append(e.message if isinstance(e, RootlessError) else f"'{path}/{name}': {e.strerror}")
        try:
            os.rmdir(path)
        except OSError:
            pass  # something new was made in it, or it is a mount point
    if problems:
        raise HostLimit(f"not everything could be removed: {problems[0]}", hint="`rootless unshare rm -rf` may help")
