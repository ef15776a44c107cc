"""A commit does without what only makes it faster."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rootless.storage.layers import snapshot_worker


def test_no_thread_where_there_is_no_room_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a limit of processes `commit` and `build` ended with "can't start new thread"."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    before = os.listdir("/proc/self/fd")
    assert snapshot_worker._begin_sync(str(tmp_path)) is None
    assert os.listdir("/proc/self/fd") == before
