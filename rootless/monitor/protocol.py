"""The frames between a container's monitor and its clients. It owns encoding only: no sockets, no policy.

A frame is `!BI` (type, payload length, at most 1 MiB) and the payload. The engine's end of fd 3 begins with LAUNCH;
a client of `containers/<id>.sock` begins with ATTACH, or sends SIGNAL frames only. Closing the connection is a detach.
"""

from __future__ import annotations

import struct

from rootless.errors import CommandNotExecutable, CommandNotFound, InvalidInput, RootlessError, RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STDIN = 0  # client to monitor: bytes for the container's standard input
STDOUT = 1  # monitor to client: bytes of standard output, or of the terminal
STDERR = 2
RESIZE = 3  # client to monitor: !HH rows, columns of its terminal
STDIN_EOF = 4  # client to monitor: no more STDIN will come
EXIT = 5  # monitor to client, its last frame: {"exit_code": 0..255}
STARTED = 6  # monitor to client: the container's execve succeeded, or the attach is in place: {"pid": n}
ERROR = 7  # monitor to client: {"message", "hint", "exit_code"}; no EXIT follows
SIGNAL = 8  # client to monitor: !B number of the signal for the container's first process
ATTACH = 9  # client to monitor: {"stdin", "stdout", "stderr": bools, "rows", "cols"}
LAUNCH = 10  # engine to monitor: {"directory": container directory, "attach": an ATTACH payload or null}

HEADER = struct.Struct("!BI")
SIZE = struct.Struct("!HH")
MAX_PAYLOAD = 1 << 20
LAST_TYPE = LAUNCH


def frame(kind: int, payload: bytes = b"") -> bytes:
    """One frame. `payload` may not be longer than MAX_PAYLOAD bytes; `chunks` cuts longer streams."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"payload of {len(payload)} bytes")
    return HEADER.pack(kind, len(payload)) + payload


def message(kind: int, **fields: object) -> bytes:
    """One frame with a JSON object as its payload."""
    import json

    return frame(kind, json.dumps(fields, separators=(",", ":")).encode())


def resize(rows: int, cols: int) -> bytes:
    """A RESIZE frame; sizes a terminal cannot have are cut to 16 bits."""
    return frame(RESIZE, SIZE.pack(min(max(rows, 0), 0xFFFF), min(max(cols, 0), 0xFFFF)))


def fields(payload: bytes) -> dict[str, Any]:
    """The JSON object of a payload. Raises InvalidInput when it is none."""
    import json

    try:
        value = json.loads(payload)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InvalidInput("a frame's payload is not a JSON object")
    return value


def error_message(error: RootlessError) -> bytes:
    """An ERROR frame that `raised` turns back into the same kind of error."""
    return message(ERROR, message=error.message, hint=error.hint, exit_code=error.exit_code)


def raised(payload: bytes) -> RootlessError:
    """The error that an ERROR frame tells of, with its exit code."""
    told = fields(payload)
    code = told.get("exit_code", 125)
    kind = {126: CommandNotExecutable, 127: CommandNotFound}.get(code, RuntimeFailure)
    hint = told.get("hint")
    error = kind(str(told.get("message", "the monitor failed")), hint=str(hint) if hint else None)
    error.exit_code = code if isinstance(code, int) else 125
    return error


class Decoder:
    """Frames out of a byte stream, however the stream is cut.

    Feed it what was read; it holds at most one unfinished frame. A frame of unknown type or excessive length raises
    InvalidInput: the peer is not ours, close the connection.
    """

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, received: bytes) -> list[tuple[int, bytes]]:
        """The frames, (type, payload), that are complete now."""
        buffer = self._buffer
        buffer += received
        complete = []
        start = 0
        while len(buffer) - start >= HEADER.size:
            kind, length = HEADER.unpack_from(buffer, start)
            if kind > LAST_TYPE or length > MAX_PAYLOAD:
                raise InvalidInput(f"not a frame: type {kind}, {length} bytes")
            end = start + HEADER.size + length
            if len(buffer) < end:
                break
            complete.append((kind, bytes(memoryview(buffer)[start + HEADER.size : end])))
            start = end
        if start:
            del buffer[:start]
        return complete
