"""A state.json that cannot be read keeps nothing from being listed, started after boot, or removed."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from rootless.engine.container.boot import wanted_after_boot
from rootless.engine.container.reconcile import state_of
from rootless.engine.context import Engine
from rootless.errors import NewerFormat
from rootless.monitor import reap
from rootless.paths import user_directories
from rootless.records.launch import RestartPlan
from rootless.records.state import NEVER
from tests.unit.storage.test_records import make_record


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(user_directories(str(tmp_path / "store")))


@pytest.fixture
def directory(engine: Engine) -> Path:
    """Of a container that is to be started after boot, with an empty state.json."""
    record = make_record("c0ffee", "web")
    record.restart = RestartPlan("always")
    record.host = os.uname().nodename
    engine.store.containers.create(record)
    engine.store.containers.publish("c0ffee")
    Path(engine.store.containers.path("c0ffee", "state.json")).touch()
    return Path(engine.store.containers.path("c0ffee"))


def test_after_a_power_cut_it_is_one_that_was_cut_off(engine: Engine, directory: Path) -> None:
    state = state_of(engine, "c0ffee")
    assert (state.status, state.exit_code) == ("exited", reap.DEAD_EXIT_CODE)
    assert state.started_at != NEVER
    assert "damaged" in state.error
    assert wanted_after_boot(engine) == ["web"]


def test_with_a_living_monitor_it_is_the_monitors(engine: Engine, directory: Path) -> None:
    with open(directory / "monitor.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = state_of(engine, "c0ffee")
    assert (state.status, state.monitor_pid) == ("restarting", os.getpid())


def test_a_newer_state_is_not_damaged(engine: Engine, directory: Path) -> None:
    (directory / "state.json").write_text('{"version": 99}')
    with pytest.raises(NewerFormat):
        state_of(engine, "c0ffee")
