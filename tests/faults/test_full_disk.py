"""Full disks: reading, stopping and removing need no room, and a start that does says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require

pytestmark = pytest.mark.once

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


@pytest.mark.parametrize("kind", ["bytes", "inodes", "old"])
def test_a_full_disk_can_be_freed(kind: str, store_root: Path) -> None:
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    probe = subprocess.run([*_NAMESPACE, "mount", "-t", "tmpfs", "none", store_root], capture_output=True, check=False)
    require(not probe.returncode, f"no tmpfs in a user namespace: {probe.stderr.decode().strip()}")
    scenario = [sys.executable, str(Path(__file__).with_name("full_disk.py")), str(store_root), kind]
    done = subprocess.run([*_NAMESPACE, *scenario], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
