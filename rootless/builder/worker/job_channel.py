"""How jobs and answers go between a build and its worker over a stream socket.

A message is its length (32 bits, network order) and as many bytes of JSON. Descriptors travel beside the length
(SCM_RIGHTS). A job that fails is answered with its error (host.answer).
"""

from __future__ import annotations

import json
import os
import socket
import struct

from rootless.builder.worker.step_jobs import STEP_JOB_READERS
from rootless.errors import HostLimit
from rootless.host.answer import LIMIT, parse_object
from rootless.records.fields import Fields
from rootless.storage.worker_jobs import job_message, read_job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.builder.worker.file_jobs import FileJob
    from rootless.builder.worker.step_jobs import StepJob
    from rootless.storage.worker_jobs import Job

    AnyJob = StepJob | FileJob

_HEAD = struct.Struct("!I")
_FDS = 16  # the most descriptors of one message; the kernel closes those for which the receiver leaves no room


def send_job(connection: socket.socket, job: Job[object], fds: Sequence[int] = ()) -> None:
    """Give a worker one job, and duplicates of `fds`. Raises OSError when the worker is gone."""
    _send(connection, job_message(job), fds)


def receive_job(connection: socket.socket) -> tuple[AnyJob | None, list[int]]:
    """The next job and its fds, read in a worker; the job is None when the build is gone.

    Raises InvalidInput for a message that is no job.
    """
    message, fds = _receive(connection)
    if message is None:
        return None, fds
    fields = Fields(message, "the worker's job")
    if fields.text("operation") in STEP_JOB_READERS:
        return read_job(fields, STEP_JOB_READERS), fds
    from rootless.builder.worker.file_jobs import FILE_JOB_READERS

    return read_job(fields, FILE_JOB_READERS), fds


def send_answer(connection: socket.socket, answer: dict[str, object]) -> None:
    """Tell the build how a job ended: {"result": …} or {"error": …}. Raises OSError when the build is gone."""
    _send(connection, answer)


def receive_answer(connection: socket.socket) -> dict[str, object] | None:
    """The answer that `send_answer` sent, read in the build; None when the worker is gone. Its fds are closed."""
    message, fds = _receive(connection)
    for fd in fds:
        os.close(fd)
    return message


def _send(connection: socket.socket, message: dict[str, object], fds: Sequence[int] = ()) -> None:
    payload = json.dumps(message).encode()
    if fds:
        socket.send_fds(connection, [_HEAD.pack(len(payload))], list(fds))
    else:
        connection.sendall(_HEAD.pack(len(payload)))
    connection.sendall(payload)


def _receive(connection: socket.socket) -> tuple[dict[str, object] | None, list[int]]:
    try:
        head, fds, _, _ = socket.recv_fds(connection, _HEAD.size, _FDS)
    except ConnectionResetError:
        return None, []
    for fd in fds:
        os.set_inheritable(fd, False)
    if head and len(head) < _HEAD.size:
        head += _exactly(connection, _HEAD.size - len(head))
    if len(head) < _HEAD.size:
        return None, fds
    (length,) = _HEAD.unpack(head)
    if length > LIMIT:
        raise HostLimit(f"a message of a build's worker is too long ({length} bytes)")
    payload = _exactly(connection, length)
    if len(payload) < length:
        return None, fds
    return parse_object(payload), fds


def _exactly(connection: socket.socket, length: int) -> bytes:
    pieces = []
    while length:
        piece = connection.recv(min(length, 1 << 20))
        if not piece:
            break
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
