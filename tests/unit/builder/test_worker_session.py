"""What a build's worker runs ends with the build, wherever it is in its work."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any, cast

import pytest

from rootless.builder.worker.worker_session import WorkerSession, own_mounts
from rootless.errors import HostLimit, InvalidInput
from rootless.records.id_map import IdMap


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> tuple[WorkerSession, socket.socket]:
    ours, theirs = socket.socketpair()
    session = WorkerSession(ours)
    monkeypatch.setattr("rootless.host.userns.join_namespace", lambda fd: None)
    monkeypatch.setattr(WorkerSession, "namespaces", lambda self, id_map: type("Spaces", (), {"user": -1}))
    return session, theirs


NOWHERE = cast(IdMap, None)


def test_a_result_and_an_error_come_back(ends: tuple[WorkerSession, socket.socket]) -> None:
    session, _ = ends
    assert session.call(NOWHERE, lambda: b"x" * 300_000) == b"x" * 300_000

    def fail() -> bytes:
        raise InvalidInput("no")

    with pytest.raises(InvalidInput, match="no"):
        session.call(NOWHERE, fail)


def test_what_is_done_for_a_build_that_is_gone_is_killed(ends: tuple[WorkerSession, Any], tmp_path: Any) -> None:
    session, theirs = ends
    note = tmp_path / "pid"

    def work() -> bytes:
        note.write_text(str(os.getpid()))
        time.sleep(60)
        return b""

    def leave() -> None:
        while not note.exists() or not note.read_text():
            time.sleep(0.01)
        theirs.shutdown(socket.SHUT_RDWR)  # the child of this very test holds a copy of the end

    thread = threading.Thread(target=leave)
    thread.start()
    began = time.monotonic()
    with pytest.raises(HostLimit, match="the build is gone"):
        session.call(NOWHERE, work)
    thread.join()
    assert time.monotonic() - began < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_child_whose_worker_has_ended_before_it_could_ask_ends() -> None:
    """PR_SET_PDEATHSIG sends nothing for a parent that is gone: the child would work on, for nobody."""
    child = os.fork()
    if child == 0:
        try:
            own_mounts(worker=(1 << 22) + 1)
        finally:
            os._exit(77)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
