"""What the start of `run` loads: each of these modules was once on its way and cost more than all of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Runner

pytestmark = pytest.mark.once

UNWANTED = {
    "inspect",
    "dataclasses",
    "hashlib",
    "tokenize",
    "ast",
    "subprocess",
    "logging",
    "ssl",
    "rich",
    "urllib3",
    "sh",
}


def test_run_loads_nothing_that_it_does_not_need(busybox: Runner, shared_root: Path) -> None:
    busybox("run", "--rm", "--network=none", "busybox", "true")  # the caches are warm
    code = (
        f"import sys, os; sys.path.insert(0, {str(REPOSITORY)!r}); "
        "sys.argv = ['rootless', 'run', '--rm', '--network=none', 'busybox', 'true']; "
        "from rootless.cli.entry import main; main()"
    )
    finished = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", "-c", code],
        env={**os.environ, "ROOTLESS_ROOT": str(shared_root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    loaded = [
        line.rpartition("|")[2].strip() for line in finished.stderr.splitlines() if line.startswith("import time:")
    ]
    assert "rootless.engine.container.create" in loaded
    unwanted = [name for name in loaded if name in UNWANTED]
    assert unwanted == []
