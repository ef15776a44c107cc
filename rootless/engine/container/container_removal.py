"""`rm` and `prune` of containers: the name is removed first, then the files.

A kill in between leaves a directory without a name, which is no container any more and which garbage collection finds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence

from rootless.engine import events
from rootless.engine.container.endings import Ended, Target, end_together
from rootless.engine.container.lifecycle import begin_forced_end
from rootless.engine.container.reconcile import readable_records, state_of
from rootless.engine.filters import Filters
from rootless.engine.types import PruneReport
from rootless.errors import InvalidInput, InvalidState, NewerFormat, NotFound, RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.records.container import ContainerRecord


def remove_container(engine: Engine, container: str, *, force: bool = False, volumes: bool = False) -> str:
    """Remove a container and return its id.

    force: one that runs is killed first, and one with a damaged record is removed; volumes: its anonymous volumes go
    too. Raises NotFound; InvalidState for one that runs; InvalidInput for a damaged one.
    """
    containers = engine.store.containers
    container_id = containers.find(container)
    state = state_of(engine, container_id)
    if state.remote:
        raise InvalidState(f"container '{container}' runs on host '{state.remote}'", hint="remove it there")
    if state.is_running or state.status == "restarting":
        if not force:
            what = "paused" if state.status == "paused" else state.status
            action = "unpause and then stop" if what == "paused" else "stop"
            raise InvalidState(
                f"cannot remove container '{container}': container is {what}: {action} the container before removing "
                "or force remove"
            )
        for ended in end_together([container_id], lambda one: begin_forced_end(engine, one)):
            if ended.error is not None:
                raise ended.error
    try:
        record = _record(engine, container_id)
    except InvalidInput as e:
        if not force or isinstance(e, NewerFormat):
            raise InvalidInput(e.message, hint=f"`rootless rm -f {container}` removes the container") from e
        _remove_damaged(engine, container_id)
        return container_id
    if record is None:
        return container_id  # a container of --rm: its monitor has removed it after the kill
    remove(engine, record, volumes=volumes)
    return container_id


def remove_containers(
    engine: Engine, containers: Sequence[str], *, force: bool = False, volumes: bool = False
) -> Iterator[Ended]:
    """Remove several containers as `remove_container` does, and yield each one's result in the order of their ends.

    Those that run are killed all at once, not one after another. force, volumes: as of `remove_container`. The error of
    one is in its result and stops no other.
    """

    def begin(container: str) -> Target | None:
        return begin_forced_end(engine, container) if force else None

    for ended in end_together(containers, begin):
        error = ended.error
        if error is None:
            try:
                remove_container(engine, containers[ended.position], force=force, volumes=volumes)
            except RootlessError as e:
                error = e
        yield Ended(ended.position, error)


def _remove_damaged(engine: Engine, container_id: str) -> None:
    """Delete a container that does not run and whose record cannot be read. Its volumes, named there alone, stay."""
    store = engine.store
    try:
        id_map = store.containers.read_launch(container_id).id_map
    except (InvalidInput, NotFound):
        id_map = store.id_map
    store.containers.remove(container_id, id_map)
    events.record_event(engine, "container", "destroy", container_id)


def _record(engine: Engine, container_id: str) -> ContainerRecord | None:
    try:
        return engine.store.containers.read(container_id)
    except NotFound:
        return None


def remove(engine: Engine, record: ContainerRecord, *, volumes: bool) -> None:
    """Delete a container that does not run, and with `volumes` the anonymous volumes that no other container uses."""
    engine.store.containers.remove(record.id, record.id_map)
    events.record_container(engine, record, "destroy")
    if not volumes:
        return
    for mount in record.mounts:
        if mount.kind == "volume" and mount.anonymous:
            try:
                engine.store.volumes.remove(mount.name)
            except (NotFound, InvalidState):
                continue  # it has gone, or another container uses it by --volumes-from


def prune_containers(engine: Engine, *, filters: Mapping[str, Sequence[str]] | None = None) -> PruneReport:
    """Remove every container that does not run. filters: docker's `until`, `label` and `label!`.

    One that cannot be removed stays with a warning, and the others are removed all the same.
    """
    from rootless.storage.layers.tree_sizes import tree_sizes

    wanted = Filters(filters or {}, ("label", "label!", "until"))
    removed, reclaimed = [], 0
    for record in readable_records(engine):
        container_id = record.id
        if not wanted.has_labels(record.labels) or not wanted.is_before(record.created):
            continue
        try:
            state = state_of(engine, container_id)
            if state.remote or state.status not in ("created", "exited", "dead"):
                continue
            if state.status == "created" and _is_being_started(engine, container_id):
                continue
            (size,) = tree_sizes([engine.store.containers.path(container_id, "upper")], engine.store.id_map)
            remove(engine, record, volumes=False)
        except NotFound:
            continue  # a container of --rm whose monitor was killed: `state_of` has removed it
        except RootlessError as e:
            engine.warn(f"container {container_id[:12]} stays: {e.message}")
            continue
        removed.append(container_id)
        reclaimed += size.content
    _remove_sockets(engine)
    return PruneReport(containers=tuple(removed), reclaimed=reclaimed)


def _is_being_started(engine: Engine, container_id: str) -> bool:
    """Whether a container that was never started may be just about to start.

    Either a monitor launches it, or a `run` has published it moments ago and did not get as far as the monitor yet.
    Removing it then would make that `run` fail.
    """
    from rootless.monitor import reap

    directory = engine.store.containers.path(container_id)
    if reap.is_supervised(directory):
        return True
    try:
        return time.time() - os.stat(f"{directory}/launch.json").st_mtime < 5
    except OSError:
        return False


_YOUNG = 60.0  # seconds for which a socket without a listener is kept: bind(2) makes it before listen(2) is called
_SUFFIX = ".sock"


def _remove_sockets(engine: Engine) -> None:
    """Remove the sockets of monitors that are no more.

    The directory also has those of the user's other stores. So each is tried, and only a socket that refuses a
    connection (ECONNREFUSED: no process listens) is removed.
    """
    import socket

    directory = f"{engine.directories.runtime}/containers"
    try:
        names = [name for name in os.listdir(directory) if name.endswith(_SUFFIX)]
    except OSError:
        return
    for name in names:
        path = f"{directory}/{name}"
        try:
            if time.time() - os.lstat(path).st_mtime < _YOUNG:
                continue
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
                # sun_path holds 107 bytes (unix(7)), which the descriptor of the directory makes enough
                parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    trial.connect(f"/proc/self/fd/{parent}/{name}")
                finally:
                    os.close(parent)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            continue
