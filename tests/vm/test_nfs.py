"""A home on NFS, root squashed, as on a cluster."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import Runner


def test_the_home_is_nfs(home: Path) -> None:
    kind = subprocess.run(["stat", "-fc", "%T", str(Path.home())], capture_output=True, text=True, check=True)
    assert kind.stdout == "nfs\n"


def test_images_containers_and_volumes(here: Runner) -> None:
    here("image", "bootstrap", "busybox")
    assert here("info", "--format", "{{.Driver}}").stdout.strip() in ("fuse-overlayfs", "copy")
    here("run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", "rm /bin/ls; echo kept > /data/f")
    assert here("run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/f").stdout == "kept\n"
    assert here("run", "--rm", "busybox", "test", "-e", "/bin/ls").returncode == 0


def test_a_detached_container_lives_and_is_removed(here: Runner) -> None:
    here("run", "-d", "--name", "c", "busybox", "sh", "-c", "echo up; sleep 1000")
    assert here("exec", "c", "echo", "in").stdout == "in\n"
    here("stop", "-t", "1", "c")
    here("start", "c")
    here("rm", "-f", "c")
    assert here("ps", "-aq").stdout == ""


def test_commands_at_the_same_time_do_not_lose_names(here: Runner) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: here("tag", "busybox", f"b:{n}"), range(8)))
    assert set(here("images", "--format", "{{.Tag}}", "b").stdout.split()) == {str(n) for n in range(8)}


def test_doctor_recommends_a_local_disk(here: Runner) -> None:
    said = here("doctor", check=False).stdout
    assert "on nfs" in said
    assert "ROOTLESS_ROOT" in said


def test_removed_images_leave_nothing(here: Runner, home: Path) -> None:
    here("image", "prune", "-af")
    here("volume", "prune", "-af")
    here("system", "prune", "-af")
    assert not list((home / "layers").iterdir())
