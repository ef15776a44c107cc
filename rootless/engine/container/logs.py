"""Reads a container's log files: tail, time window, following across rotations. It never writes and never prints."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from itertools import pairwise
from typing import BinaryIO

from rootless.errors import InvalidInput
from rootless.records.fields import Fields, parse_json
from rootless.units import parse_timestamp_ns

_POLL = 0.1  # seconds between looks at a followed file
_BLOCK = 1 << 16
# Bytes of a line. The monitor writes at most 100,000, so that a longer one is damage: a file that lost its line ends
# may not be read into memory as one line
_LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of a log. text: with its newline, unless the line goes on in the next record; time: RFC 3339."""

    text: str
    stream: str
    time: str


@dataclass(frozen=True, slots=True)
class Window:
    """The window of a log: which of its records are wanted.

    since, until: nanoseconds since 1970; tail: at most so many of the last lines; follow: new records after them.
    """

    since: int | None = None
    until: int | None = None
    tail: int | None = None
    follow: bool = False

    def is_before(self, record: LogRecord) -> bool:
        """Whether the record is older than the window."""
        return self.since is not None and _nanoseconds(record.time) < self.since

    def is_after(self, record: LogRecord) -> bool:
        """Whether the record is newer than the window, and so are all that come after it."""
        return self.until is not None and _nanoseconds(record.time) > self.until


def read(
    path: str, window: Window = Window(), *, is_running: Callable[[], bool] = lambda: False
) -> Iterator[LogRecord]:
    """The records of the log at `path` and of its rotated files, oldest first.

    With window.follow new records come after them, also across rotations, until `is_running()` is False and all is
    read; it is called about ten times a second. A log that does not exist (yet) is empty. Damaged lines are skipped,
    however long they are.
    """
    lines, position = _existing(path, window)
    for line in lines:
        record = _parse(line)
        if record is None or window.is_before(record):
            continue
        if window.is_after(record):
            return
        yield record
    if window.follow:
        yield from _follow(path, position, window, is_running)


def _existing(path: str, window: Window) -> tuple[Iterator[bytes] | deque[bytes], tuple[int, int]]:
    """The lines that are in the files now, and (inode, offset) of the end of the newest file."""
    files = _open_files(path)
    position = (0, 0)
    if files:
        status = os.fstat(files[-1].fileno())
        position = (status.st_ino, status.st_size)
    if window.tail is None:
        return _lines(files, position[1]), position
    try:
        return _last_lines(files, window.tail, position[1]), position
    finally:
        for file in files:
            file.close()


def _open_files(path: str) -> list[BinaryIO]:
    """The files of the log, open, oldest first, each once.

    The monitor may rotate them at any time, and a name then means another file: read one after the other by their
    names, a file would be read twice, or not at all. A rotation gives files greater numbers only, so that those of
    smaller numbers are opened first; while it lasts, one number is missing.
    """
    opened: list[BinaryIO] = []
    inodes: set[int] = set()
    number = missing = 0
    while missing < 2:
        try:
            file = open(f"{path}.{number}" if number else path, "rb")
        except FileNotFoundError:
            missing += 1
        else:
            missing = 0
            inode = os.fstat(file.fileno()).st_ino
            if inode in inodes:
                file.close()
            else:
                inodes.add(inode)
                opened.append(file)
        number += 1
    opened.reverse()
    return opened


def _files(path: str) -> list[str]:
    """The files of the log, oldest first."""
    names = [path]
    number = 1
    while os.path.exists(f"{path}.{number}"):
        names.append(f"{path}.{number}")
        number += 1
    names.reverse()
    return names


def _lines(files: list[BinaryIO], size: int) -> Iterator[bytes]:
    """The lines of the files, and of the newest its first `size` bytes: `_follow` goes on from there."""
    try:
        for file in files:
            left = size if file is files[-1] else None
            while line := file.readline(_LONGEST):
                if left is not None:
                    left -= len(line)
                    if left < 0:
                        break
                yield line
    finally:
        for file in files:
            file.close()


def _last_lines(files: list[BinaryIO], wanted: int, size: int) -> deque[bytes]:
    """The last `wanted` lines, read backwards block by block, in the older files as far as needed.

    size: of the newest file. As with docker the times of the window are applied to these lines, and fewer may be shown.
    """
    kept: deque[bytes] = deque()
    for file in reversed(files):
        end = size if file is files[-1] else os.fstat(file.fileno()).st_size
        rest = b""
        while end and len(kept) < wanted:
            start = max(end - _BLOCK, 0)
            file.seek(start)
            pieces = (file.read(end - start) + rest).split(b"\n")
            rest = pieces.pop(0) if start else b""
            if len(rest) > _LONGEST:
                rest = b""
            end = start
            for line in reversed(pieces):
                if line and len(kept) < wanted:
                    kept.appendleft(line)
        if len(kept) >= wanted:
            break
    return kept


def _follow(
    path: str, position: tuple[int, int], window: Window, is_running: Callable[[], bool]
) -> Iterator[LogRecord]:
    """New records after `position`, across rotation (another inode) and truncation, until the container has ended."""
    inode, offset = position
    file = None
    rest = b""
    last_look = has_moved = False
    try:
        while True:
            if file is None:
                file, offset = _reopen(path, inode, offset)
            progressed = False
            if file is not None:
                if os.fstat(file.fileno()).st_size < offset:
                    offset, rest = 0, b""  # With max-file=1 the monitor truncates the file where it would rotate it
                file.seek(offset)
                while chunk := file.read(_BLOCK):
                    progressed = True
                    offset += len(chunk)
                    pieces = (rest + chunk).split(b"\n")
                    rest = pieces.pop()
                    if len(rest) > _LONGEST:
                        rest = b""
                    for line in pieces:
                        record = _parse(line)
                        if record is None or window.is_before(record):
                            continue
                        if window.is_after(record):
                            return
                        yield record
                if not progressed and _has_moved(path, file.fileno()):
                    if not has_moved:
                        has_moved = True  # Read this file once more, for what came between our read and the rotation
                        continue
                    newer = _successor(path, file.fileno())
                    file.close()
                    file, inode, offset, rest, has_moved = newer, 0, 0, b"", False
                    continue
            if progressed:
                continue
            if last_look or (window.until is not None and time.time_ns() > window.until):
                return
            if not is_running():
                last_look = True  # Read once more, for what was written between our read and the container's end
                continue
            time.sleep(_POLL)
    finally:
        if file is not None:
            file.close()


def _reopen(path: str, inode: int, offset: int) -> tuple[FileIO | None, int]:
    """The file to go on reading, and the offset in it; None while there is no log.

    The file with `inode` may have been rotated since, also more than once, so that it is looked for under all names. If
    it is no longer kept, reading goes on with the oldest one.
    """
    names = _files(path)
    if inode:
        for name in names:
            try:
                file = FileIO(name)
            except FileNotFoundError:
                continue
            if os.fstat(file.fileno()).st_ino == inode:
                return file, offset
            file.close()
    try:
        return FileIO(names[0] if inode else path), 0
    except FileNotFoundError:
        return None, 0


def _successor(path: str, fd: int) -> FileIO | None:
    """The file that the monitor began after the rotated one of `fd`; None while there is no log.

    Several rotations may have happened since, so that it need not be the newest: records between would be lost.
    """
    inode = os.fstat(fd).st_ino
    for _ in range(20):
        for name, newer in pairwise(_files(path)):  # each file with the one begun after it
            try:
                file = FileIO(newer)
                if os.stat(name).st_ino == inode:
                    return file
                file.close()
            except FileNotFoundError:
                break
        # The monitor rotates right now, one name after another, and there is a gap between them; or the file of `fd` is
        # no longer kept, which the last try after this loop is for
        time.sleep(0.001)
    try:
        return FileIO(_files(path)[0])
    except FileNotFoundError:
        return None


def _has_moved(path: str, fd: int) -> bool:
    try:
        return os.stat(path).st_ino != os.fstat(fd).st_ino
    except FileNotFoundError:
        return False  # The monitor is between two renames of a rotation, or the container is being removed


def _parse(line: bytes) -> LogRecord | None:
    try:
        fields = Fields(parse_json(line), "log")
        return LogRecord(fields.text("log"), fields.text("stream", "stdout"), fields.text("time", ""))
    except (ValueError, InvalidInput):
        return None  # A full disk or a kill of the monitor has cut the line short


def _nanoseconds(stamp: str) -> int:
    """The time of a record in nanoseconds since the epoch; 0 where the log does not say it."""
    try:
        return parse_timestamp_ns(stamp)
    except ValueError:
        return 0
