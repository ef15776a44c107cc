"""The reaper of --init ends with its launcher, even with one that has ended before the kernel was asked for that."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import Any

import pytest

from rootless.runtime import capabilities
from rootless.runtime.channel import Channel
from rootless.runtime.process import reaper
from rootless.runtime.process.command import ProcessOptions


class _Command:
    options = ProcessOptions(die_with_parent=True)
    sets = capabilities.CapabilitySets(bounding=0, effective=0, permitted=0)


def test_a_launcher_that_has_gone_leaves_no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "become_user", lambda command, warn: None)
    monkeypatch.setattr(capabilities, "apply", lambda sets: None)
    command: Any = _Command()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    child = os.fork()
    if child == 0:
        try:
            init = os.getpid()
            reaper.fork_reaper(command, Channel(theirs))
            while os.getppid() == init:  # this is the command
                time.sleep(0.01)
        finally:
            os._exit(0)
    theirs.close()
    deadline = time.monotonic() + 10
    try:
        while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            assert time.monotonic() < deadline, "the reaper lives on without its launcher"
            time.sleep(0.01)
    finally:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
