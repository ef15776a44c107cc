"""The frames between a container's monitor and its clients: their encoding alone, no sockets and no policy.

A frame is `!BI` (type, payload length, at most 1 MiB) and the payload. The engine's end of fd 3 begins with LAUNCH;
a client of `containers/<id>.sock` begins with ATTACH, or sends SIGNAL frames only. Closing the connection is a detach.
Both ends of that socket ask the kernel which user the other end is (`peer_uid`) before they send or believe a frame: a
socket that another user has put in that place would get what the user types.
"""

from __future__ import annotations

import _socket  # `socket` itself loads enum and selectors, 1 MB in each idle monitor
import struct

from rootless.errors import CommandNotExecutable, CommandNotFound, InvalidInput, RootlessError, RuntimeFailure
from rootless.records.fields import Fields, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.membership import Attachment

STDIN = 0  # client to monitor: bytes for the container's standard input
STDOUT = 1  # monitor to client: bytes of standard output, or of the terminal
STDERR = 2  # monitor to client: bytes of standard error, which a terminal does not have
RESIZE = 3  # client to monitor: !HH rows, columns of its terminal
STDIN_EOF = 4  # client to monitor: no more STDIN will come
EXIT = 5  # monitor to client, its last frame: an ExitNotice
STARTED = 6  # monitor to client: the container's execve succeeded, or the attach is in place: a StartNotice
ERROR = 7  # monitor to client: an ErrorNotice; no EXIT follows
SIGNAL = 8  # client to monitor: !B number of the signal for the container's first process
ATTACH = 9  # client to monitor: an AttachRequest
LAUNCH = 10  # engine to monitor: a LaunchRequest
NETWORK = 11  # client to monitor: a NetworkRequest, which STARTED or ERROR answers

HEADER = struct.Struct("!BI")
SIZE = struct.Struct("!HH")
MAX_PAYLOAD = 1 << 20
LAST_TYPE = NETWORK
_UCRED = struct.Struct("3i")  # pid, uid, gid


def peer_uid(connection: _socket.socket) -> int:
    """The user who called connect(2) or listen(2) at the other end of a unix socket (unix(7), SO_PEERCRED)."""
    uid: int = _UCRED.unpack(connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size))[1]
    return uid


def encode_frame(kind: int, payload: bytes = b"") -> bytes:
    """One frame. `payload` may not be longer than MAX_PAYLOAD bytes; `chunks` cuts longer streams."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"payload of {len(payload)} bytes")
    return HEADER.pack(kind, len(payload)) + payload


class AttachRequest:
    """The payload of ATTACH: the streams that a client wants, and the size of its terminal (0, 0: it has none)."""

    __slots__ = ("size", "stderr", "stdin", "stdout")

    def __init__(self, *, stdin: bool, stdout: bool, stderr: bool, size: tuple[int, int] = (0, 0)) -> None:
        """size: rows and columns."""
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.size = size

    def to_json(self) -> dict[str, object]:
        """The members of the frame's payload."""
        streams = {"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr}
        return {**streams, "rows": self.size[0], "cols": self.size[1]}

    @classmethod
    def from_json(cls, fields: Fields) -> AttachRequest:
        """The reverse of `to_json`; raises InvalidInput for a member of a wrong type."""
        return cls(
            stdin=fields.flag("stdin"),
            stdout=fields.flag("stdout"),
            stderr=fields.flag("stderr"),
            size=(fields.integer("rows", 0), fields.integer("cols", 0)),
        )


class LaunchRequest:
    """The payload of LAUNCH: the directory of the container, and what the engine wants to be attached to."""

    __slots__ = ("attach", "directory")

    def __init__(self, directory: str, attach: AttachRequest | None = None) -> None:
        self.directory = directory
        self.attach = attach

    def to_json(self) -> dict[str, object]:
        """The members of the frame's payload."""
        return {"directory": self.directory, "attach": None if self.attach is None else self.attach.to_json()}

    @classmethod
    def from_json(cls, fields: Fields) -> LaunchRequest:
        """The reverse of `to_json`; raises InvalidInput for a member that is missing or of a wrong type."""
        attach = fields.member("attach")
        return cls(fields.text("directory"), None if attach is None else AttachRequest.from_json(attach))


class NetworkRequest:
    """The payload of NETWORK: the container goes on a network with a name, or leaves one.

    attach: how it is attached to the former, None for the latter; detach: id of the latter, "" for the former.
    """

    __slots__ = ("attach", "detach")

    def __init__(self, attach: Attachment | None, detach: str = "") -> None:
        self.attach = attach
        self.detach = detach

    def to_json(self) -> dict[str, object]:
        """The members of the frame's payload."""
        return {"attach": None if self.attach is None else self.attach.to_json(), "detach": self.detach}

    @classmethod
    def from_json(cls, fields: Fields) -> NetworkRequest:
        """The reverse of `to_json`; raises InvalidInput for a member that is missing or of a wrong type."""
        from rootless.records.membership import Attachment

        attach = fields.member("attach")
        return cls(None if attach is None else Attachment.from_json(attach), fields.text("detach", ""))


class StartNotice:
    """The payload of STARTED: the pid of the container's first process, and lines that the user shall see."""

    __slots__ = ("pid", "warnings")

    def __init__(self, pid: int, warnings: list[str] | None = None) -> None:
        self.pid = pid
        self.warnings = warnings or []

    def to_json(self) -> dict[str, object]:
        """The members of the frame's payload."""
        return {"pid": self.pid, "warnings": self.warnings}

    @classmethod
    def from_json(cls, fields: Fields) -> StartNotice:
        """The reverse of `to_json`; raises InvalidInput for a member of a wrong type."""
        return cls(fields.integer("pid", 0), fields.texts("warnings"))


class ExitNotice:
    """The payload of EXIT: the exit status of the container's first process, 0 to 255."""

    __slots__ = ("exit_code",)

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code

    def to_json(self) -> dict[str, object]:
        """The members of the frame's payload."""
        return {"exit_code": self.exit_code}

    @classmethod
    def from_json(cls, fields: Fields) -> ExitNotice:
        """The reverse of `to_json`; raises InvalidInput for a member that is missing or of a wrong type."""
        return cls(fields.integer("exit_code"))


class ErrorNotice:
    """The payload of ERROR: why the container could not be started or served."""

    __slots__ = ("exit_code", "hint", "message")

    def __init__(self, message: str, hint: str | None = None, exit_code: int = 125) -> None:
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def to_json(self) -> dict[str, object]:
        """The members of the frame's payload."""
        return {"message": self.message, "hint": self.hint, "exit_code": self.exit_code}

    @classmethod
    def from_json(cls, fields: Fields) -> ErrorNotice:
        """The reverse of `to_json`; raises InvalidInput for a member of a wrong type."""
        message = fields.text("message", "the monitor failed")
        return cls(message, fields.optional_text("hint"), fields.integer("exit_code", 125))

    def error(self) -> RootlessError:
        """The error that the notice describes, for the caller to raise; its class follows from the exit code."""
        kind = {126: CommandNotExecutable, 127: CommandNotFound}.get(self.exit_code, RuntimeFailure)
        error = kind(self.message, hint=self.hint)
        error.exit_code = self.exit_code
        return error


def encode_message(
    notice: AttachRequest | LaunchRequest | NetworkRequest | StartNotice | ExitNotice | ErrorNotice,
) -> bytes:
    """The frame whose payload `notice` is."""
    import json

    return encode_frame(_TYPES[type(notice)], json.dumps(notice.to_json(), separators=(",", ":")).encode())


_TYPES: dict[type, int] = {
    AttachRequest: ATTACH,
    LaunchRequest: LAUNCH,
    NetworkRequest: NETWORK,
    StartNotice: STARTED,
    ExitNotice: EXIT,
    ErrorNotice: ERROR,
}


def encode_resize(rows: int, cols: int) -> bytes:
    """A RESIZE frame; sizes a terminal cannot have are cut to 16 bits."""
    return encode_frame(RESIZE, SIZE.pack(min(max(rows, 0), 0xFFFF), min(max(cols, 0), 0xFFFF)))


def read_payload(payload: bytes) -> Fields:
    """The members of a payload that is a JSON object. Raises InvalidInput when the payload is none."""
    try:
        value = parse_json(payload)
    except ValueError:
        value = None
    return Fields(value, "a frame's payload")


def error_message(error: RootlessError) -> bytes:
    """An ERROR frame that `ErrorNotice.error` turns back into the same kind of error."""
    return encode_message(ErrorNotice(error.message, error.hint, error.exit_code))


class Decoder:
    """Frames out of a byte stream, however the stream is cut.

    The decoder is fed what was read, and holds at most one unfinished frame, of at most MAX_PAYLOAD bytes: a peer
    cannot make it grow. A frame of unknown type or excessive length raises InvalidInput, after which no frame can be
    found in the stream any more: the connection is to be closed.
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
