"""A network helper that ends again and again is not started for ever, and that is told."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rootless.errors import HostLimit
from rootless.kernel.namespaces import OpenNetwork
from rootless.monitor import network_repair, state
from rootless.monitor.loop import Loop
from rootless.monitor.network_repair import ATTEMPTS, NetworkRepair, NetworkWatch
from rootless.network import modes
from rootless.network.shared import hub_client
from rootless.records.launch import EventsPlan, NetworkPlan
from rootless.records.state import ContainerState, NetworkFacts


class FakeRun:
    pid = 1

    def helpers(self) -> list[tuple[int, int]]:
        return []


@pytest.fixture
def repair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NetworkRepair:
    """The repair of a run whose helper never starts."""

    def refuse(*_: Any) -> None:
        raise HostLimit("no /dev/net/tun")

    monkeypatch.setattr(network_repair, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(network_repair, "_LONGEST_DELAY", 0.002)
    monkeypatch.setattr(modes, "recorded_mode", lambda name: SimpleNamespace(start=refuse))
    monkeypatch.setattr(OpenNetwork, "with_owner", lambda pid: OpenNetwork(os.dup(0), os.dup(0)))
    facts = ContainerState()
    facts.network = NetworkFacts("10.0.2.100", 24, "10.0.2.2")
    plan = SimpleNamespace(network=NetworkPlan("pasta"), events=EventsPlan(f"{tmp_path}/events", {}))
    spec: Any = SimpleNamespace(directory=str(tmp_path), plan=plan, id="c")
    run: Any = FakeRun()
    return NetworkRepair(Loop(), spec, state.State(str(tmp_path), facts), run, lambda: None)


def test_it_gives_up_and_says_so(repair: NetworkRepair, tmp_path: Path) -> None:
    repair.begin("killed")
    while repair.is_busy:
        repair._loop.turn()
    saved = json.loads((tmp_path / "state.json").read_text())
    assert saved["network"]["problem"] == "no /dev/net/tun"
    events = [json.loads(line)["Action"] for line in (tmp_path / "events").read_text().splitlines()]
    assert events == ["network_down", "network_lost"]
    notes = (tmp_path / "monitor.log").read_text()
    assert notes.count("cannot start the network helper again") == ATTEMPTS
    assert "the network helper has ended: killed" in notes and "gives up" in notes


def test_a_full_disk_does_not_end_what_reconnects(repair: NetworkRepair, tmp_path: Path, monkeypatch: Any) -> None:
    """An error that left the loop would end the monitor, and the container with it."""

    class Full(state.State):
        def save(self) -> None:
            raise OSError(28, "No space left on device")

    def refuse(*_: Any) -> int:
        raise HostLimit("it cannot start")

    monkeypatch.setattr(hub_client, "resume", refuse)
    ours, theirs = socket.socketpair()
    run: Any = SimpleNamespace(connection=ours.fileno(), held=[ours.fileno()])
    repair._spec.runtime_dir = str(tmp_path)
    watch = NetworkWatch(repair._loop, repair._spec, Full(str(tmp_path), repair._tracked.facts), run, lambda: None)
    theirs.close()
    watch._loop.turn()
    while watch.is_busy:
        watch._loop.turn()
    ours.close()
    notes = (tmp_path / "monitor.log").read_text()
    assert notes.count("cannot start the process that serves networks again: it cannot start") == ATTEMPTS
    assert "cannot write the container's state: No space left on device" in notes and "gives up" in notes
    events = [json.loads(line)["Action"] for line in (tmp_path / "events").read_text().splitlines()]
    assert events == ["network_down", "network_lost"]
