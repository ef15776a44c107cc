"""What a disk holds after a power cut: a recording of fsync, from which the two worst states are made.

`settled`: a name is on the disk, but what was written into its file and not synced is not: such a file is empty.
`lost`: nothing that was not synced is there: neither bytes nor the names in a directory.
A file system that keeps the order of renames (ext4, xfs, btrfs) leaves a state between the two.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest


class PowerCut:
    """Records what is on the disk of the tree `root`. What is there at the beginning is."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._files: dict[int, bytes] = {}
        self._directories: dict[int, dict[str, int]] = {}
        self._kinds: dict[int, bool] = {}
        self._after: Callable[[], None] | None = None
        for parent, _, files in os.walk(root):
            self._note(os.open(parent, os.O_RDONLY), close=True)
            for name in files:
                self._note(os.open(f"{parent}/{name}", os.O_RDONLY), close=True)
        for call in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, call, self._note)
        for call in ("rename", "link"):
            monkeypatch.setattr(os, call, self._step(getattr(os, call)))

    def at_each_step(self, look: Callable[[], None]) -> None:
        """Call `look` after each rename and link."""
        self._after = look

    def _step(self, call: Callable[..., None]) -> Callable[..., None]:
        def stepped(*arguments: object, **options: object) -> None:
            call(*arguments, **options)
            if self._after is not None:
                self._after()

        return stepped

    def _note(self, fd: int, *, close: bool = False) -> None:
        status = os.fstat(fd)
        here = f"/proc/self/fd/{fd}"
        if stat.S_ISDIR(status.st_mode):
            self._directories[status.st_ino] = {e.name: e.inode() for e in os.scandir(here)}
        else:
            self._files[status.st_ino] = Path(here).read_bytes()
        if close:
            os.close(fd)

    def settled(self, target: Path) -> Path:
        """The state in which every name is there, and no bytes but synced ones."""

        def copy(source: Path, to: Path) -> None:
            to.mkdir(mode=0o700)
            for entry in os.scandir(source):
                if entry.is_dir(follow_symlinks=False):
                    copy(Path(entry.path), to / entry.name)
                else:
                    synced = self._files.get(entry.inode()) == Path(entry.path).read_bytes()
                    (to / entry.name).write_bytes(Path(entry.path).read_bytes() if synced else b"")

        copy(self.root, target)
        return target

    def lost(self, target: Path) -> Path:
        """The state in which nothing is there that was not synced."""
        directories = {self.root.stat().st_ino: self.root}
        directories |= {each.stat().st_ino: each for each in self.root.rglob("*") if each.is_dir()}

        def build(inode: int, to: Path) -> None:
            to.mkdir(mode=0o700)
            for name, child in self._directories.get(inode, {}).items():
                if child in directories:
                    build(child, to / name)
                elif child in self._files:
                    (to / name).write_bytes(self._files[child])

        build(self.root.stat().st_ino, target)
        return target
