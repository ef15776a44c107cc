"""The log writer: records as docker cuts them, nothing that a terminal obeys, rotation."""

import errno
import json
import os
from pathlib import Path

import pytest

from rootless.monitor.logfile import MAX_RECORD, LogFile, NoLog, Splitter, open_log, quote_json
from rootless.records.launch import LogPlan
from rootless.records.state import timestamp_ns


def test_lines_become_records_with_their_newline() -> None:
    splitter = Splitter()
    assert splitter.feed(b"one\ntw") == [b"one\n"]
    assert splitter.feed(b"o\n\n") == [b"two\n", b"\n"]
    assert splitter.end() == []


def test_unfinished_line_comes_at_the_end() -> None:
    splitter = Splitter()
    assert splitter.feed(b"prompt> ") == []
    assert splitter.end() == [b"prompt> "]
    assert splitter.end() == []


def test_long_line_is_cut_into_records_of_16_kib() -> None:
    splitter = Splitter()
    records = splitter.feed(b"x" * 40000)
    assert [len(r) for r in records] == [MAX_RECORD, MAX_RECORD]
    records += splitter.feed(b"y\n")
    assert records[-1].endswith(b"xy\n")
    assert b"".join(records) == b"x" * 40000 + b"y\n"


def test_long_line_is_cut_between_characters() -> None:
    text = "a" + "é" * 20000
    splitter = Splitter()
    records = splitter.feed(text.encode()) + splitter.end()
    assert "".join(r.decode() for r in records) == text


def test_line_of_continuation_bytes_only_is_cut_too() -> None:
    splitter = Splitter()
    assert b"".join(splitter.feed(b"\x80" * 50000) + splitter.end()) == b"\x80" * 50000


def test_terminal_injection_is_escaped() -> None:
    """TRAPS: terminal/log injection."""
    text = "\x1b]0;owned\x07\x7f\x9b2J\u2028ü"
    quoted = quote_json(text)
    assert json.loads(quoted) == text
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c == "\u2028" for c in quoted)
    assert "ü" in quoted


def test_invalid_utf8_stays_readable(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"))
    log.write("stdout", [b"caf\xe9 \xff\n"])
    assert json.loads((tmp_path / "log").read_text())["log"] == "caf\ufffd \ufffd\n"


def test_record_is_dockers(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"))
    log.write("stderr", [b"one\n", b"two\n"])
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [list(line) for line in lines] == [["log", "stream", "time"]] * 2
    assert lines[0]["log"] == "one\n"
    assert lines[0]["stream"] == "stderr"


def test_time_stamps_have_nine_digits_and_zulu() -> None:
    assert timestamp_ns(1_700_000_000_000_000_005) == "2023-11-14T22:13:20.000000005Z"


def test_rotation_keeps_max_file_files_and_loses_nothing_newer(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"), max_size=1000, max_file=3)
    for number in range(60):
        log.write("stdout", [b"line %d\n" % number])
    log.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(p.stat().st_size <= 1000 for p in tmp_path.iterdir())
    kept = [
        int(json.loads(line)["log"].split()[1])
        for name in ("log.2", "log.1", "log")
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert kept == list(range(kept[0], 60))


def test_rotation_within_one_batch(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"), max_size=500, max_file=100)
    log.write("stdout", [b"line %d\n" % number for number in range(50)])
    total = sum(len(p.read_text().splitlines()) for p in tmp_path.iterdir())
    assert total == 50


def test_single_file_is_truncated(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"), max_size=300, max_file=1)
    for number in range(20):
        log.write("stdout", [b"line %d\n" % number])
    assert [p.name for p in tmp_path.iterdir()] == ["log"]
    assert "line 19" in (tmp_path / "log").read_text()
    assert (tmp_path / "log").stat().st_size <= 300


def test_log_is_appended_to_by_the_next_start(tmp_path: Path) -> None:
    for word in (b"first\n", b"second\n"):
        log = LogFile(str(tmp_path / "log"))
        log.write("stdout", [word])
        log.close()
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_full_disk_drops_records_and_goes_on() -> None:
    log = LogFile.__new__(LogFile)
    import os

    log.path, log.max_size, log.max_file, log.lost, log._size = "/dev/full", 0, 1, 0, 0
    log._fd = os.open("/dev/full", os.O_WRONLY)
    log.write("stdout", [b"x\n"])
    assert log.lost == 1
    log.close()


def test_driver_none_keeps_nothing() -> None:
    assert isinstance(open_log(LogPlan("none")), NoLog)


def test_without_a_descriptor_the_records_stay_in_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old descriptor was closed first: its number became a client's, and the records went there."""
    log = LogFile(str(tmp_path / "log"), max_size=60, max_file=2)
    log.write("stdout", [b"one\n"])

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", refuse)
    log.write("stdout", [b"two\n"])
    monkeypatch.undo()
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    log.write("stdout", [b"three\n"])
    assert os.fstat(other).st_size == 0
    os.close(other)
    log.close()
    written = "".join(path.read_text() for path in sorted(tmp_path.glob("log*"), reverse=True))
    assert [word for word in ("one", "two", "three") if word in written][-2:] == ["two", "three"]
