"""A host without the fuse module: its device node is there, and opening it fails."""

from __future__ import annotations

from tests.conftest import Runner


def test_the_kernel_s_overlay_is_used(here: Runner) -> None:
    here("image", "bootstrap", "busybox")
    assert here("info", "--format", "{{.Driver}}").stdout == "overlay\n"
    assert here("run", "--rm", "busybox", "sh", "-c", "rm /bin/ls && echo gone").stdout == "gone\n"


def test_asking_for_fuse_names_the_device(here: Runner) -> None:
    failed = here("run", "--rm", "--storage-driver", "fuse-overlayfs", "busybox", "true", check=False)
    assert failed.returncode == 125
    assert "/dev/fuse" in failed.stderr
