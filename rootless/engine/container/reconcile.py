"""What a container's state is now: the monitor's word, checked against locks, boot id and host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rootless.engine.types import ContainerOptions

if TYPE_CHECKING:
    from rootless.engine.context import Engine

_LIVE = ("running", "paused", "restarting")
NEVER = "0001-01-01T00:00:00Z"


def state_of(engine: Engine, container_id: str) -> dict[str, Any]:
    """The state of a container; a new one is "created".

    When the monitor was killed or the host was booted again, the state is put right first (exit code 137). A container
    that runs on another host (a home shared by NFS) keeps its state and gets "remote": that host's name.
    """
    containers = engine.store.containers
    state = containers.read_state(container_id)
    if state is None:
        state = _created()
    elif state.get("status") in _LIVE:
        if state.get("host") != os.uname().nodename:
            state["remote"] = state.get("host")
        else:
            from rootless.monitor import reap

            directory = containers.path(container_id)
            if not reap.is_supervised(directory) and reap.stale(directory):
                state = containers.read_state(container_id) or _created()
    if state["status"] == "running" and os.path.exists(containers.path(container_id, "paused")):
        state["status"] = "paused"
    return state


def _created() -> dict[str, Any]:
    return {
        "status": "created",
        "pid": 0,
        "started_at": NEVER,
        "finished_at": NEVER,
        "exit_code": 0,
        "error": "",
        "restart_count": 0,
        "health": None,
        "oom_killed": False,
        "network": {},
    }


def saved_options(record: dict[str, Any]) -> ContainerOptions:
    """The options that a container was made with; those that an older program did not write have their defaults."""
    saved: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in record["options"].items()
        if key in ContainerOptions._fields
    }
    return ContainerOptions(**saved)


def is_running(state: dict[str, Any]) -> bool:
    """Does the container have processes (running or paused)?"""
    return state["status"] in ("running", "paused")


def running_pid(engine: Engine, container_id: str) -> int:
    """Host pid of the container's first process, 0 when it does not run here."""
    state = state_of(engine, container_id)
    return int(state.get("pid") or 0) if is_running(state) and "remote" not in state else 0
