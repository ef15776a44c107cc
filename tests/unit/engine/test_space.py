"""Room for bytes and inodes, the words for a full disk, the setting that keeps blobs, sizes of trees."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rootless.engine.settings import load_settings
from rootless.engine.transfer import space
from rootless.engine.transfer.space import Room, check
from rootless.errors import HostLimit, InvalidInput, UsageError
from rootless.host import idmap
from rootless.host.full import full_error
from rootless.storage.files.removal import delete_tree
from rootless.storage.layers import jobs, worker_client
from rootless.storage.layers.measure import TreeSize, measure_paths
from rootless.storage.layers.tree_sizes import tree_sizes


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (Room(1_000_000, 1000), "needs at least 5.0 MB, the file system of '/x' has 1.0 MB left"),
        (Room(10_000_000, 3), "needs at least 20 files (inodes), the file system of '/x' has 3 left"),
        (Room(999, 1000, by_quota=True), "your quota for '/x' has 999 bytes left"),
    ],
)
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, here: Room, words: str) -> None:
    monkeypatch.setattr(space, "room", lambda path: here)
    with pytest.raises(HostLimit, match="the image") as caught:
        check("/x", "the image", bytes=5_000_000, inodes=20)
    assert words in caught.value.message
    assert ("quota -s" in (caught.value.hint or "")) == here.by_quota


def test_a_file_system_without_fixed_inodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "room", lambda path: Room(1 << 30, None))
    assert check("/x", "the image", bytes=1000, inodes=10**9).inodes is None


def test_room_is_what_the_system_says(tmp_path: Path) -> None:
    found = space.room(str(tmp_path))
    system = os.statvfs(tmp_path)
    assert 0 < found.bytes <= system.f_blocks * system.f_frsize


def test_words_for_a_full_disk(tmp_path: Path) -> None:
    quota = full_error("cannot write 'x'", OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), str(tmp_path))
    assert quota.message == "cannot write 'x': Disk quota exceeded" and "quota -s" in (quota.hint or "")
    full = full_error("cannot write 'x'", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), str(tmp_path))
    assert "No space left" in full.message and "system prune" in (full.hint or "")
    other = full_error("cannot write 'x'", OSError(errno.EIO, os.strerror(errno.EIO)), str(tmp_path))
    assert other.hint is None


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("no", False), ("0", False)])
def test_a_setting_that_is_true_or_false(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, value: bool
) -> None:
    assert load_settings(str(tmp_path), {}).keep_layer_blobs is False
    monkeypatch.setenv("ROOTLESS_KEEP_LAYER_BLOBS", text)
    assert load_settings(str(tmp_path), {}).keep_layer_blobs is value
    monkeypatch.setenv("ROOTLESS_KEEP_LAYER_BLOBS", "perhaps")
    with pytest.raises(UsageError, match="true or false"):
        load_settings(str(tmp_path), {})
    monkeypatch.delenv("ROOTLESS_KEEP_LAYER_BLOBS")
    (tmp_path / "config.toml").write_text("keep_layer_blobs = true\n")
    assert load_settings(str(tmp_path), {}).keep_layer_blobs is True
    (tmp_path / "config.toml").write_text("keep_layer_blobs = 2\n")
    with pytest.raises(InvalidInput, match="true or false"):
        load_settings(str(tmp_path), {})


def test_sizes_of_trees(tmp_path: Path) -> None:
    """Blocks, not lengths; hard links once, over all paths; deep trees with one open directory."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one/f").write_bytes(os.urandom(100_000))
    os.link(tmp_path / "one/f", tmp_path / "two/g")
    with open(tmp_path / "two/hole", "wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "two/out").symlink_to("/")
    deep = os.open(tmp_path / "one", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=deep)
        inner = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.close(deep)
    one, two, file, nothing = measure_paths([str(tmp_path / name) for name in ("one", "two", "one/f", "absent")])
    allocated = os.stat(tmp_path / "one/f").st_blocks * 512
    assert one[1] == 1502 and one[0] >= allocated
    assert two[1] == 3 and two[0] < allocated
    assert (one.content, two.content) == (100_000, (1 << 40) + 1), "what was met first, and a link's one byte"
    assert (file[1:], nothing) == ((1, 100_000), (0, 0, 0))
    delete_tree(str(tmp_path / "one"))  # deeper than what empties temporary directories can go


def test_a_worker_is_asked_only_for_trees_that_refuse_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(job: jobs.MeasureJob, id_map: object) -> jobs.Measured:
        asked.append(list(job.paths))
        return jobs.Measured([(8192, 3, 77)])

    monkeypatch.setattr(worker_client, "run_job", run)
    paths = [str(tmp_path / name) for name in ("open", "closed", "absent")]
    for path in paths[:2]:
        os.mkdir(path)
        (Path(path) / "f").write_bytes(b"x" * 5)
    single = idmap.default_map(None, os.getuid(), os.getgid())
    assert [size.content for size in tree_sizes(paths, single)] == [5, 5, 0] and not asked
    real = os.open

    def refuse(path: str, flags: int, **more: int) -> int:
        if path == paths[1]:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, flags, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert tree_sizes(paths, single)[1:] == [TreeSize(8192, 3, 77), TreeSize(0, 0, 0)] and asked == [paths[1:2]]
