"""A Debian whose administrator has set kernel.unprivileged_userns_clone=0."""

from __future__ import annotations

from tests.conftest import Runner


def test_the_remedy_is_named(here: Runner) -> None:
    failed = here("image", "bootstrap", "busybox", check=False)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "unprivileged_userns_clone" in failed.stderr
    said = here("doctor", check=False).stdout
    assert "does not user_namespaces" in said
    assert "kernel.unprivileged_userns_clone" in said
