"""A host with cgroup v1 only, where nothing is delegated: containers run, and limits say that they do not hold."""

from __future__ import annotations

from tests.conftest import Runner


def test_a_limit_is_one_warning(here: Runner) -> None:
    here("image", "bootstrap", "busybox")
    outcome = here("run", "--rm", "--memory=64m", "busybox", "echo", "hi")
    assert outcome.stdout == "hi\n"
    assert outcome.stderr.count("\n") == 1
    assert "memory" in outcome.stderr
    assert "cgroup" in outcome.stderr


def test_strict_limits_make_it_an_error(here: Runner) -> None:
    outcome = here("run", "--rm", "--strict-limits", "--memory=64m", "busybox", "true", check=False)
    assert outcome.returncode == 125
    assert outcome.stderr.count("\n") == 1


def test_stats_pause_and_top_work_without_a_cgroup(here: Runner) -> None:
    here("run", "-d", "--name", "c", "busybox", "sleep", "1000")
    assert "c" in here("stats", "--no-stream", "--format", "{{.Name}}").stdout
    here("pause", "c")
    assert here("ps", "--filter", "status=paused", "--format", "{{.Names}}").stdout == "c\n"
    here("unpause", "c")
    assert "sleep" in here("top", "c").stdout
    here("rm", "-f", "c")
