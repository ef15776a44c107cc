"""`--debug` and `explain` show the same plan."""

from __future__ import annotations

from tests.conftest import Runner


def test_debug_shows_the_plan_that_explain_shows(busybox: Runner) -> None:
    flags = ["--network=none", "--read-only", "--hostname=plan", "--name=plan"]
    explained = busybox("explain", *flags, "busybox", "true").stdout.splitlines()
    done = busybox("--debug", "run", "--rm", *flags, "busybox", "true")
    shown = [line.removeprefix("debug: ") for line in done.stderr.splitlines() if line.startswith("debug: ")]
    assert len(shown) > 20
    assert any("plan" in step for step in shown)
    ours = [line.split(maxsplit=1)[1] for line in explained]
    different = [(a, b) for a, b in zip(ours, shown, strict=True) if a != b]
    assert all("/containers/" in a for a, _ in different), different  # only the container's own id differs


def test_prune_is_a_verb_of_its_own(busybox: Runner) -> None:
    busybox("run", "--name", "gone", "--network=none", "busybox", "true")
    assert len(busybox("prune", "-f").stdout.split()) >= 2
    assert "gone" not in busybox("ps", "-a").stdout
