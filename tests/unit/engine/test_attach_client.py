"""The user's end of a container where something gives way: the monitor, or what takes the output."""

from __future__ import annotations

import os
import socket

import pytest

from rootless.engine.container import attach_client
from rootless.engine.container.terminal import write_all
from rootless.errors import HostLimit, RuntimeFailure
from rootless.monitor.protocol import NetworkRequest


def test_a_monitor_that_is_gone_before_it_is_told_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(RuntimeFailure, match="ended unexpectedly") as caught:
        attach_client.launch_detached(ours, "/containers/x")
    assert caught.value.exit_code == 125


def test_a_monitor_that_ends_before_it_changes_a_network_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    monkeypatch.setattr(attach_client, "_connect", lambda path: ours)
    with pytest.raises(RuntimeFailure, match="ended unexpectedly"):
        attach_client.change_network("/run/x", NetworkRequest(None, "a"))


def test_output_that_cannot_be_written_is_an_error() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(HostLimit, match="No space left on device"):
            write_all(full, b"x")
    finally:
        os.close(full)


def test_output_that_nobody_reads_is_told_apart() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert not write_all(writer, b"x")
    finally:
        os.close(writer)
