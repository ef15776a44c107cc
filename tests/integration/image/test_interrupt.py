"""Ctrl-C in the middle of a command that has workers: one quiet end, and no traceback of any process."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Runner, command_path, make_runner

DELAYS = (0.15, 0.25, 0.35, 0.5, 0.8)  # seconds: from where click is loaded to the middle of unpacking


def interrupted(words: list[str], root: Path, delay: float) -> tuple[int, str]:
    """Exit code and output of a command whose whole foreground group is sent SIGINT, as a terminal does."""
    command = subprocess.Popen(
        [*command_path(), "--root", str(root), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    time.sleep(delay)
    os.killpg(command.pid, signal.SIGINT)
    return command.wait(60), command.stdout.read() if command.stdout else ""


@pytest.mark.once
@pytest.mark.parametrize("verb", ["load", "build"])
def test_an_interrupt_is_no_traceback(busybox: Runner, shared_root: Path, tmp_path: Path, verb: str) -> None:
    for number in range(4):
        (tmp_path / f"f{number}").write_bytes(os.urandom(8 << 20))
    (tmp_path / "Dockerfile").write_text("FROM busybox\n" + "".join(f"COPY f{n} /\n" for n in range(4)))
    words = ["build", "--no-cache", "-t", "big", str(tmp_path)]
    if verb == "load":
        busybox(*words)
        busybox("save", "-o", str(tmp_path / "big.tar"), "big")
    for number, delay in enumerate(DELAYS):
        root = shared_root if verb == "build" else tmp_path / f"store{number}"
        asked = words if verb == "build" else ["load", "-i", str(tmp_path / "big.tar")]
        code, output = interrupted(asked, root, delay)
        # Python's own start, before any line of ours, answers with a traceback too: ours are what is looked for
        assert "/rootless/" not in output, output
        assert code in (0, 130) or "rootless" not in output, output
        if verb == "load":
            make_runner(root)("system", "reset", "-f")
