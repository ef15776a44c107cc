"""host.probes: the trial of a probe."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rootless.errors import HostLimit
from rootless.host import probes
from rootless.host.probes import trial
from rootless.host.probes.result import Probe


def test_probe_comes_back_whole(tmp_path: Path) -> None:
    result = trial.attempt_probe("x", lambda d: Probe("x", True, f"seen {d}", "do"), str(tmp_path), 5)
    assert (result.name, result.works, result.detail, result.remedy) == ("x", True, f"seen {tmp_path}", "do")


def test_errors_become_details(tmp_path: Path) -> None:
    def limit(directory: str) -> Probe:
        raise HostLimit("it is so", hint="do that")

    def refused(directory: str) -> Probe:
        os.mkdir("/proc/nothing")
        raise AssertionError

    first = trial.attempt_probe("x", limit, str(tmp_path), 5)
    assert (first.works, first.detail, first.remedy) == (False, "it is so", "do that")
    assert "/proc/nothing" in trial.attempt_probe("x", refused, str(tmp_path), 5).detail


def test_probe_that_hangs_is_killed_and_swept(tmp_path: Path) -> None:
    def hang(directory: str) -> Probe:
        with trial.Scratch(directory) as base:
            os.makedirs(f"{base}/work/work")
            os.chmod(f"{base}/work/work", 0)
            time.sleep(60)
        raise AssertionError

    began = time.monotonic()
    result = trial.attempt_probe("x", hang, str(tmp_path), 0.3)
    assert time.monotonic() - began < 10
    assert not result.works
    assert "no answer" in result.detail
    assert os.listdir(tmp_path) == []


def test_probe_that_dies_says_so(tmp_path: Path) -> None:
    def die(directory: str) -> Probe:
        os._exit(3)

    assert not trial.attempt_probe("x", die, str(tmp_path), 5).works


def test_scratch_needs_no_data_directory(tmp_path: Path) -> None:
    with trial.Scratch(f"{tmp_path}/not/made/yet") as base:
        assert Path(base).parent == tmp_path
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", probes.NAMES)
def test_every_name_has_a_function(name: str) -> None:
    from importlib import import_module

    module = import_module(f"rootless.host.probes.{probes._MODULES[name]}")
    assert callable(getattr(module, name))


def test_a_scratch_directory_that_was_swapped_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others can write to the directory above, `.rootless-probe-…` may be a link to the caller's home."""
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (home / "letter").write_text("dear")
    home.chmod(0o750)
    link = tmp_path / ".rootless-probe-1-x"
    link.symlink_to(home)
    with pytest.raises(OSError):
        trial.remove_scratch(str(link))
    trial._sweep(str(tmp_path), 1)
    inner = tmp_path / ".rootless-probe-2-x"
    (inner / "closed").mkdir(parents=True)
    (inner / "closed/link").symlink_to(home)
    (inner / "closed").chmod(0)
    trial._sweep(str(tmp_path), 2)
    assert not inner.exists()
    assert (home / "letter").read_text() == "dear" and home.stat().st_mode & 0o777 == 0o750
    other = tmp_path / ".rootless-probe-3-x"
    other.mkdir(mode=0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    trial._sweep(str(tmp_path), 3)
    assert other.stat().st_mode & 0o777 == 0o755
