"""Hooks with a state beyond a pipe's size, and hooks that do not read it: in a process that SIGPIPE would end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from rootless.runtime.process import hooks
from rootless.runtime.spec.oci_config import Hook, HookStage
from rootless.runtime.spec.oci_state import OciState

STATE = OciState("c", "created", 1, "/b")
STATE.annotations = {"big": "x" * 300_000}


def run_unprotected(*command: str) -> int:
    """The wait status of a child that runs one hook with SIGPIPE's default action, as inside of a container."""
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            hooks.run(HookStage("poststart", [Hook(command[0], list(command), [], None)]), STATE)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def test_a_state_larger_than_a_pipe_arrives_whole(tmp_path: Path) -> None:
    assert run_unprotected("/bin/sh", "-c", f"cat > {tmp_path}/state") == 0
    assert json.loads((tmp_path / "state").read_text()) == STATE.to_json()


def test_a_hook_that_does_not_read_is_no_error() -> None:
    assert run_unprotected("/bin/sh", "-c", "exec 0</dev/null; sleep 0.1") == 0
    assert run_unprotected("/bin/true") == 0
