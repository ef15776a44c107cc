"""Tests that need a host of a certain kind: each file is one situation of `scripts/vm`, and runs only there.

`scripts/test --vm` boots each situation and runs its file with ROOTLESS_VM=SITUATION; elsewhere nothing is collected.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, make_runner

_SITUATION = os.environ.get("ROOTLESS_VM", "")
collect_ignore_glob = [
    str(path.name) for path in Path(__file__).parent.glob("test_*.py") if path.stem != f"test_{_SITUATION}"
]


@pytest.fixture(scope="module")
def home() -> Path:
    """The user's store at its usual place: the machine is thrown away afterwards."""
    return Path.home() / ".local/share/rootless"


@pytest.fixture(scope="module")
def here(home: Path) -> Iterator[Runner]:
    """Run `rootless ARGS...` on that store; one command takes seconds in an emulated machine."""
    run = make_runner(home)

    def patient(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        options.setdefault("timeout", 300)
        return run(*arguments, **options)

    yield patient


def eventually(fact: Callable[[], object], seconds: float = 120) -> None:
    """Wait until `fact()` is true."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.3)
