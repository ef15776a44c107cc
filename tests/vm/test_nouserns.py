"""A host whose administrator has set user.max_user_namespaces=0."""

from __future__ import annotations

from tests.conftest import Runner


def test_bootstrap_and_run_say_what_is_missing_and_who_can_help(here: Runner) -> None:
    failed = here("image", "bootstrap", "busybox", check=False)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "cannot make a user namespace" in failed.stderr
    assert "max_user_namespaces" in failed.stderr


def test_what_needs_no_namespace_works(here: Runner) -> None:
    assert here("images", "-q").stdout == ""
    assert here("ps", "-aq").stdout == ""
    assert here("volume", "create", "v").stdout == "v\n"
    here("volume", "rm", "v")
    assert here("version", "--format", "{{.Client.Os}}").stdout == "linux\n"


def test_doctor_names_the_setting(here: Runner) -> None:
    said = here("doctor", check=False).stdout
    assert "does not user_namespaces" in said
    assert "user.max_user_namespaces" in said
