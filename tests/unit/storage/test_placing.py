"""Files that are placed or copied where somebody else can write: no link that takes a name is followed."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from rootless.errors import InvalidState
from rootless.storage.files.placer import ArchivePlacer
from rootless.storage.files.tree_copy import Copier, copy_tree


def archive(*members: tuple[str, bytes, int]) -> io.BytesIO:
    """A tar of (name, type, mode)."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, kind, mode in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, mode
            tar.addfile(member)
    content.seek(0)
    return content


def place(top: Path, reader: io.BytesIO, *, keep: bool = False) -> None:
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ArchivePlacer(fd, None, keep=keep).place(reader)
    finally:
        os.close(fd)


def test_a_pipe_has_its_mode(tmp_path: Path) -> None:
    place(tmp_path, archive(("pipe", tarfile.FIFOTYPE, 0o627)), keep=True)
    assert (tmp_path / "pipe").lstat().st_mode == stat.S_IFIFO | 0o627


@pytest.mark.parametrize("mode", [0o555, 0o500, 0o000])
@pytest.mark.parametrize("keep", [False, True])
def test_what_a_closed_directory_holds_is_placed(tmp_path: Path, mode: int, keep: bool) -> None:
    """The modes of directories are set in the end: docker's `cp` fails here (moby#35987)."""
    closed = tarfile.DIRTYPE
    members = (("d", closed, mode), ("d/in", closed, mode), ("d/in/f", tarfile.REGTYPE, 0o444))
    place(tmp_path, archive(*members), keep=keep)
    if keep:
        (tmp_path / "d").chmod(0o700)
        place(tmp_path, archive(*members[:1], ("d/more", tarfile.REGTYPE, 0o444)), keep=True)
    found = []
    for name in ("d", "d/in", "d/in/f"):
        found.append(stat.S_IMODE((tmp_path / name).lstat().st_mode))
        (tmp_path / name).chmod(0o700)
    assert found == [mode, mode, 0o444]


def test_a_directory_that_took_the_place_of_ours_keeps_its_mode(tmp_path: Path) -> None:
    class Reader(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 512 and not (tmp_path / "old").exists():
                (tmp_path / "d").rename(tmp_path / "old")
                (tmp_path / "d").mkdir(mode=0o755)
            return super().read(size)

    place(tmp_path, Reader(archive(("d", tarfile.DIRTYPE, 0o555)).getvalue()))
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o755


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for which each new pipe or socket is swapped at once."""
    directory = tmp_path / "target"
    directory.mkdir(mode=0o700)

    def swapped(name: str, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)
        os.symlink(directory, name, dir_fd=dir_fd)

    real = os.mkfifo

    def mkfifo(name: str, mode: int, *, dir_fd: int) -> None:
        real(name, mode, dir_fd=dir_fd)
        swapped(name, dir_fd)

    monkeypatch.setattr(os, "mkfifo", mkfifo)
    return directory


def test_a_pipe_swapped_for_a_link_changes_no_mode(tmp_path: Path, target: Path) -> None:
    (tmp_path / "top").mkdir()
    place(tmp_path / "top", archive(("pipe", tarfile.FIFOTYPE, 0o777)))
    assert (tmp_path / "top/pipe").is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


def test_nor_in_a_copied_tree(tmp_path: Path, target: Path) -> None:
    source, top = tmp_path / "source", tmp_path / "top"
    source.mkdir()
    top.mkdir()
    os.mknod(source / "pipe", stat.S_IFIFO | 0o777)
    fds = [os.open(directory, os.O_RDONLY | os.O_DIRECTORY) for directory in (source, top)]
    copy_tree(*fds, Copier(), str(top))
    for fd in fds:
        os.close(fd)
    assert (top / "pipe").is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


def test_a_further_name_is_not_taken_from_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, top, secret = tmp_path / "source", tmp_path / "top", tmp_path / "secret"
    for directory in (source / "1", source / "2", top, secret):
        directory.mkdir(parents=True)
    (source / "1/file").write_text("x")
    os.link(source / "1/file", source / "2/file")
    (secret / "file").write_text("key")
    real = Copier.entry

    def entry(self: Copier, *arguments: object) -> None:
        real(self, *arguments)
        for made in list(top.iterdir()):
            made.rename(tmp_path / f"old-{made.name}")
            made.symlink_to(secret)

    monkeypatch.setattr(Copier, "entry", entry)
    fds = [os.open(directory, os.O_RDONLY | os.O_DIRECTORY) for directory in (source, top)]
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        copy_tree(*fds, Copier(), str(top))
    for fd in fds:
        os.close(fd)
    assert (secret / "file").stat().st_nlink == 1


@pytest.mark.parametrize("has_reader", [True, False])
def test_a_pipe_that_took_the_place_of_a_mounted_file_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_reader: bool
) -> None:
    """open(2) of a pipe waits for a reader: `cp` into a container hung, which put one over its /etc/hosts."""

    def swapped(*_: object) -> bool:
        (tmp_path / "f").unlink()
        os.mkfifo(tmp_path / "f")
        if has_reader:
            readers.append(os.open(tmp_path / "f", os.O_RDONLY | os.O_NONBLOCK))
        return True

    readers: list[int] = []
    (tmp_path / "f").write_text("mounted")
    monkeypatch.setattr(ArchivePlacer, "_remove", staticmethod(swapped))
    with pytest.raises(InvalidState if has_reader else OSError):
        place(tmp_path, archive(("f", tarfile.REGTYPE, 0o644)))
    for fd in readers:
        os.close(fd)
