"""What a container's state is now: the monitor's word, checked against locks, boot id and host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rootless.engine.types import ContainerOptions
from rootless.records.state import LIVE, ContainerState

if TYPE_CHECKING:
    from rootless.engine.context import Engine


def state_of(engine: Engine, container_id: str) -> ContainerState:
    """The state of a container; a new one is "created".

    When the monitor was killed or the host was booted again, the state is put right first (exit code 137). A container
    that runs on another host (a home shared by NFS) keeps its state and gets "remote": that host's name.
    """
    containers = engine.store.containers
    state = containers.read_state(container_id)
    if state is None:
        state = ContainerState()
    elif state.status in LIVE:
        if state.host != os.uname().nodename:
            state.remote = state.host or "unknown"
        else:
            from rootless.monitor import reap

            directory = containers.path(container_id)
            if not reap.is_supervised(directory) and reap.stale(directory):
                state = containers.read_state(container_id) or ContainerState()
    if state.status == "running" and os.path.exists(containers.path(container_id, "paused")):
        state.status = "paused"
    return state


def saved_options(record: dict[str, Any]) -> ContainerOptions:
    """The options that a container was made with; those that an older program did not write have their defaults."""
    saved: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in record["options"].items()
        if key in ContainerOptions._fields
    }
    return ContainerOptions(**saved)


def running_pid(engine: Engine, container_id: str) -> int:
    """Host pid of the container's first process, 0 when it does not run here."""
    state = state_of(engine, container_id)
    return state.pid if state.is_running and not state.remote else 0
