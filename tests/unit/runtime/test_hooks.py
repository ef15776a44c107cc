"""Hooks with a state beyond a pipe's size, and hooks that do not read it: in a process that SIGPIPE would end."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import NoReturn

import pytest

from rootless.errors import HookFailed, RuntimeFailure
from rootless.records.properties import Properties
from rootless.runtime.process import hooks
from rootless.runtime.spec.oci_config import Hook, HookStage
from rootless.runtime.spec.oci_state import OciState
from tests.conftest import runs

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


def become(hook: Hook) -> NoReturn:
    os.execve(hook.path, hook.args, {"FOUND": "me"})


def test_a_confined_hook_is_what_the_caller_makes_of_it(tmp_path: Path) -> None:
    script = f"printenv FOUND > {tmp_path}/env; cat > {tmp_path}/state"
    hooks.run_confined("startContainer", Hook("/bin/sh", ["sh", "-c", script], None, None), STATE, become)
    assert (tmp_path / "env").read_text() == "me\n"
    assert json.loads((tmp_path / "state").read_text()) == STATE.to_json()


def test_a_confined_hook_that_fails_says_why() -> None:
    def refuse(hook: Hook) -> NoReturn:
        raise RuntimeFailure("no such user")

    hook = Hook("/bin/sh", ["sh", "-c", "echo words; exit 3"], None, None)
    with pytest.raises(HookFailed, match="failed with exit status 3: words"):
        hooks.run_confined("startContainer", hook, STATE, become)
    with pytest.raises(HookFailed, match=r"cannot run startContainer hook '/bin/sh': no such user"):
        hooks.run_confined("startContainer", hook, STATE, refuse)
    with pytest.raises(HookFailed, match="'/nonexistent': No such file or directory"):
        hooks.run_confined("startContainer", Hook("/nonexistent", ["x"], None, None), STATE, become)
    with pytest.raises(HookFailed, match="longer than its 1 seconds"):
        hooks.run_confined("startContainer", Hook("/bin/sleep", ["sleep", "9"], None, 1), STATE, become)


@pytest.mark.parametrize("is_confined", [False, True])
def test_what_a_hook_has_started_ends_with_it_when_its_time_is_up(tmp_path: Path, is_confined: bool) -> None:
    hook = Hook("/bin/sh", ["sh", "-c", f"sleep 60 & echo $! >{tmp_path}/pid; wait"], None, 1)
    with pytest.raises(HookFailed, match="longer than its 1 seconds"):
        if is_confined:
            hooks.run_confined("startContainer", hook, STATE, become)
        else:
            hooks.run(HookStage("prestart", [hook]), STATE)
    for _ in range(100):
        if not runs((tmp_path / "pid").read_text().strip()):
            return
        time.sleep(0.02)
    pytest.fail("the hook's child lives on")


def test_an_absent_environment_is_not_an_empty_one() -> None:
    for given, env in (({}, None), ({"env": []}, []), ({"env": ["A=b"]}, ["A=b"])):
        assert Hook.from_json(Properties({"path": "/bin/true", **given})).env == env
