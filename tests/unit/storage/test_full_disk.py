"""Without room: what removes uses the reserve, and marks and states are written where something lies already."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from rootless import paths
from rootless.monitor import state, stop_request
from rootless.records.state import ContainerState
from rootless.storage.store.index import keep_reserve, write_freeing


@pytest.fixture
def no_new_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No file can be made below the directory that is returned, as long as `locks/reserve` is there."""
    real = os.open
    (tmp_path / "locks").mkdir()

    def full(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        held = not (tmp_path / "locks/reserve.given").exists() or (tmp_path / "locks/reserve").exists()
        if flags & os.O_CREAT and not os.path.exists(path) and held:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", full)
    return tmp_path


def test_a_stop_is_asked_for_without_an_inode(no_new_files: Path) -> None:
    (no_new_files / "monitor.lock").write_bytes(b"")
    directory = str(no_new_files)
    assert not stop_request.is_stop_requested(directory)
    stop_request.request_stop(directory)
    assert stop_request.is_stop_requested(directory)
    stop_request.withdraw_request(directory)
    assert not stop_request.is_stop_requested(directory)


def test_a_state_is_written_over_the_old_one(no_new_files: Path) -> None:
    facts = ContainerState()
    facts.error = "x" * 400
    (no_new_files / "state.json").write_bytes(b"")
    state.write_state(str(no_new_files), facts)
    facts.status, facts.error, facts.exit_code = "exited", "", 3
    state.write_state(str(no_new_files), facts)
    found = state.read_state(str(no_new_files))
    assert found is not None
    assert (found.status, found.exit_code, found.error) == ("exited", 3, "")


def test_what_removes_takes_the_reserve(no_new_files: Path) -> None:
    index, kept = no_new_files / "index.json", no_new_files / "locks/reserve"
    index.write_text("old")
    kept.write_text("room")
    (no_new_files / "locks/reserve.given").write_text("")
    with pytest.raises(OSError, match="No space left"):
        paths.atomic_write(str(index), b"new")
    write_freeing(str(index), b"new", str(kept))
    assert index.read_text() == "new"
    assert not kept.exists()


def test_what_removes_does_without_the_reserve_of_later_versions(no_new_files: Path) -> None:
    index, reserved = no_new_files / "index.json", str(no_new_files / "locks/reserve")
    index.write_text('["one", "two"]')
    write_freeing(str(index), b'["one"]', reserved)
    assert json.loads(index.read_text()) == ["one"]
    with pytest.raises(OSError, match="No space left"):
        write_freeing(str(index), b'["one", "two", "three"]', reserved)
    assert json.loads(index.read_text()) == ["one"]


def test_the_reserve_is_made_again(tmp_path: Path) -> None:
    keep_reserve(str(tmp_path / "reserve"), 100)
    assert (tmp_path / "reserve").stat().st_size == 1 << 16
    keep_reserve(str(tmp_path / "reserve"), 1 << 20)
    assert (tmp_path / "reserve").stat().st_size == 2 << 20
