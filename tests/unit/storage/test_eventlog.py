"""The log of events: bounded, whole lines from many writers, and readable across a turn-over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootless.storage.store import eventlog
from rootless.storage.store.eventlog import EventEntry, EventReader, append_event, parse_event


def test_what_is_written_is_read(tmp_path: Path) -> None:
    log = str(tmp_path / "events.log")
    append_event(log, EventEntry("container", "start", "c1", {"name": "a\nb", "label": "é"}, 5))
    found = list(EventReader(log).entries())
    assert [(e.kind, e.action, e.id, e.nanoseconds) for e in found] == [("container", "start", "c1", 5)]
    assert found[0].attributes == {"name": "a\nb", "label": "é"}


def test_the_log_is_bounded_and_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MAX_SIZE", 4000)
    log = str(tmp_path / "events.log")
    for number in range(200):
        append_event(log, EventEntry("image", "pull", str(number), {}, number))
    sizes = [os.path.getsize(path) for path in (log, f"{log}.1")]
    assert max(sizes) <= 4000
    found = [int(e.id) for e in EventReader(log).entries()]
    assert found == list(range(found[0], 200)) and len(found) > 20


def test_a_follower_misses_nothing_when_the_log_turns_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MAX_SIZE", 2000)
    log = str(tmp_path / "events.log")
    reader, seen = EventReader(log), []
    for number in range(100):
        append_event(log, EventEntry("volume", "create", str(number), {}, number))
        if number % 5 == 0:
            seen += [int(e.id) for e in reader.entries(older=False)]
    seen += [int(e.id) for e in reader.entries(older=False)]
    assert seen == list(range(100))
    reader.close()


def test_many_writers_tear_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MAX_SIZE", 40_000)
    log = str(tmp_path / "events.log")
    children = []
    for writer in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                for number in range(50):
                    append_event(log, EventEntry("container", "die", f"{writer}-{number}", {"x": "y" * 100}))
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    found = [e.id for e in EventReader(log).entries()]
    assert sorted(found) == sorted(f"{w}-{n}" for w in range(4) for n in range(50))


def test_an_event_of_any_size_stays_one_bounded_line(tmp_path: Path) -> None:
    log = str(tmp_path / "events.log")
    append_event(log, EventEntry("image", "tag", "i", {"label": "x" * 100_000}))
    assert os.path.getsize(log) < 1000 and next(EventReader(log).entries()).attributes == {"truncated": "true"}


def test_a_log_that_cannot_be_written_fails_nobody(tmp_path: Path) -> None:
    append_event(str(tmp_path / "missing" / "events.log"), EventEntry("image", "tag", "i"))
    assert list(EventReader(str(tmp_path / "missing" / "events.log")).entries()) == []


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b'{"Actor":5}', b'{"Type":"a","Action":"b","Actor":{"ID":1,"Attributes":[]}}']
)
def test_damaged_lines_are_left_out(line: bytes) -> None:
    assert parse_event(line) is None


def test_older_events_are_read_once_while_the_log_is_missing(tmp_path: Path) -> None:
    """On a full disk the turned-over log may have no successor for a while."""
    log = str(tmp_path / "events.log")
    append_event(f"{log}.1", EventEntry("volume", "create", "old"))
    reader = EventReader(log)
    assert [[e.id for e in reader.entries()] for _ in range(3)] == [["old"], [], []]
    append_event(log, EventEntry("volume", "create", "new"))
    assert [e.id for e in reader.entries()] == ["new"]
    reader.close()


def test_a_line_that_did_not_fit_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = str(tmp_path / "events.log")
    append_event(log, EventEntry("volume", "create", "one"))
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, line: write(fd, line[:20]))
        append_event(log, EventEntry("volume", "create", "lost"))
    append_event(log, EventEntry("volume", "create", "two"))
    assert [e.id for e in EventReader(log).entries()] == ["one", "two"]


def test_a_command_of_any_length_is_one_bounded_line(tmp_path: Path) -> None:
    log = str(tmp_path / "events.log")
    append_event(log, EventEntry("container", "exec_start: " + "x" * 100_000, "c"))
    assert os.path.getsize(log) < 6000 and next(EventReader(log).entries()).action.startswith("exec_start: xxx")
