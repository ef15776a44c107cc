"""A volume is filled in a private directory beside it: what a crash leaves, and what others may do meanwhile."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rootless.host import seeding
from rootless.host.seeding import copy_tree, seed_volume


class Place(NamedTuple):
    """image: directory with what is to be in the volume; image_fd: as the runtime has it; volume: empty."""

    image: Path
    image_fd: int
    volume: Path

    def seed(self) -> None:
        seed_volume(str(self.volume), self.image_fd)

    def beside(self) -> list[str]:
        return sorted(os.listdir(self.volume.parent))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    image, volume = tmp_path / "image", tmp_path / "volumes/v/_data"
    (image / "a/b").mkdir(parents=True)
    (image / "a/b/file").write_text("one")
    (image / "a/b/file").chmod(0o640)
    os.link(image / "a/b/file", image / "hard")
    os.link(image / "a/b/file", image / "a/hard")
    (image / "link").symlink_to("/etc/passwd")
    os.mkfifo(image / "pipe")
    (image / "pipe").chmod(0o2751)
    # The address of a socket has room for 107 bytes, and the temporary directories of a test user can be longer.
    top = os.open(image, os.O_PATH | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{top}/socket")
    os.close(top)
    (image / "socket").chmod(0o617)
    os.utime(image / "a", (1000, 2000))
    image.chmod(0o1770)
    os.utime(image, (3000, 4000))
    volume.mkdir(parents=True)
    fd = os.open(image, os.O_PATH | os.O_DIRECTORY)
    yield Place(image, fd, volume)
    os.close(fd)


def test_all_is_there_and_the_volume_is_the_same_directory(place: Place) -> None:
    before = place.volume.stat().st_ino
    place.seed()
    volume = place.volume
    assert volume.stat().st_ino == before
    assert (volume / "a/b/file").read_text() == "one"
    assert stat.S_IMODE((volume / "a/b/file").stat().st_mode) == 0o640
    assert {(volume / name).stat().st_ino for name in ("a/b/file", "hard", "a/hard")} == {
        (volume / "hard").stat().st_ino
    }
    assert os.readlink(volume / "link") == "/etc/passwd"
    assert (volume / "pipe").lstat().st_mode == stat.S_IFIFO | 0o2751
    assert (volume / "socket").lstat().st_mode == stat.S_IFSOCK | 0o617
    assert (volume / "a").stat().st_mtime == 2000
    assert stat.S_IMODE(volume.stat().st_mode) == 0o1770
    assert volume.stat().st_mtime == 4000
    assert place.beside() == ["_data"]


def test_a_volume_with_content_is_left_alone(place: Place) -> None:
    (place.volume / "mine").write_text("x")
    place.seed()
    assert os.listdir(place.volume) == ["mine"]


def end_at(monkeypatch: pytest.MonkeyPatch, function: str, call: int) -> None:
    """As if the process were killed at this call of a function of the module (0: the first)."""
    real, calls = getattr(seeding, function), []

    def counted(*arguments: object, **named: object) -> object:
        calls.append(arguments)
        if len(calls) == call + 1:
            os._exit(9)
        return real(*arguments, **named)

    monkeypatch.setattr(seeding, function, counted)


def killed(place: Place, monkeypatch: pytest.MonkeyPatch, function: str, call: int) -> None:
    child = os.fork()
    if child == 0:
        end_at(monkeypatch, function, call)
        place.seed()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("call", range(3))
def test_a_copy_that_was_killed_starts_over(place: Place, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    killed(place, monkeypatch, "_dress", call)
    assert os.listdir(place.volume) == []
    assert place.beside() == ["_data", "_data.filling", "_data.seeding"]
    place.seed()
    assert sorted(os.listdir(place.volume)) == sorted(os.listdir(place.image))
    assert place.beside() == ["_data"]


def test_after_a_killed_copy_what_a_container_wrote_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(place, monkeypatch, "_dress", 1)
    (place.volume / "mine").write_text("x")
    place.seed()
    assert os.listdir(place.volume) == ["mine"]
    assert place.beside() == ["_data"]


@pytest.mark.parametrize("call", range(1, 5))
def test_a_crash_between_two_renames_is_repaired(place: Place, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    killed(place, monkeypatch, "_move_name", call)
    assert len(os.listdir(place.volume)) == call
    (place.volume / "mine").write_text("x")
    place.seed()
    assert sorted(os.listdir(place.volume)) == sorted([*os.listdir(place.image), "mine"])
    assert stat.S_IMODE(place.volume.stat().st_mode) == 0o1770
    assert place.beside() == ["_data"]


def test_only_the_marker_is_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(place, monkeypatch, "_discard", 1)
    os.rmdir(place.volume.parent / "_data.filling")
    place.seed()
    assert sorted(os.listdir(place.volume)) == sorted(os.listdir(place.image))
    assert place.beside() == ["_data"]


def test_what_an_earlier_version_left_is_emptied(place: Place) -> None:
    (place.volume / "half").mkdir()
    (place.volume / "half/written").write_text("x")
    (place.volume.parent / "_data.seeding").write_text("seeding\n")
    place.seed()
    assert sorted(os.listdir(place.volume)) == sorted(os.listdir(place.image))


def test_a_name_that_a_container_made_meanwhile_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = seeding._move_name

    def move(private: int, name: str, data: int) -> None:
        if name == "a":
            (place.volume / "a").write_text("mine")
        real(private, name, data)

    monkeypatch.setattr(seeding, "_move_name", move)
    place.seed()
    assert (place.volume / "a").read_text() == "mine"
    assert (place.volume / "hard").read_text() == "one"
    assert place.beside() == ["_data"]


def test_a_failed_copy_leaves_the_volume_empty(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*unused: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(seeding, "_copy_file", full)
    with pytest.raises(OSError, match="No space"):
        place.seed()
    assert place.beside() == ["_data"]
    assert os.listdir(place.volume) == []


@pytest.mark.parametrize("error", [22, 18])
def test_file_systems_that_cannot_rename_so(place: Place, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """EINVAL: no RENAME_NOREPLACE; EXDEV: the volume is another file system's mount point."""

    def refuse(*unused: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(seeding, "renameat2", refuse)
    place.seed()
    assert sorted(os.listdir(place.volume)) == sorted(os.listdir(place.image))
    assert (place.volume / "hard").stat().st_nlink == 3
    assert stat.S_IMODE(place.volume.stat().st_mode) == 0o1770
    assert place.beside() == ["_data"]


def test_several_at_once_take_turns(place: Place) -> None:
    threads = [threading.Thread(target=place.seed) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(os.listdir(place.volume)) == sorted(os.listdir(place.image))
    assert place.beside() == ["_data"]


def test_links_that_are_put_in_the_way_of_a_copy_lead_nowhere(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even where somebody else can write, as before Linux 5.2: `hard`'s first name is led to a file outside."""
    secret, target = tmp_path / "secret", tmp_path / "target"
    secret.mkdir()
    target.mkdir()
    (secret / "first").write_text("key")
    secret.chmod(0o700)
    source = tmp_path / "source"
    (source / "1").mkdir(parents=True)
    (source / "1/first").write_text("x")
    (source / "2").mkdir()
    os.link(source / "1/first", source / "2/first")
    (source / "1").chmod(0o777)
    (source / "2").chmod(0o777)
    real = seeding._copy_entry

    def swapping(source: int, destination: int, name: str, status: os.stat_result) -> bool:
        made = real(source, destination, name, status)
        for number in "12":
            if (target / number).exists():
                (target / number).rename(target / f"old-{number}")
                (target / number).symlink_to(secret)
        return made

    monkeypatch.setattr(seeding, "_copy_entry", swapping)
    fds = [os.open(directory, os.O_RDONLY) for directory in (source, target)]
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        copy_tree(*fds)
    for fd in fds:
        os.close(fd)
    assert (secret / "first").stat().st_nlink == 1
    assert stat.S_IMODE(secret.stat().st_mode) == 0o700
