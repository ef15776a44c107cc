"""Signals of `pause` reach processes of the container, and none that has taken the number of one."""

from __future__ import annotations

import signal
import subprocess
import time

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
