"""Files that are placed or copied where somebody else can write: no link that takes a name is followed."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

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
