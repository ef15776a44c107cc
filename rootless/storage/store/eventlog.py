"""The log of events: a file of bounded size to which every command and monitor appends. Writing to it never fails.

Each line is one JSON object. A file that has reached MAX_SIZE is renamed to `events.log.1` and replaces the earlier one
of that name, so that the last 1 to 2 MiB of events are kept. Appending and renaming happen under a lock: lines of
different processes do not mix, and none is written into a file that was just renamed.
"""

from __future__ import annotations

import os
import time

from rootless.errors import InvalidInput
from rootless.paths import Lock
from rootless.records.fields import Fields, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SIZE = 1 << 20
_MAX_LINE = 16384  # bytes
_MAX_ACTION = 4096  # characters; the action of an exec event holds the whole command


class EventEntry:
    """One event. kind: container, image, volume, ...; action: docker's word for what happened; id: the object's id;
    nanoseconds: since the epoch, now by default."""

    __slots__ = ("action", "attributes", "id", "kind", "nanoseconds")

    def __init__(
        self, kind: str, action: str, id: str, attributes: dict[str, str] | None = None, nanoseconds: int | None = None
    ) -> None:
        self.kind = kind
        self.action = action
        self.id = id
        self.attributes = attributes or {}
        self.nanoseconds = time.time_ns() if nanoseconds is None else nanoseconds

    def document(self) -> dict[str, object]:
        """The event as docker's API gives it. Events of containers have three more members, by which older clients read
        them."""
        older = {"status": self.action, "id": self.id, "from": self.attributes.get("image", "")}
        return {**(older if self.kind == "container" else {}), **self.to_json()}

    def to_json(self) -> dict[str, object]:
        """The event as a line of the log, which has the members of docker's events."""
        return {
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": self.attributes},
            "scope": "local",
            "time": self.nanoseconds // 1_000_000_000,
            "timeNano": self.nanoseconds,
        }


def append_event(path: str, entry: EventEntry) -> None:
    """Append one event. When that is impossible the event is dropped: a command must not fail for its log."""
    import json

    line = json.dumps(entry.to_json(), separators=(",", ":")).encode() + b"\n"
    if len(line) > _MAX_LINE:
        entry.attributes = {"truncated": "true"}  # the labels of an image are among them, and have no bound
        entry.action = entry.action[:_MAX_ACTION]
        line = json.dumps(entry.to_json(), separators=(",", ":")).encode() + b"\n"
    try:
        with Lock(f"{path}.lock"):
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                size = os.fstat(fd).st_size
                if size + len(line) > MAX_SIZE:
                    os.rename(path, f"{path}.1")
                    os.close(fd)
                    fd = -1
                    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                    size = 0
                if os.write(fd, line) < len(line):
                    os.ftruncate(fd, size)  # the disk is full: the next line would be joined to this half of one
            finally:
                if fd >= 0:
                    os.close(fd)
    except OSError:
        pass


class EventReader:
    """Reads a log from its beginning, and then what is appended, also when the file is renamed meanwhile."""

    __slots__ = ("_file", "_has_begun", "_path", "_rest")

    def __init__(self, path: str) -> None:
        self._path = path
        self._rest = b""
        self._file: int = -1
        self._has_begun = False

    def entries(self, *, older: bool = True) -> Iterator[EventEntry]:
        """The events that are new since the last call. older: whether the first call begins with `events.log.1`."""
        if not self._has_begun:
            # Only once: on a full disk the log may be missing for a while, and a later call would read the older file
            self._has_begun = True
            self._open()
            if older:
                yield from self._older()
        while True:
            if self._file < 0:
                self._open()
            if self._file < 0:
                return
            yield from self._new()
            if not self._is_turned_over():
                return
            yield from self._new()  # lines that were appended between the last read and the renaming
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            pass

    def _older(self) -> Iterator[EventEntry]:
        """The events of `events.log.1`, unless that is the file which this reader has opened under its first name."""
        try:
            fd = os.open(f"{self._path}.1", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return
        with open(fd, "rb") as file:
            if self._file >= 0 and os.path.sameopenfile(fd, self._file):
                return
            lines = file.read(2 * MAX_SIZE).split(b"\n")
        for line in lines:
            if (entry := parse_event(line)) is not None:
                yield entry

    def _new(self) -> Iterator[EventEntry]:
        while chunk := os.read(self._file, 1 << 16):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                if (entry := parse_event(line)) is not None:
                    yield entry

    def _is_turned_over(self) -> bool:
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        here = os.fstat(self._file)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def close(self) -> None:
        """Close the file that is read."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def parse_event(line: bytes) -> EventEntry | None:
    """The event in one line; None for an empty or damaged line."""
    try:
        fields = Fields(parse_json(line), "event")
        actor = fields.require_member("Actor")
        attributes = {key: str(text) for key, text in actor.mapping("Attributes").items()}
        return EventEntry(
            fields.text("Type"), fields.text("Action"), actor.text("ID"), attributes, fields.integer("timeNano")
        )
    except (ValueError, InvalidInput):
        return None
