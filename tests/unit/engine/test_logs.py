"""Reading logs: tail, windows, following across rotation and truncation."""

import json
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.engine.container.logs import LogRecord, Window, read
from rootless.monitor.logfile import LogFile


def write(path: Path, *texts: str, time: str = "2024-01-01T00:00:00.{:09d}Z", first: int = 0) -> None:
    with path.open("a") as file:
        for number, text in enumerate(texts, first):
            file.write(json.dumps({"log": text, "stream": "stdout", "time": time.format(number)}) + "\n")


def texts(records: Iterator[LogRecord]) -> list[str]:
    return [record.text for record in records]


def test_whole_log_over_rotated_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(tmp_path / "log.2", "a")
    write(tmp_path / "log.1", "b")
    write(path, "c")
    assert texts(read(str(path))) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("tail", "wanted"), [(0, []), (1, ["c2"]), (3, ["b", "c1", "c2"]), (99, ["a", "b", "c1", "c2"])]
)
def test_tail_reaches_into_rotated_files(tmp_path: Path, tail: int, wanted: list[str]) -> None:
    path = tmp_path / "log"
    write(tmp_path / "log.2", "a")
    write(tmp_path / "log.1", "b")
    write(path, "c1", "c2")
    assert texts(read(str(path), Window(tail=tail))) == wanted


def test_tail_of_a_log_of_many_blocks(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, *(f"line {n} " + "x" * 900 for n in range(400)))
    assert [t.split()[1] for t in texts(read(str(path), Window(tail=200)))] == [str(n) for n in range(200, 400)]


def test_window_of_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, "a", "b", "c", "d")
    base = 1_704_067_200_000_000_000
    assert texts(read(str(path), Window(since=base + 1, until=base + 2))) == ["b", "c"]


def test_missing_log_is_empty(tmp_path: Path) -> None:
    assert texts(read(str(tmp_path / "none"), Window(follow=True))) == []
    assert texts(read(str(tmp_path / "none"), Window(tail=3))) == []


def test_damaged_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, "a")
    with path.open("a") as file:
        file.write('{"log":"cut off\n[]\n\n{"x":1}\n')
    write(path, "b")
    assert texts(read(str(path))) == ["a", "b"]


@pytest.mark.parametrize("max_file", [1, 3])
def test_following_across_rotation(tmp_path: Path, max_file: int) -> None:
    path = str(tmp_path / "log")
    log = LogFile(path, max_size=2000, max_file=max_file)
    running = threading.Event()
    running.set()
    log.write("stdout", [b"first\n"])
    seen: list[str] = []
    reader = threading.Thread(
        target=lambda: seen.extend(texts(read(path, Window(follow=True), is_running=running.is_set))), daemon=True
    )
    reader.start()
    for number in range(60):
        log.write("stdout", [b"line %d\n" % number])
        threading.Event().wait(0.005)
    running.clear()
    reader.join(5)
    assert not reader.is_alive()
    assert seen[0] == "first\n"
    numbers = [int(text.split()[1]) for text in seen[1:]]
    assert numbers[-1] == 59
    if max_file > 1:
        assert numbers == list(range(60))


def test_following_ends_with_the_container_and_misses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, "a")
    asked = iter([True, False])

    def is_running() -> bool:
        running = next(asked)
        if not running:
            write(path, "last words")  # between the reader's look and its question
        return running

    assert texts(read(str(path), Window(follow=True, tail=0), is_running=is_running)) == ["last words"]


def test_following_reader_that_slept_through_several_rotations(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    log = LogFile(path, max_size=400, max_file=50)
    log.write("stdout", [b"line 0\n"])

    def is_running() -> bool:
        for number in range(1, 40):  # many rotations between two looks of the reader
            log.write("stdout", [b"line %d\n" % number])
        return False

    seen = texts(read(path, Window(follow=True), is_running=is_running))
    assert seen == [f"line {number}\n" for number in range(40)]


@pytest.mark.parametrize("window", [Window(), Window(tail=5), Window(follow=True), Window(tail=1, follow=True)])
def test_an_endless_line_is_skipped_in_bounded_memory(tmp_path: Path, window: Window) -> None:
    """A file that a power cut has left with zeroes, of whatever size."""
    path = tmp_path / "log"
    write(path, "before")
    with path.open("ab") as file:
        file.truncate(1 << 26)
        file.seek(0, 2)
        file.write(b"\n")
    write(path, "after")
    tracemalloc.start()
    found = texts(read(str(path), window))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[-1:] == ["after"] and peak < 16 << 20


@pytest.mark.parametrize("follow", [False, True])
def test_a_rotation_while_the_files_are_read_loses_and_repeats_nothing(tmp_path: Path, follow: bool) -> None:
    """The names were opened one after the other: the new file was read in place of the old one, and then again."""
    path = tmp_path / "log"
    write(tmp_path / "log.1", "a", "b")
    write(path, "c", "d")
    records = read(str(path), Window(follow=follow))
    seen = [next(records).text]
    (tmp_path / "log.1").rename(tmp_path / "log.2")
    path.rename(tmp_path / "log.1")
    write(path, "e", "f")
    assert seen + texts(records) == ["a", "b", "c", "d", *("ef" if follow else "")]


@pytest.mark.parametrize("tail", [None, 10])
def test_a_gap_in_the_numbers_is_a_rotation_that_goes_on(tmp_path: Path, tail: int | None) -> None:
    path = tmp_path / "log"
    write(tmp_path / "log.2", "a")
    write(path, "b")
    assert texts(read(str(path), Window(tail=tail))) == ["a", "b"]
