"""host.subid: which ranges a user owns."""

from __future__ import annotations

import os
from pathlib import Path

from rootless.host.idmap import SubordinateIds
from rootless.host.subid import first_free, parse_getsubids, parse_ranges, subordinate_ids, without_overlaps


def test_lines_by_name_and_by_uid() -> None:
    lines = ["bob:1:2", "alice:100000:65536", "1001:300000:10", "alice2:5:5"]
    assert parse_ranges(lines, "alice", 1001) == [(100000, 65536), (300000, 10)]


def test_lines_that_make_no_sense_are_passed_over() -> None:
    lines = ["alice", "alice::", "alice:-1:5", "alice:5:0", "alice:4294967290:100", "alice:1:2:3", "alice:x:2", ""]
    assert parse_ranges(lines, "alice", 1001) == []


def test_overlaps_are_cut() -> None:
    assert without_overlaps([(100, 10), (105, 10)], 1) == [(100, 10), (110, 5)]
    assert without_overlaps([(100, 10), (100, 10)], 1) == [(100, 10)]
    assert without_overlaps([(100, 10)], 104) == [(100, 4), (105, 5)]


def test_both_files_are_needed(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text(f"{os.geteuid()}:700000:10\n")
    assert subordinate_ids(etc=str(tmp_path)) is None
    (tmp_path / "subgid").write_text(f"{os.geteuid()}:800000:20\n")
    assert subordinate_ids(etc=str(tmp_path)) == SubordinateIds([(700000, 10)], [(800000, 20)])


def test_user_by_name(tmp_path: Path) -> None:
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("root:700000:10\n")
    assert subordinate_ids("root", etc=str(tmp_path)) == SubordinateIds([(700000, 10)], [(700000, 10)])
    assert subordinate_ids(0, etc=str(tmp_path)) == SubordinateIds([(700000, 10)], [(700000, 10)])
    assert subordinate_ids("no-such-user", etc=str(tmp_path)) is None


def test_nsswitch_with_files_reads_the_files(tmp_path: Path) -> None:
    (tmp_path / "nsswitch.conf").write_text("passwd: files\nsubid: files # sss\n")
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text(f"{os.geteuid()}:700000:10\n")
    assert subordinate_ids(etc=str(tmp_path)) is not None


def test_nsswitch_with_another_source_asks_getsubids(tmp_path: Path) -> None:
    """The files are then not looked at: shadow's own library answers (here from /etc, for a user with nothing)."""
    (tmp_path / "nsswitch.conf").write_text("subid: sss\n")
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("nobody:700000:10\n")
    assert subordinate_ids("nobody", etc=str(tmp_path)) is None


def test_output_of_getsubids() -> None:
    lines = ["0: alice 100000 65536", "1: alice 300000 10", "Error fetching ranges"]
    assert parse_getsubids(lines) == [(100000, 65536), (300000, 10)]


def test_first_free_is_above_all_ranges(tmp_path: Path) -> None:
    assert first_free(str(tmp_path)) == 100000
    (tmp_path / "subuid").write_text("a:100000:65536\nb:165536:65536\n")
    (tmp_path / "subgid").write_text("a:400000:65536\njunk\n")
    assert first_free(str(tmp_path)) == 465536
