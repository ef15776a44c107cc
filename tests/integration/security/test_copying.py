"""Issue 8, A.2: whoever can write where `cp` writes swaps each new FIFO for a link before its mode is set.

The swapping process runs on the host, in a directory that the container shares: it is faster there, and can no more
than the container's root, who has the same user id.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.kernel.files import RENAME_EXCHANGE, renameat2
from tests.conftest import Runner

PIPES = 400
MODE = 0o751


@pytest.fixture(autouse=True)
def nothing_left(busybox: Runner) -> Iterator[None]:
    yield
    busybox("rm", "-f", "c", check=False)


class Swapper:
    """Exchanges `place/p000`, `place/p001`, ... for links to `target` as soon as each is there."""

    def __init__(self, place: Path, target: Path) -> None:
        self._place = os.open(place, os.O_PATH | os.O_DIRECTORY)
        self._links = target.parent / f"links-{target.name}"
        self._links.mkdir()
        for number in range(PIPES):
            (self._links / f"p{number:03}").symlink_to(target)
        self._ended = False
        self._thread = threading.Thread(target=self._swap)

    def __enter__(self) -> None:
        self._thread.start()

    def _swap(self) -> None:
        links = os.open(self._links, os.O_PATH | os.O_DIRECTORY)
        number = 0
        while number < PIPES and not self._ended:
            try:
                renameat2(links, f"p{number:03}", self._place, f"p{number:03}", RENAME_EXCHANGE)
                number += 1
            except FileNotFoundError:
                pass

    def __exit__(self, *unused: object) -> None:
        self._ended = True
        self._thread.join()


def archive_of_pipes() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for number in range(PIPES):
            pipe = tarfile.TarInfo(f"p{number:03}")
            pipe.type, pipe.mode = tarfile.FIFOTYPE, MODE
            tar.addfile(pipe)
    return content.getvalue()


@pytest.mark.parametrize("way", ["in", "out", "between"])
def test_a_pipe_swapped_for_a_link_changes_no_mode(busybox: Runner, way: str, tmp_path: Path) -> None:
    shared, target, source = tmp_path / "shared", tmp_path / "target", tmp_path / "source"
    for directory in (shared, target, source):
        directory.mkdir(mode=0o700)
    for number in range(PIPES):
        os.mkfifo(source / f"p{number:03}", MODE)
        (source / f"p{number:03}").chmod(MODE)
    mounts = ("-v", f"{shared}:/shared", "-v", f"{source}:/source")
    busybox("run", "-d", "--name", "c", "--network", "none", *mounts, "busybox", "sleep", "1000")
    with Swapper(shared, target):
        if way == "in":
            busybox("cp", "-", "c:/shared", input=archive_of_pipes(), check=False)
        elif way == "out":
            busybox("cp", "c:/source/.", str(shared), check=False)
        else:
            busybox("cp", "-a", f"{source}/.", "c:/shared", check=False)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
