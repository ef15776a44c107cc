"""Killed while compressed copies are dropped, layers unpacked or repaired: nothing is lost that had a name."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, make_private_directory, make_runner, remove_private_directory, require
from tests.faults.test_kill_at_step import crash

pytestmark = pytest.mark.once

POINTS = 5
KEEP = {"ROOTLESS_KEEP_LAYER_BLOBS": "1"}
COMMANDS = {
    "load": ["load", "-q", "-i", "{archive}"],
    "drop": ["system", "prune", "-f"],
    "repair": ["system", "check", "--repair"],
}


@pytest.fixture(scope="module")
def crash_root() -> Iterator[Path]:
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    root = make_private_directory("c")
    make_runner(root)("image", "bootstrap", "busybox")
    yield root
    remove_private_directory(root)


@pytest.fixture(scope="module")
def archive(crash_root: Path) -> Iterator[Path]:
    """A small image with a compressed layer."""
    run, tree = make_runner(crash_root), crash_root.parent / f"{crash_root.name}-tree"
    tree.mkdir()
    (tree / "file").write_text("content" * 100)
    tar, saved = tree.with_suffix(".tar"), tree.with_suffix(".oci")
    subprocess.run(["tar", "-C", tree, "--owner=0", "--group=0", "-cf", tar, "."], check=True)
    run("import", str(tar), "crash:1")
    run("save", "--format", "oci-archive", "--compression", "gzip", "-o", str(saved), "crash:1")
    run("rmi", "crash:1")
    yield saved
    for path in (tar, saved, tree / "file"):
        path.unlink()
    tree.rmdir()


def damaged(root: Path) -> Path:
    """The file of the image's layer, with another mode (its content is what it was)."""
    found = next(root.glob("layers/*/diff/file"))
    found.chmod(0o600)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_each_step(name: str, crash_root: Path, archive: Path) -> None:
    run = make_runner(crash_root)
    words = [word.format(archive=archive) for word in COMMANDS[name]]

    def before() -> None:
        run("rmi", "-f", "crash:1", check=False)
        if name != "load":
            run("load", "-q", "-i", str(archive), env=KEEP)
        if name == "repair":
            damaged(crash_root)

    before()
    steps = crash(crash_root, "command", 0, words)
    assert steps > 0
    for at in sorted({1 + i * (steps - 1) // (POINTS - 1) for i in range(POINTS)}):
        before()
        crash(crash_root, "command", at, words)
        if name == "load":
            run("load", "-q", "-i", str(archive))
        whole(run, crash_root, repaired=name != "repair")
    run("system", "prune", "-f")
    assert not os.listdir(crash_root / "incoming") and not os.listdir(crash_root / "trash")
    assert not [each for each in os.listdir(crash_root / "layers") if each.startswith(".")]
    assert not (crash_root / "quarantine").exists() or not os.listdir(crash_root / "quarantine")


def whole(run: Runner, root: Path, *, repaired: bool) -> None:
    """The image is there, its tar can be made, and its tree is whole, at the latest after one more repair."""
    if not repaired:
        run("system", "check", "--repair")
    checked = run("system", "check", check=False)
    assert checked.returncode == 0, checked.stdout
    saved = run("save", "-o", str(root / "out.tar"), "crash:1")
    assert saved.returncode == 0
    (root / "out.tar").unlink()
    assert next(root.glob("layers/*/diff/file")).read_text() == "content" * 100
