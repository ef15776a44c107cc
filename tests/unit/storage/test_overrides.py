"""The form of noted owners, modes and devices, and the table for links."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.storage.owners import overrides
from rootless.storage.owners.overrides import Override, Table, on_disk, parse_override, table_line

FORMATS = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR]
IDS = st.integers(0, (1 << 32) - 2)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (Override(33, 4, 0o644, stat.S_IFREG), b"33:4:0644:file"),
        (Override(0, 0, 0o4755, stat.S_IFREG), b"0:0:4755:file"),
        (Override(1, 2, 0, stat.S_IFDIR), b"1:2:0000:dir"),
        (Override(0, 5, 0o620, stat.S_IFCHR, (5, 1)), b"0:5:0620:char-5-1"),
        (Override(5, 6, 0o755), b"5:6:0755"),
        (Override(0, 6, 0o660, stat.S_IFBLK, (253, 1048575)), b"0:6:0660:block-253-1048575"),
    ],
)
def test_the_form_is_that_of_containers_storage(override: Override, text: bytes) -> None:
    assert bytes(override) == text
    assert parse_override(text) == override


def test_what_others_write_is_read() -> None:
    assert parse_override(b"5:6:0755") == Override(5, 6, 0o755)
    full = parse_override(b"0:0:0100755")  # libkrun notes the whole st_mode
    assert full is not None and (full.mode, full.format) == (0o755, stat.S_IFREG)
    terminated = parse_override(b"5:6:0755:dir\0")
    assert terminated is not None and terminated.format == stat.S_IFDIR


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"x",
        b"1:2",
        b"-1:0:0644",
        b"+1:0:0644",
        b"4294967295:0:0644",
        b"99999999999:0:0",
        b"1:2:0888",
        b"1:2:0644:x",
        b"1:2:0644:char",
        b"1:2:0644:char-1",
        b"1:2:0644:char-1--2",
        b"1:2:0644:file-1-2",
        b"1:2:0644:file:x",
        b"1:2:020644",
    ],
)
def test_what_is_none_is_ignored(text: bytes) -> None:
    assert parse_override(text) is None


@given(st.binary(max_size=40))
def test_any_bytes_are_read_without_failing(text: bytes) -> None:
    result = parse_override(text)
    assert result is None or parse_override(bytes(result)) is not None


def _status(mode: int, inode: int = 7) -> os.stat_result:
    return os.stat_result((mode, inode, 0, 1, 0, 0, 0, 0, 0, 0))


@given(IDS, IDS, st.integers(0, 0o7777), st.sampled_from(FORMATS), st.binary(max_size=30), st.binary(min_size=1))
def test_a_table_gives_back_what_was_noted(
    uid: int, gid: int, mode: int, format: int, target: bytes, path: bytes
) -> None:
    override = Override(uid, gid, mode, format)
    inodes = Table(iter([table_line(7, override, target)]))
    on_disk_format = stat.S_IFREG if override.is_device else format
    assert inodes.find(b"x", _status(on_disk_format), target) == override
    assert inodes.find(b"x", _status(on_disk_format), target + b"!") is None, "another link with that inode number"
    assert inodes.find(b"x", _status(on_disk_format, 8), target) is None
    paths = Table(iter([table_line(path, override)]))
    assert paths.find(path, _status(on_disk_format, 9)) == override
    assert not Table(iter([table_line(path, override), table_line(path, None)]))


def test_a_cut_or_foreign_line_is_skipped() -> None:
    whole = table_line(b"a/b", Override(1, 2, 0o777, stat.S_IFLNK))
    table = Table(iter([b"nonsense\n", b"#x\t1:2:0777\t\n", whole, whole.replace(b"1:2", b"3:4")[:-1]]))
    found = table.find(b"/a/b", _status(stat.S_IFLNK))
    assert found is not None and found.uid == 1


def test_a_mode_changed_later_counts() -> None:
    noted = Override(7, 7, 0o4750, stat.S_IFREG)
    assert on_disk(0o4750, stat.S_IFREG) == 0o4750
    assert noted.mode_now(0o104750) == 0o4750
    assert noted.mode_now(0o100750) == 0o750
    assert noted.mode_now(0o100600) == 0o600
    assert Override(7, 7, 0o555, stat.S_IFDIR).mode_now(0o40755) == 0o555


def test_on_a_file(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert overrides.read_override(fd) is None
        overrides.write_override(fd, None)
        overrides.write_override(fd, Override(1, 2, 0o700, stat.S_IFDIR))
        assert overrides.read_override(str(tmp_path)) == Override(1, 2, 0o700, stat.S_IFDIR)
        overrides.write_override(fd, None)
        assert overrides.read_override(fd) is None
    finally:
        os.close(fd)
    table = overrides.append_to(str(tmp_path))
    os.write(table, table_line(5, Override(1, 2, 0o777, stat.S_IFLNK), b"t"))
    os.close(table)
    assert len(overrides.open_table(str(tmp_path))) == 1
    assert not overrides.open_table(str(tmp_path / "none"))
