"""Issue 8, A.1: a container that holds a volume changes it while another one's start, or `cp`, fills it from an image.

What it must not reach are files of the host: neither their content nor their modes.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, make_private_directory, remove_private_directory

DIRECTORIES = 8
BIG = 8 << 20  # bytes in each directory: the time in which the names are swapped


@pytest.fixture
def secret() -> Iterator[Path]:
    """A directory of the caller on the file system of the store, with a file that no container is given."""
    place = make_private_directory("k")
    (place / "linked").write_text("host key")
    (place / "linked").chmod(0o600)
    place.chmod(0o700)
    yield place
    remove_private_directory(place)


def make_image(busybox: Runner, place: Path, *, mode: int) -> str:
    """An image with a volume's content: in each directory a name of the same file, and what takes time to copy."""
    archive = place / "seed.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("data", *(f"data/d{number}" for number in range(DIRECTORIES))):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, mode
            tar.addfile(directory)
        for number in range(DIRECTORIES):
            big = tarfile.TarInfo(f"data/d{number}/big")
            big.size = BIG
            tar.addfile(big, io.BytesIO(os.urandom(1 << 20) * (BIG >> 20)))
            link = tarfile.TarInfo(f"data/d{number}/linked")
            if number:
                link.type, link.linkname = tarfile.LNKTYPE, "data/d0/linked"
            tar.addfile(link)
    busybox("import", str(archive), "seed")
    archive.unlink()
    return "seed"


def swap_meanwhile(busybox: Runner, secret: Path) -> None:
    """Container `a` holds the volume, and puts a link in the place of each directory that is filled."""
    script = (
        "cd /v; while :; do for d in d*; do "
        f'[ -e "$d/linked" ] && [ ! -L "$d" ] && mv "$d" "old-$d" && ln -s {secret} "$d"; done; done'
    )
    busybox("run", "-d", "--name", "a", "--network", "none", "-v", "v:/v:nocopy", "busybox", "sh", "-c", script)


def fill(busybox: Runner, how: str, place: Path) -> None:
    """Have the volume filled; whether that succeeds is not the question."""
    busybox("create", "--name", "b", "--network", "none", "-v", "v:/data", "seed", "/none")
    if how == "start":
        busybox("start", "b", check=False)
    else:
        (place / "letter").write_text("x")
        busybox("cp", f"{place}/letter", "b:/data/letter", check=False)


@pytest.fixture(params=["start", "cp"])
def how(request: pytest.FixtureRequest, busybox: Runner) -> Iterator[str]:
    yield request.param
    busybox("rm", "-f", "a", "b", check=False)
    busybox("volume", "rm", "v", check=False)
    busybox("rmi", "-f", "seed", check=False)


def test_no_file_of_the_host_gets_into_a_volume(busybox: Runner, how: str, secret: Path, tmp_path: Path) -> None:
    make_image(busybox, tmp_path, mode=0o755)
    swap_meanwhile(busybox, secret)
    fill(busybox, how, tmp_path)
    busybox("rm", "-f", "a")
    assert (secret / "linked").stat().st_nlink == 1
    assert "host key" not in busybox("run", "--rm", "-v", "v:/v:nocopy", "busybox", "grep", "-rl", "host key", "/v",
                                     check=False).stdout  # fmt: skip


def test_no_mode_of_the_host_changes(busybox: Runner, how: str, secret: Path, tmp_path: Path) -> None:
    make_image(busybox, tmp_path, mode=0o777)
    swap_meanwhile(busybox, secret)
    fill(busybox, how, tmp_path)
    busybox("rm", "-f", "a")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o700
