"""Starts unpack_worker and writes a job and its archive to it. It opens no archive itself.

Work on layers needs a process of its own: only a process with a single thread may enter a user namespace, the process
changes its root to the layer's directory, and it uses another core while this process reads from the network.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct

from rootless.errors import HostLimit
from rootless.host.answer import decode_answer, parse_object, write_all
from rootless.host.answer import read_answer as read_bytes
from rootless.host.interpreter import worker_command
from rootless.storage.layers.jobs import RebuildJob
from rootless.storage.worker_jobs import job_message, read_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from rootless.image.decompress import ByteSource
    from rootless.records.id_map import IdMap
    from rootless.storage.worker_jobs import Job

    _Answer = TypeVar("_Answer")

PIECE = 1 << 18
PIPE_SIZE = 1 << 20
_OUT = 3  # the worker's descriptor for a rebuilt tar
# Else glibc maps and unmaps the memory of each 1 MiB piece anew, which took a fifth of the time of an unpacking
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "67108864", "MALLOC_TRIM_THRESHOLD_": "134217728"}


def run_job(
    job: Job[_Answer],
    id_map: IdMap,
    *,
    stream: ByteSource | None = None,
    progress: Callable[[int], None] | None = None,
) -> _Answer:
    """Do `job` in a worker inside a user namespace of `id_map`, and return its answer. Any thread may call it.

    stream: what the worker reads after the job; progress: called with the number of bytes of each piece of it. The
    worker's error is raised here; an error of `stream` ends the worker and is raised as it is.
    """
    content, pid, feed, answer = _spawn(job, id_map)
    try:
        try:
            write_all(feed, content)
            if stream is not None:
                while piece := stream.read(PIECE):
                    if progress is not None:
                        progress(len(piece))
                    write_all(feed, piece)
            os.close(feed)
            feed = -1
        except BrokenPipeError:
            pass  # the worker has given up reading, and its answer says why
        except BaseException:
            os.kill(pid, 9)
            raise
        finally:
            if feed >= 0:
                os.close(feed)
        return _read(job, read_bytes(answer))
    finally:
        os.close(answer)
        os.waitpid(pid, 0)


class Rebuilt:
    """A reader of the tars of several layers, one after the other, as a worker makes them again.

    directories: the layers' directories, which lie in one directory. The worker's error is raised by `read`.
    """

    __slots__ = ("_answer", "_job", "_pid", "_pipe")

    def __init__(self, directories: Sequence[str], id_map: IdMap) -> None:
        self._pipe, out = os.pipe()
        _widen(out)
        names = [os.path.basename(directory) for directory in directories]
        self._job = RebuildJob(os.path.dirname(directories[0]), names, _OUT)
        try:
            content, self._pid, feed, self._answer = _spawn(self._job, id_map, out)
        finally:
            os.close(out)
        try:
            write_all(feed, content)
        except BrokenPipeError:
            pass  # the worker has given up, and its answer says why
        finally:
            os.close(feed)

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, empty at the end. Raises InvalidInput (the tree or the recipe is damaged)."""
        if self._pid < 0:
            return b""
        piece = os.read(self._pipe, size if size >= 0 else PIPE_SIZE)
        if not piece and size:
            pid, self._pid = self._pid, -1
            answer = read_bytes(self._answer)
            self._end(pid)
            _read(self._job, answer)
        return piece

    def close(self) -> None:
        """Kill the worker if it still runs."""
        if self._pid >= 0:
            pid, self._pid = self._pid, -1
            os.kill(pid, 9)
            self._end(pid)

    def _end(self, pid: int) -> None:
        os.close(self._pipe)
        os.close(self._answer)
        os.waitpid(pid, 0)


def drain_stream(stream: ByteSource, progress: Callable[[int], None] | None) -> None:
    """Read the stream of a layer that is here already to its end: whoever hashes it on the way must get all bytes."""
    while piece := stream.read(PIECE):
        if progress is not None:
            progress(len(piece))


def _spawn(job: Job[object], id_map: IdMap, out: int = -1) -> tuple[bytes, int, int, int]:
    """Start a worker. Returns the bytes of the job, which are still to be written to it; its pid; the pipe to it; the
    pipe from it. out: becomes the worker's descriptor _OUT."""
    content = json.dumps({**job_message(job), "id_map": id_map.to_json()}).encode()
    stdin, feed = os.pipe()
    answer, stdout = os.pipe()
    _widen(feed)
    argv = worker_command("rootless.storage.layers.unpack_worker", site_packages=True)
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    if out >= 0:
        actions.append((os.POSIX_SPAWN_DUP2, out, _OUT))
    environment = {"PATH": os.environ.get("PATH", os.defpath), **_MALLOC}
    try:
        # setpgroup: see `worker_command`
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions, setpgroup=0)
    finally:
        os.close(stdin)
        os.close(stdout)
    return struct.pack("!I", len(content)) + content, pid, feed, answer


def _widen(pipe: int) -> None:
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        pass  # the user's pipes have reached /proc/sys/fs/pipe-user-pages-soft: a smaller pipe is only slower


def _read(job: Job[_Answer], answer: bytes) -> _Answer:
    """The answer to `job`, or the worker's error, raised. Raises RuntimeFailure for what is neither."""
    lost = HostLimit("the unpacking process ended without an answer", hint="is memory short?")
    return read_answer(job, parse_object(decode_answer(answer, lost)))
