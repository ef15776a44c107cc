"""The build's end of its worker processes: starts them, gives them jobs, reads a step's output.

The build has a thread for each stage, and a process with threads must not fork without executing: the child would have
locks that nobody releases. So workers are started by posix_spawn(3), and it is they, with one thread each, who fork.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Sequence

from rootless.builder.worker import job_channel
from rootless.errors import HostLimit
from rootless.host.answer import error_from_json
from rootless.host.interpreter import worker_command
from rootless.storage.worker_jobs import read_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from rootless.builder.worker.step_jobs import RunAnswer, RunJob
    from rootless.storage.worker_jobs import Job

    Answer = TypeVar("Answer")

_CHUNK = 65536
_PATIENCE = 3.0  # seconds that a worker has to end what it runs, before it is killed


class Worker:
    """One worker process. It ends, with what it runs, when `close` is called or this process ends.

    Raises HostLimit when the process cannot be started.
    """

    __slots__ = ("_pid", "_socket")

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        argv = worker_command("rootless.builder.worker.worker", site_packages=True)
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        for name in ("ROOTLESS_NO_OPENAT2", "ROOTLESS_NO_MOUNT_API"):
            if name in os.environ:
                environment[name] = os.environ[name]
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3), (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        try:
            # setpgroup keeps Ctrl-C at the terminal from a worker that still imports (`worker_command`)
            self._pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions, setpgroup=0)
        except OSError as e:
            raise HostLimit(f"cannot start a worker of the build: {e.strerror}") from e
        finally:
            theirs.close()

    def call(self, job: Job[Answer], fds: Sequence[int] = ()) -> Answer:
        """Have a job done, which gets duplicates of `fds`, and return its answer.

        Raises the error that the worker met, HostLimit when the worker ended without an answer.
        """
        self._send(job, fds)
        return read_answer(job, self._answer())

    def run(self, job: RunJob, output: Callable[[bytes], None]) -> RunAnswer:
        """Have the command of a RUN job carried out, and return how it ended. Raises as `call` does.

        output: gets what the command writes, in pieces that end anywhere.
        """
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                self._send(job, [write])
            finally:
                os.close(write)
            return read_answer(job, self._follow(read, output))
        finally:
            os.close(read)

    def _follow(self, read: int, output: Callable[[bytes], None]) -> object:
        poll = select.poll()
        poll.register(read, select.POLLIN)
        poll.register(self._socket, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if read in ready:
                piece = os.read(read, _CHUNK)
                if piece:
                    output(piece)
                    continue
                poll.unregister(read)
            if self._socket.fileno() in ready:
                result = self._answer()
                # The command and all that it started have ended before the worker answers, so their last output is in
                # the pipe already. Its other end may still be open in the worker: without O_NONBLOCK the last read
                # would wait for ever.
                os.set_blocking(read, False)
                try:
                    while piece := os.read(read, _CHUNK):
                        output(piece)
                except BlockingIOError:
                    pass
                return result

    def _send(self, job: Job[object], fds: Sequence[int]) -> None:
        try:
            job_channel.send_job(self._socket, job, fds)
        except OSError as e:
            raise _lost() from e

    def _answer(self) -> object:
        message = job_channel.receive_answer(self._socket)
        if message is None:
            raise _lost()
        if "error" in message:
            raise error_from_json(message["error"])
        return message.get("result")

    def close(self) -> None:
        """End the worker, and wait until it has gone; the command that it ran is gone then, too."""
        try:
            # shutdown and not close: another thread may wait in recv(2) for this worker's answer, which keeps the
            # socket open. Only shutdown wakes that thread, and lets the worker see the end.
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        try:
            fd = os.pidfd_open(self._pid)
            try:
                if not select.select([fd], [], [], _PATIENCE)[0]:
                    os.kill(self._pid, signal.SIGKILL)  # it is in the middle of a copy; PDEATHSIG ends its children
            finally:
                os.close(fd)
            os.waitpid(self._pid, 0)
        except (ChildProcessError, ProcessLookupError):
            pass


class Workers:
    """The workers of one build, as many as it has had steps at a time. A step takes an idle one, from any thread."""

    __slots__ = ("_all", "_closed", "_idle", "_lock")

    def __init__(self) -> None:
        self._idle: list[Worker] = []
        self._all: list[Worker] = []
        self._lock = threading.Lock()
        self._closed = False

    def prepare(self) -> None:
        """Start a worker if there is none, so that it loads its modules while the first step is planned."""
        with self._lock:
            if not self._all:
                self._all.append(Worker())
                self._idle.append(self._all[0])

    def take(self) -> Worker:
        """A worker that is idle, or a new one. Raises HostLimit when the build is over."""
        with self._lock:
            if self._closed:
                raise HostLimit("no further step is carried out: the build has failed or was ended")
            if self._idle:
                return self._idle.pop()
            worker = Worker()
            self._all.append(worker)
            return worker

    def give_back(self, worker: Worker) -> None:
        """Let other steps have the worker, which has no job any more."""
        with self._lock:
            self._idle.append(worker)

    def close(self) -> None:
        """End all workers, with the commands that they run. `take` refuses from then on."""
        with self._lock:
            self._closed = True
            workers, self._all, self._idle = self._all, [], []
        for worker in workers:
            worker.close()


def _lost() -> HostLimit:
    hint = "the kernel kills processes when memory is short: see `dmesg`, or try --jobs 1"
    return HostLimit("a worker of the build ended without an answer", hint=hint)
