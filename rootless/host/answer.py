"""What a child process tells its caller over a pipe or socket: a result, or an error that is raised again here.

An answer is one byte and what follows: `+` and the result as bytes, or `-` and the error as JSON. Where messages have
a frame of their own, `error_to_json` and `error_from_json` serve alone. An error keeps class, message, hint and exit
status. What arrives is not trusted: a container may have taken over the process that wrote it. So an answer has a
bound, only classes of rootless.errors are made from it, and everything else in it becomes RuntimeFailure.
"""

from __future__ import annotations

import os

from rootless import errors
from rootless.errors import HostLimit, RootlessError, RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

LIMIT = 64 << 20
"""Bytes of one answer: the list of a large layer's entries stays far below."""

_MALFORMED = "a child process answered what is not an answer"


def error_to_json(error: BaseException) -> dict[str, str | int | None]:
    """What `error_from_json` needs to make `error` again: of a RootlessError class, message, hint and exit status, of
    an OSError number, text and file name. Of any other exception, a fault of ours, the trace becomes the message.

    A class that rootless.errors does not have goes as the nearest of its parents there.
    """
    if isinstance(error, RootlessError):
        kind = next(parent for parent in type(error).__mro__ if getattr(errors, parent.__name__, None) is parent)
        value = {"class": kind.__name__, "message": error.message, "hint": error.hint}
        return value if error.exit_code == kind.exit_code else {**value, "exit_code": error.exit_code}
    if isinstance(error, OSError):
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else None
        return {"errno": error.errno, "strerror": error.strerror, "filename": name}
    import traceback

    return {"class": "RootlessError", "message": "".join(traceback.format_exception(error)).strip(), "hint": None}


def error_from_json(value: object) -> RootlessError | OSError:
    """The exception that `error_to_json` described, to be raised; RuntimeFailure for what it cannot have written."""
    if not isinstance(value, dict):
        return RuntimeFailure(_MALFORMED)
    if "errno" in value:
        number, text, name = value["errno"], value.get("strerror"), value.get("filename")
        if isinstance(number, int) and isinstance(text, str) and isinstance(name, str | None):
            return OSError(number, text, name)
        return OSError(text) if number is None and isinstance(text, str) else RuntimeFailure(_MALFORMED)
    word, message, hint = value.get("class"), value.get("message"), value.get("hint")
    if not isinstance(message, str) or not isinstance(hint, str | None):
        return RuntimeFailure(_MALFORMED)
    kind = getattr(errors, word, None) if isinstance(word, str) else None
    is_ours = isinstance(kind, type) and issubclass(kind, RootlessError)
    error: RootlessError = (
        kind(message, hint=hint) if is_ours and kind is not None else RuntimeFailure(message, hint=hint)
    )
    status = value.get("exit_code")
    if isinstance(status, int) and 0 < status < 256:  # a failure never becomes a success
        error.exit_code = status
    return error


def parse_object(content: bytes) -> dict[str, object]:
    """The JSON object in a message of a child process. Raises RuntimeFailure."""
    from rootless.records.fields import parse_json

    try:
        value = parse_json(content)
    except ValueError:
        raise RuntimeFailure(_MALFORMED) from None
    if not isinstance(value, dict):
        raise RuntimeFailure(_MALFORMED)
    return value


def encode_error(error: BaseException) -> bytes:
    """The bytes of the answer of a child that failed with `error`."""
    import json

    return b"-" + json.dumps(error_to_json(error)).encode()


def encode_result(result: bytes) -> bytes:
    """The bytes of the answer of a child that succeeded with `result`."""
    return b"+" + result


def decode_answer(answer: bytes, lost: RootlessError | None = None) -> bytes:
    """The result in an answer; its error is raised. lost: raised when there is no answer (default: a HostLimit)."""
    if answer[:1] == b"+":
        return answer[1:]
    if not answer:
        raise lost or HostLimit("a child process was killed before it could answer")
    if answer[:1] != b"-":
        raise RuntimeFailure(_MALFORMED)
    raise error_from_json(parse_object(answer[1:]))


def write_all(fd: int, content: bytes) -> None:
    """Write all of `content`, whatever a pipe takes at a time."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def read_answer(fd: int) -> bytes:
    """All bytes to the end of the pipe `fd`, for `decode_answer`. Raises HostLimit above LIMIT."""
    pieces = []
    size = 0
    while piece := os.read(fd, 1 << 16):
        pieces.append(piece)
        size += len(piece)
        if size > LIMIT:
            raise HostLimit(f"the answer of a child process is longer than {LIMIT} bytes")
    return b"".join(pieces)


def fork_with_answer(function: Callable[[], bytes]) -> tuple[int, int]:
    """Run `function` in a forked child: (its pid, the end of a pipe from which its answer is read). To be waited for.

    Not for a process with threads: the child has only the thread that forked, and a lock which another thread held
    stays locked in it for ever (fork(2)).
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        end_with_answer(write_end, function)
    os.close(write_end)
    return child, read_end


def fork_and_read(function: Callable[[], bytes]) -> bytes:
    """Run `function` in a forked child and return its result; its error, or its death by a signal, is raised here.

    Not for a process with threads, as `fork_with_answer` says.
    """
    child, read_end = fork_with_answer(function)
    try:
        return decode_answer(read_answer(read_end))
    finally:
        os.close(read_end)
        os.waitpid(child, 0)


def end_with_answer(fd: int, function: Callable[[], bytes]) -> NoReturn:
    """Spend the whole life of a forked child: run `function`, write its result or error to `fd`, and exit."""
    status = 1
    try:
        try:
            answer = encode_result(function())
            status = 0
        except BaseException as e:
            answer = encode_error(e)
        write_all(fd, answer)
    finally:
        # os._exit, since sys.exit would run the parent's atexit functions and `finally` blocks a second time here, and
        # write out what the parent has in its buffers
        os._exit(status)
