"""The suite under pytest: every case on this project's runtime, and on others to validate the suite itself.

CONFORMANCE_RUNTIMES names the runtimes, paths or names (default: rootless-oci crun runc). A known deviation of another
runtime is an expected failure; ours has none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.conformance import cases as _cases  # noqa: F401 - registers them
from tests.conformance import deviations
from tests.conformance.harness import BUSYBOX, CASES, Case, Runtime, compiler, make_root, runtime
from tests.conformance.judge import KNOWN, PASS, SKIP, Verdict, judge_all
from tests.conftest import make_private_directory, remove_private_directory, require

Verdicts = dict[str, "Future[Verdict]"]
RUNTIMES = os.environ.get("CONFORMANCE_RUNTIMES", "rootless-oci crun runc").split()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory for all boxes, with the root file system to copy."""
    require(BUSYBOX.exists(), "no static busybox (apt-get install busybox-static)")
    require(compiler(), "no C compiler (apt-get install gcc libc6-dev)")
    directory = make_private_directory("f")
    make_root(directory)
    yield directory
    remove_private_directory(directory)


def begin(request: pytest.FixtureRequest, under_test: Runtime, version: str, place: Path) -> Iterator[Verdicts]:
    """Judge the cases that were selected for the fixture's parameter, several at a time."""
    wanted = []
    for item in request.session.items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if params.get(request.fixturename) == request.param and "case" in params:
            wanted.append(params["case"])
    pool, verdicts = judge_all(under_test, version, wanted, place, place / "template")
    yield verdicts
    pool.shutdown(cancel_futures=True)
    under_test.close()


@pytest.fixture(scope="module", params=RUNTIMES)
def verdicts(request: pytest.FixtureRequest, place: Path) -> Iterator[Verdicts]:
    """The verdicts on one runtime."""
    others = request.param != "rootless-oci"
    nested = Path("/proc/self/uid_map").read_text().split()[2] == "1"
    require(not (others and (nested or os.geteuid() == 0)), "crun and runc are compared as a plain user here")
    found = runtime(request.param)
    require(found, f"{request.param} is not installed (apt-get install crun runc)")
    assert found
    version = found.version()
    require(not others or deviations.is_validated(found.name, version), f"this host has {found.name} {version}")
    yield from begin(request, found, version, place)


@pytest.fixture(scope="module", params=["old"])
def old_way(request: pytest.FixtureRequest, place: Path) -> Iterator[Verdicts]:
    """The verdicts on ours where the kernel has no mount API of Linux 5.2, no mount_setattr, no openat2."""
    ours = runtime("rootless-oci")
    assert ours
    ours.environment = {"ROOTLESS_NO_MOUNT_API": "1", "ROOTLESS_NO_OPENAT2": "1"}
    yield from begin(request, ours, "", place)


def check(verdict: Verdict) -> None:
    if verdict.word == KNOWN:
        pytest.xfail(verdict.reason)
    if verdict.word == SKIP:
        pytest.skip(f"this host: {verdict.reason}")
    assert verdict.word == PASS, verdict.reason


@pytest.mark.parametrize("case", [CASES[name] for name in sorted(CASES)], ids=str)
def test_case(verdicts: Verdicts, case: Case) -> None:
    check(verdicts[case.id].result())


OLD_WAY = [case for name, case in sorted(CASES.items()) if name.partition(".")[0] in ("mounts", "devices", "linux")]


@pytest.mark.skipif(RUNTIMES == ["rootless-oci"], reason="this user need not repeat what does not depend on him")
@pytest.mark.parametrize("case", OLD_WAY, ids=str)
def test_old_way(old_way: Verdicts, case: Case) -> None:
    """Ours by its fallbacks."""
    check(old_way[case.id].result())


def test_every_known_deviation_names_a_case() -> None:
    assert not deviations.stale(set(CASES))


def test_our_runtime_has_no_known_deviation() -> None:
    assert not any(deviations.expected("rootless-oci", "0.1.0", name) for name in CASES)
