"""The container's log file, in docker's json-file format, with rotation. engine.container.logs reads it."""

from __future__ import annotations

import os

try:
    from _json import encode_basestring  # `json` has the same function and loads re and enum: 1.5 MB in each monitor
except ImportError:
    from json.encoder import encode_basestring

from rootless.records.state import timestamp_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.launch import LogPlan

# Bytes of one record, as in docker: a longer line becomes several records, of which only the last ends in a newline.
# An output without any newline would otherwise grow in memory
MAX_RECORD = 16384

# Characters that JSON lets pass raw, and that a terminal may obey or a reader of lines may take for a line's end: DEL,
# the C1 controls, the two Unicode line separators. A container writes what it likes, and users look at the raw file
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


def quote_json(text: str) -> str:
    """`text` as a JSON string whose characters no terminal obeys."""
    quoted = encode_basestring(text)
    return quoted if quoted.isascii() and "\x7f" not in quoted else quoted.translate(_ESCAPED)


class Splitter:
    """Cuts one stream into records: a line with its newline, or MAX_RECORD bytes of a longer one."""

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The records that are complete now; an unfinished line waits for its newline, MAX_RECORD bytes, or `end`."""
        lines = (self.rest + chunk).split(b"\n")
        rest = lines.pop()
        records: list[bytes] = []
        for line in lines:
            if len(line) >= MAX_RECORD:
                parts, line = _cut(line)
                records += parts
            records.append(line + b"\n")
        if len(rest) >= MAX_RECORD:
            parts, rest = _cut(rest)
            records += parts
        self.rest = rest
        return records

    def end(self) -> list[bytes]:
        """The record of the last line, which has no newline, when the stream has ended; empty without one."""
        rest, self.rest = self.rest, b""
        return [rest] if rest else []


def _cut(line: bytes) -> tuple[list[bytes], bytes]:
    """The parts of `line`, of at most MAX_RECORD bytes each and cut between characters of UTF-8, and a shorter rest.

    A record cut inside a character would show two replacement characters. No character has more than 4 bytes, so bytes
    that are no UTF-8 move the cut by 3 at most.
    """
    parts = []
    while len(line) >= MAX_RECORD:
        end = MAX_RECORD
        while end > MAX_RECORD - 4 and end < len(line) and line[end] & 0xC0 == 0x80:
            end -= 1
        parts.append(line[:end])
        line = line[end:]
    return parts, line


class LogFile:
    """Appends records to `path`; at `max_size` bytes (0: never) it becomes `path.1`, at most `max_file` files in all.

    Errors of writing (a full disk) do not stop the container: the records are dropped, and `lost` counts such writes.
    """

    __slots__ = ("_fd", "_size", "lost", "max_file", "max_size", "path")

    def __init__(self, path: str, *, max_size: int = 0, max_file: int = 1) -> None:
        self.path = path
        self.max_size = max_size
        self.max_file = max(max_file, 1)
        self.lost = 0
        self._fd = -1
        self._size = 0
        self._open(0)

    def _open(self, flags: int) -> None:
        flags |= os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, records: list[bytes]) -> None:
        """Append `records` of `stream` ("stdout" or "stderr"), all with the present time."""
        if not records:
            return
        tail = f',"stream":"{stream}","time":"{timestamp_ns()}"}}\n'
        lines = [f'{{"log":{quote_json(record.decode(errors="replace"))}{tail}'.encode() for record in records]
        if not self.max_size:
            self._append(b"".join(lines))
            return
        batch: list[bytes] = []
        size = self._size
        for line in lines:
            if size and size + len(line) > self.max_size:
                self._append(b"".join(batch))
                self._rotate()
                batch, size = [], self._size
            batch.append(line)
            size += len(line)
        self._append(b"".join(batch))

    def _append(self, content: bytes) -> None:
        view = memoryview(content)
        try:
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]
        except OSError:
            self.lost += 1

    def _rotate(self) -> None:
        try:
            if self.max_file == 1:
                os.ftruncate(self._fd, 0)
                self._size = 0
                return
            for number in range(self.max_file - 1, 0, -1):
                older = self.path if number == 1 else f"{self.path}.{number - 1}"
                try:
                    os.rename(older, f"{self.path}.{number}")
                except FileNotFoundError:
                    pass
            full = self._fd
            self._open(os.O_EXCL)
            os.close(full)
        except OSError:
            # Without a new file (a full disk, no descriptor left) the records go on into the old one, by whatever name
            self.lost += 1

    def close(self) -> None:
        """Close the file. What is written afterwards is dropped and counted as lost."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class NoLog:
    """The log of the driver `none`, which keeps nothing."""

    __slots__ = ("lost",)

    def __init__(self) -> None:
        self.lost = 0

    def write(self, stream: str, records: list[bytes]) -> None:
        """Do nothing with the records: nobody will read them."""

    def close(self) -> None:
        """Do nothing: no file is open."""


def open_log(settings: LogPlan) -> LogFile | NoLog:
    """The log that launch.json asks for. Raises OSError when its file cannot be opened."""
    if settings.driver == "none":
        return NoLog()
    return LogFile(settings.path, max_size=settings.max_size, max_file=settings.max_file or 1)
