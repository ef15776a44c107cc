"""A host where a profile takes every capability from user namespaces, as Ubuntu 24.04 does."""

from __future__ import annotations

from tests.conftest import Runner


def test_the_profile_is_named(here: Runner) -> None:
    failed = here("image", "bootstrap", "busybox", check=False)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "AppArmor" in failed.stderr or "apparmor" in failed.stderr
    assert "apparmor" in here("doctor", check=False).stdout.lower()
