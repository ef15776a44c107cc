"""Sizes of what a container's users have closed to the host's: directories of mapped ids, and of mode 000."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Runner, make_runner

NONE = "--network=none"
SIZE = 123_456
CLOSED = f"mkdir -p %s/in; head -c {SIZE} /dev/zero >%s/in/f; chown 5:5 %s/in %s 2>&1; chmod %s %s"


@pytest.fixture(params=["700", "000"])
def closed(request: pytest.FixtureRequest, busybox: Runner) -> Runner:
    """A container, a volume and a cache mount that each hold one closed directory with a file."""
    for each in ("/d", "/v/d"):
        script = CLOSED % (each, each, each, each, request.param, each)
        busybox("run", "--name", f"c{each.count('/')}", NONE, "-v", "closed:/v", "busybox", "sh", "-c", script)
    busybox("rm", "c2")
    return busybox


def test_what_is_closed_is_measured_before_and_when_it_is_removed(closed: Runner) -> None:
    rows = closed("ps", "-as", "--format", "{{.Names}} {{.Size}}").stdout
    assert rows.startswith("c1 123kB"), rows
    assert json.loads(closed("inspect", "-s", "c1").stdout)[0]["SizeRw"] == SIZE
    assert "reclaimed space: 123kB" in closed("container", "prune", "-f").stdout
    assert "reclaimed space: 123kB" in closed("volume", "prune", "-af").stdout


def test_system_prune_counts_it_too(busybox: Runner) -> None:
    busybox("run", "--name", "c3", NONE, "busybox", "sh", "-c", CLOSED % (*["/d"] * 4, "000", "/d"))
    assert "reclaimed space: 123kB" in busybox("system", "prune", "-f").stdout


def test_a_closed_cache_mount(busybox: Runner, shared_root: Path, tmp_path: Path) -> None:
    run = make_runner(shared_root)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    script = CLOSED % (*["/c/d"] * 4, "000", "/c/d")
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN --mount=type=cache,target=/c {script}\n")
    run("build", "-q", "--network=none", str(tmp_path), env=cache)
    said = run("builder", "prune", "-af", env=cache).stdout
    assert "cache mount" in said
    total = said.splitlines()[-1].split()[-1]
    assert total.endswith("kB") and float(total[:-2]) > SIZE / 1000, said
