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
