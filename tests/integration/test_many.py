"""Many at once: nothing fails, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.conftest import Runner, command_path
from tests.faults.test_kill_at_step import processes_below


def test_fifty_runs_at_once(busybox: Runner, shared_root: Path) -> None:
    """podman's store-wide lock makes 50 starts queue; here they only share the processors."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "ROOTLESS_ROOT": str(shared_root)}
    mounts_before = Path("/proc/self/mountinfo").read_text()
    command = [*command_path(), "run", "--rm", "--network=none", "busybox", "sh", "-c", "echo $HOSTNAME"]
    running = [
        subprocess.Popen(command, env=environment, stdin=-3, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(50)
    ]
    finished = [(process.communicate(timeout=300), process.returncode) for process in running]
    # a user without a range is told so every time
    told = [[line for line in out[1].splitlines() if "you have one id only" not in line] for out, _ in finished]
    assert [(lines, code) for lines, (_, code) in zip(told, finished, strict=True)] == [([], 0)] * 50
    assert len({out[0] for out, _ in finished}) == 50
    assert busybox("ps", "-aq").stdout == ""
    assert not processes_below(shared_root)
    for place in ("containers", "names", "trash"):
        assert not list((shared_root / place).glob("*")), place
    assert Path("/proc/self/mountinfo").read_text() == mounts_before
