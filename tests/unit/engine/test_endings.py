"""Many ends are waited for at once: by processes that stand for containers, and files that stand for their locks."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.engine.container import endings
from rootless.engine.container.endings import Ended, Target, end_together
from rootless.errors import NotFound
from rootless.kernel.procfs import start_time
from rootless.records.state import ContainerState

COUNT = 60


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[int]]:
    """Processes that ignore SIGTERM."""
    (tmp_path / "monitor.lock").touch()
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "for _ in range(int(sys.argv[1])):\n"
        "    pid = os.fork()\n"
        "    if not pid: signal.pause(); os._exit(0)\n"
        "    print(pid, flush=True)\n"
        "while True: os.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(COUNT)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(parent.stdout.readline()) for _ in range(COUNT)]
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    parent.kill()
    parent.wait()


def target(directory: Path, pid: int, patience: float) -> Target:
    state = ContainerState()
    state.pid, state.pid_start = pid, start_time(pid)
    found = Target(str(directory), state, str(pid))
    found.signal(signal.SIGTERM)
    found.deadline = time.monotonic() + patience
    return found


def test_all_have_the_same_time(tmp_path: Path, processes: list[int]) -> None:
    def begin(name: str) -> Target | None:
        if name == "unknown":
            raise NotFound("no such container")
        return None if name == "stopped" else target(tmp_path, int(name), 0.5)

    names = ["unknown", *map(str, processes), "stopped"]
    began = time.monotonic()
    ended = list(end_together(names, begin))
    assert time.monotonic() - began < 0.5 * COUNT / 4
    assert sorted(each.position for each in ended) == list(range(len(names)))
    assert [each.position for each in ended if each.error is not None] == [0]


def test_a_low_limit_of_open_files_makes_portions(
    tmp_path: Path, processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd"))
    # The limit is on the number of a descriptor, and tests before this one may have left some open
    spare = max(64, 34 + max(map(int, os.listdir("/proc/self/fd"))))
    monkeypatch.setattr(endings, "_SPARE_DESCRIPTORS", spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 40, before[1]))
    try:
        ended = list(end_together(list(map(str, processes)), lambda name: target(tmp_path, int(name), 0)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(ended) == COUNT and not any(each.error for each in ended)
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_monitor_that_still_cleans_up_is_waited_for(tmp_path: Path, processes: list[int]) -> None:
    lock = os.open(tmp_path / "monitor.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    began = time.monotonic()
    timer = threading.Timer(0.3, lambda: os.close(lock))
    timer.start()
    try:
        assert list(end_together(["a"], lambda _: target(tmp_path, processes[0], 0))) == [Ended(0)]
        assert time.monotonic() - began > 0.29
    finally:
        timer.join()
