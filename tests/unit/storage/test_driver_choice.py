"""The choice of a storage driver: one table, and answers that are kept only as long as the host is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rootless.errors import HostLimit, UsageError
from rootless.host import facts
from rootless.host.idmap import single_map
from rootless.host.probes.result import Probe
from rootless.records.id_map import IdMap
from rootless.storage import drivers
from rootless.storage.drivers import choice
from tests.conftest import REPOSITORY

ID_MAP = single_map(0, 0)


class Host:
    """A host whose trials of drivers answer what `reasons` says, "" for a driver that works."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.program = directory / "newuidmap"
        self.program.write_text("broken")
        self.reasons = dict.fromkeys(drivers.driver_names(), "")
        self.tried = directory / "tried"  # the trials are in children
        self.tried.touch()
        monkeypatch.setattr(facts, "find_helper", lambda name: str(self.program) if name == "newuidmap" else None)

    def choose(self, name: str = "auto") -> str:
        return choice.choose_driver(name, str(self.directory), ID_MAP, str(self.directory / "cache"))

    def trials(self) -> list[str]:
        return self.tried.read_text().split()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path, monkeypatch)

    def probe(self: drivers.Driver, directory: str, id_map: IdMap) -> Probe:
        with host.tried.open("a") as file:
            file.write(f"{self.name}\n")
        reason = host.reasons[self.name]
        return Probe(self.name, not reason, reason or "works", f"mend {reason}")

    for driver in drivers.all_drivers():
        monkeypatch.setattr(type(driver), "probe", probe)
    return host


def test_auto_takes_the_best_that_works(host: Host) -> None:
    assert [driver.name for driver in drivers.all_drivers()] == ["overlay", "fuse-overlayfs", "copy"]
    host.reasons["overlay"] = "no overlay here"
    assert host.choose() == "fuse-overlayfs"
    assert host.choose("copy") == "copy"
    assert host.choose() == "fuse-overlayfs"
    assert host.trials() == ["overlay", "fuse-overlayfs", "copy"], "each was tried once"


def test_a_kept_failure_is_not_believed_after_the_program_changed(host: Host) -> None:
    host.reasons["overlay"] = "newuidmap is not setuid"
    assert host.choose() == "fuse-overlayfs"
    host.program.chmod(0o4755)  # changes no modification time
    host.reasons["overlay"] = ""
    assert host.choose() == "overlay"


def test_a_kept_failure_is_never_the_last_word(host: Host) -> None:
    """A full disk leaves no trace to compare: who would be refused finds that it was tried anew."""
    host.reasons["overlay"] = "no space left"
    with pytest.raises(HostLimit, match="no space left"):
        host.choose("overlay")
    host.reasons["overlay"] = ""
    assert host.choose("overlay") == "overlay"


def test_a_kept_failure_grows_old(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.reasons["overlay"] = "no space left"
    assert host.choose() == "fuse-overlayfs"
    host.reasons["overlay"] = ""
    assert host.choose() == "fuse-overlayfs"
    monkeypatch.setattr(choice, "RETRY_AFTER", 0.0)
    assert host.choose() == "overlay"


def test_what_fails_all_drivers_alike_is_said_once_with_its_remedy(host: Host) -> None:
    host.reasons = dict.fromkeys(drivers.driver_names(), "newuidmap is not setuid")
    with pytest.raises(HostLimit) as caught:
        host.choose()
    assert caught.value.message == "newuidmap is not setuid"
    assert caught.value.hint == "mend newuidmap is not setuid"


def test_the_reasons_of_all_are_named_where_they_differ(host: Host) -> None:
    host.reasons = {name: f"no {name}" for name in drivers.driver_names()}
    with pytest.raises(HostLimit, match="overlay: no overlay; fuse-overlayfs: no fuse-overlayfs; copy: no copy"):
        host.choose()


def test_what_doctor_finds_is_what_the_next_command_reads(host: Host) -> None:
    host.reasons["overlay"] = "no overlay here"
    assert host.choose() == "fuse-overlayfs"
    host.reasons["overlay"] = ""
    tried = [choice.TriedDriver(d, ID_MAP, f"{host.directory}/cache") for d in drivers.all_drivers()]
    assert [one.probe(f"{host.directory}/not/made/yet").works for one in tried] == [True, True, True]
    count = len(host.trials())
    assert host.choose() == "overlay"
    assert len(host.trials()) == count


@pytest.mark.parametrize("content", ["[", "[]", '{"key": 1}', '{"key": "x", "order": [1]}'])
def test_a_broken_cache_is_no_error(host: Host, content: str) -> None:
    (host.directory / "cache").mkdir()
    (host.directory / "cache/storage-driver.json").write_text(content)
    assert host.choose() == "overlay"


def test_an_unknown_driver_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown storage driver 'zfs'"):
        drivers.find_driver("zfs")


FAKE = """
from rootless.host.probes.result import Probe
from rootless.storage.drivers import ChangeForm

class Fake:
    name, rank, purpose, loss, program, package = "fake", 0, "a fake", "everything", "fake-program", "fake-package"
    form = ChangeForm()

    def probe(self, directory, id_map):
        return Probe(self.name, True, "pretends")

DRIVER = Fake()
"""


def test_a_driver_is_one_file(tmp_path: Path) -> None:
    """One more module in the folder: help, doctor and run's choice know it."""
    (tmp_path / "driver_fake.py").write_text(FAKE)
    code = f"""
import json
from rootless.storage import drivers
drivers.__path__.append({str(tmp_path)!r})
from rootless.cli.main import cli
from rootless.host.doctor import run_probes
from rootless.host.idmap import single_map
from rootless.storage.drivers.choice import TriedDriver, choose_driver
help = [p.help for p in cli.params if "--storage-driver" in p.opts]
best = drivers.all_drivers()[:1]
tried = [TriedDriver(driver, single_map(0, 0), {str(tmp_path / "cache")!r}) for driver in best]
sections = {{s.title: s for s in run_probes({str(tmp_path)!r}, [], tried)}}
layers, programs = sections["image layers"], sections["programs"]
chosen = choose_driver("auto", {str(tmp_path)!r}, single_map(0, 0), {str(tmp_path / "cache")!r})
print(json.dumps([help, layers.verdict, [p.name for p in programs.probes], chosen]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(REPOSITORY)}
    )
    assert done.returncode == 0, done.stderr
    shown, verdict, programs, chosen = json.loads(done.stdout)
    assert "auto, copy, fake, fuse-overlayfs or overlay" in shown[0]
    assert verdict == "fake is used: everything"
    assert "fake-program" in programs
    assert chosen == "fake"
