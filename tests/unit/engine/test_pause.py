"""Signals of `pause` reach processes of the container, and none that has taken the number of one."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time

import pytest

from rootless.engine.container import pause
from rootless.engine.container.pause import _signal_all
from rootless.kernel import procfs


def _comes_to(pid: int, state: str) -> bool:
    deadline = time.monotonic() + 10
    while procfs.status_field(pid, "State")[0] != state:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_number_that_is_no_member_s_any_more_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "300"]) as process:
        try:
            _signal_all([process.pid, 1 << 22], signal.SIGSTOP, list)
            time.sleep(0.05)
            assert procfs.status_field(process.pid, "State")[0] != "T"
            _signal_all([process.pid], signal.SIGSTOP, lambda: [process.pid])
            assert _comes_to(process.pid, "T")
        finally:
            process.kill()


def test_more_processes_than_may_be_open_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with more than a thousand processes could not be paused: too many open files."""
    signalled: list[int] = []
    monkeypatch.setattr(pause, "pidfd_open", lambda pid: os.open("/dev/null", os.O_RDONLY))
    monkeypatch.setattr(pause, "pidfd_send_signal", lambda fd, number: signalled.append(fd))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    try:
        pids = list(range(1, 2001))
        _signal_all(pids, signal.SIGSTOP, lambda: pids)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(signalled) == 2000
