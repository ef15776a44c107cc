"""Clients of a monitor: what a lack of descriptors does to it."""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rootless.errors import InvalidState
from rootless.monitor import supervise
from rootless.monitor.clients import Clients


class Recorder:
    """A loop that keeps what it was asked to watch, and calls nothing by itself."""

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[int], None]] = {}
        self.timers: list[Callable[[], None]] = []

    def watch(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        self.watched[fd] = call

    def forget(self, fd: int) -> None:
        del self.watched[fd]

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.timers.append(call)


def test_a_client_too_many_waits_and_does_not_end_the_monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("s")
    listener.listen(4)
    loop = Recorder()
    clients = Clients(loop, object())
    fd = os.dup(listener.fileno())
    clients.adopt_listener("s", fd)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect("s")

    def exhausted(*_: object) -> tuple[int, object]:
        raise OSError(errno.EMFILE, "Too many open files")

    class Refusing(_socket.socket):
        _accept = exhausted

    accepting = clients._listener
    clients._listener = Refusing(fileno=os.dup(fd))
    loop.watched[clients.listener_fd] = loop.watched.pop(fd)
    loop.watched[clients.listener_fd](1)
    assert loop.watched == {} and len(clients) == 0
    clients._listener = accepting
    loop.timers.pop()()
    loop.watched[fd](1)
    assert len(clients) == 1
    waiting.close()
    listener.close()


def test_who_asks_whether_a_monitor_lives_does_not_keep_one_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "monitor.lock"
    asking = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(asking, fcntl.LOCK_SH)
    threading.Thread(target=lambda: (time.sleep(0.03), os.close(asking))).start()
    os.close(supervise._take_lock(str(tmp_path)))
    other = os.open(path, os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(InvalidState, match="already running"):
        supervise._take_lock(str(tmp_path))
    os.close(other)
