"""How many of the package's files a command executes, in all its processes: today's numbers, which may only fall.

What finds the host's own way (its cgroups, its storage driver, its network helper) is left out, since the number is to
be one everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, make_private_directory, remove_private_directory, require
from tests.house import TracedCopy
from tests.integration.image.conftest import Registry

RUN = 133
PULL = 87
BUILD = 181
LISTING = 50
OF_THE_HOST = (
    *("host/cgroups", "host/dbus", "host/scope", "runtime/cgroups/", "storage/drivers/", "storage/owners/"),
    "network/helper_choice",
)


class Counter:
    """Runs commands of a copy of the package on the store `root`."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._environment = {**os.environ, "ROOTLESS_ROOT": str(root)}
        self._traced = TracedCopy(folder)

    def executed_by(self, *words: str) -> list[str]:
        """The files that count."""
        files = self._traced.executed_by(*words, environment=self._environment)
        return sorted(name for name in files if not name.startswith(OF_THE_HOST))


@pytest.fixture
def counter(busybox: Runner, shared_root: Path, has_range: bool, tmp_path: Path) -> Counter:
    require(has_range, "with one id the root of a container may be emulated, which takes more files")
    busybox("run", "--rm", "busybox", "true")  # what is tried once and kept: the driver, the compiled filter
    return Counter(shared_root, tmp_path)


@pytest.fixture
def empty_store() -> Iterator[Path]:
    root = make_private_directory("s")
    yield root
    remove_private_directory(root)


def test_run(counter: Counter) -> None:
    files = counter.executed_by("run", "--rm", "busybox", "true")
    assert len(files) <= RUN, files


def test_build(counter: Counter, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    files = counter.executed_by("build", "--no-cache", "-q", str(context))
    assert len(files) <= BUILD, files


def test_a_listing(counter: Counter) -> None:
    files = counter.executed_by("images")
    assert len(files) <= LISTING, files


def test_pull(busybox: Runner, registry: Registry, empty_store: Path, has_range: bool, tmp_path: Path) -> None:
    require(has_range, "with one id the owners of a layer are noted beside it, which takes more files")
    image = f"{registry.address}/busybox:latest"
    busybox("push", "--tls-verify=false", "busybox", image)
    files = Counter(empty_store, tmp_path).executed_by("pull", "-q", "--tls-verify=false", image)
    assert len(files) <= PULL, files
