"""A host whose kernel has no overlayfs for users."""

from __future__ import annotations

from tests.conftest import Runner


def test_fuse_overlayfs_is_used_instead(here: Runner) -> None:
    here("image", "bootstrap", "busybox")
    assert here("info", "--format", "{{.Driver}}").stdout == "fuse-overlayfs\n"
    assert here("run", "--rm", "busybox", "sh", "-c", "rm /bin/ls && echo gone").stdout == "gone\n"
