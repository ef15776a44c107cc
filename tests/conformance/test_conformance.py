"""The suite under pytest: every case on this project's runtime, and on others to validate the suite itself.

CONFORMANCE_RUNTIMES names the runtimes, paths or names (default: rootless-oci crun runc). A known deviation of another
runtime is an expected failure; ours has none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import cases as _cases  # noqa: F401 - registers them
from tests.conformance import deviations
from tests.conformance.harness import BUSYBOX, CASES, Case, Runtime, compiler, make_root, runtime
from tests.conformance.judge import KNOWN, PASS, SKIP, judge
from tests.conftest import make_private_directory, remove_private_directory, require

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


@pytest.fixture(scope="module", params=RUNTIMES)
def subject(request: pytest.FixtureRequest) -> Iterator[tuple[Runtime, str]]:
    """A runtime under test with its version."""
    others = request.param != "rootless-oci"
    nested = Path("/proc/self/uid_map").read_text().split()[2] == "1"
    require(not (others and (nested or os.geteuid() == 0)), "crun and runc are compared as a plain user here")
    found = runtime(request.param)
    require(found, f"{request.param} is not installed (apt-get install crun runc)")
    assert found
    version = found.version()
    require(not others or deviations.is_validated(found.name, version), f"this host has {found.name} {version}")
    yield found, version
    found.close()


@pytest.mark.parametrize("case", [CASES[name] for name in sorted(CASES)], ids=str)
def test_case(subject: tuple[Runtime, str], place: Path, case: Case) -> None:
    verdict = judge(*subject, case, place, place / "template")
    if verdict.word == KNOWN:
        pytest.xfail(verdict.reason)
    if verdict.word == SKIP:
        pytest.skip(f"this host: {verdict.reason}")
    assert verdict.word == PASS, verdict.reason


OLD_WAY = [case for name, case in sorted(CASES.items()) if name.partition(".")[0] in ("mounts", "devices", "linux")]


@pytest.mark.skipif(RUNTIMES == ["rootless-oci"], reason="this user need not repeat what does not depend on him")
@pytest.mark.parametrize("case", OLD_WAY, ids=str)
def test_old_way(place: Path, case: Case) -> None:
    """Ours on a kernel without the mount API of Linux 5.2, mount_setattr and openat2, by its fallbacks."""
    ours = runtime("rootless-oci")
    assert ours
    ours.environment = {"ROOTLESS_NO_MOUNT_API": "1", "ROOTLESS_NO_OPENAT2": "1"}
    verdict = judge(ours, "", case, place, place / "template")
    if verdict.word == SKIP:
        pytest.skip(f"this host: {verdict.reason}")
    assert verdict.word == PASS, verdict.reason


def test_every_known_deviation_names_a_case() -> None:
    assert not deviations.stale(set(CASES))


def test_our_runtime_has_no_known_deviation() -> None:
    assert not any(deviations.expected("rootless-oci", "0.1.0", name) for name in CASES)
