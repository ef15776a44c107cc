"""The agent of a seccomp profile: what it gets, and how long a container's start waits for one that takes nothing."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from rootless.errors import RuntimeFailure
from rootless.records.launch import SeccompListener
from rootless.runtime.seccomp import listener
from rootless.runtime.spec.oci_state import OciState


@pytest.mark.parametrize("accepts", [False, True])
def test_an_agent_that_takes_nothing_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepts: bool
) -> None:
    """Its queue is full, or it never reads."""
    monkeypatch.setattr(listener, "_PATIENCE", 0.3)
    monkeypatch.chdir(tmp_path)  # for the address, which may be 107 bytes long
    path = "s"
    with socket.socket(socket.AF_UNIX) as agent, socket.socket(socket.AF_UNIX) as other:
        agent.bind(path)
        agent.listen(4 if accepts else 0)
        if not accepts:
            other.connect(path)
        null = os.open(os.devnull, os.O_RDONLY)
        began = time.monotonic()
        with pytest.raises(RuntimeFailure, match="cannot pass the seccomp listener on"):
            listener.pass_on(SeccompListener(f"{tmp_path}/s", "x" * (8 << 20)), null, OciState("c", "creating", 1, "/"))
        os.close(null)
        assert time.monotonic() - began < 5
