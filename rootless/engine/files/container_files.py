"""The engine's end of storage.roots.transfer_worker: one container's files, read and written by a process inside.

That process has the container's root and ids, so that no link of the container can lead it out to the host's files. Use
this class in a `with`. An archive is read from the reader that `pack` returns; `answer` says how it ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct

from rootless.engine.container.reconcile import state_of
from rootless.errors import HostLimit, InvalidState, RootlessError
from rootless.host.answer import LIMIT, error_from_json, parse_object, write_all
from rootless.host.interpreter import worker_command
from rootless.paths import Lock
from rootless.storage.roots.transfer_job import BoundMount, ExportRequest, PackRequest, TransferAnswer, TransferJob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.storage.roots.transfer_job import TransferRequest

_IN, _OUT = 3, 4


class Archive:
    """An archive that the worker writes, read from a pipe."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, empty at the end."""
        return os.read(self.fd, size if size >= 0 else 1 << 20)


class ContainerFiles:
    """The files of one container, which need not run.

    writes: files will be placed in it; bare: only the root file system itself, without what is mounted in it; out: the
    descriptor to which the worker writes an archive itself, -1 for a pipe to this process. Raises NotFound,
    InvalidState for a container that runs on another host; `with` raises what the worker does (HostLimit, ...).
    """

    def __init__(self, engine: Engine, container: str, *, writes: bool, bare: bool = False, out: int = -1) -> None:
        self._out = out
        containers = engine.store.containers
        self.id = containers.find(container)
        self.record = containers.read(self.id)
        self.directory = containers.path(self.id)
        self._state = state_of(engine, self.id)
        if self._state.remote:
            raise InvalidState(f"container '{container}' runs on host '{self._state.remote}'")
        launch = containers.read_launch(self.id)
        self.id_map = launch.id_map
        self._plan = launch.require_rootfs()
        self._is_running = self._state.is_running
        job = self._job = TransferJob(self.directory, launch.id_map, self._plan)
        job.writes, job.bare = writes, bare
        job.read_only = writes and self.record.options.read_only
        if self._is_running:
            job.pid, job.started = self._state.pid, self._state.pid_start
        if not bare:
            job.binds = self._binds()
            if self._state.never_started:
                # Of a container that was started, an empty volume is one that its users have emptied, and stays so
                job.seeds = [(seed.source, seed.target) for seed in launch.seed_volumes]
        # Only one command at a time mounts the tree of a stopped container: two overlays on one upper directory are
        # undefined (overlayfs.rst of the kernel, "Sharing and copying layers"). A container that runs has its mount
        # already, which is entered instead.
        self._lock = None if self._is_running else Lock(f"{self.directory}/files.lock")
        self._pid = -1
        self.feed = self._archive = self._requests = self._answers = -1

    def _binds(self) -> list[BoundMount]:
        return [
            BoundMount(m.source, m.target, read_only=m.read_only)
            for m in sorted(self.record.mounts, key=lambda m: m.target.count("/"))
            if m.kind in ("bind", "volume") and os.path.isabs(m.source)
        ]

    def __enter__(self) -> ContainerFiles:
        if self._lock is not None:
            self._lock.acquire()
        ends: list[int] = []
        try:
            for _ in range(4):
                ends += os.pipe()
            requests, self._requests, self._answers, answers, arriving, self.feed, self._archive, leaving = ends
            argv = worker_command("rootless.storage.roots.transfer_worker", site_packages=True)
            # Copies above the numbers that the worker's ends are to have: dup2(2) onto one of those would close an end
            # that happens to have that number here
            out = leaving if self._out < 0 else self._out
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in (requests, answers, arriving, out)]
            actions = [(os.POSIX_SPAWN_DUP2, fd, at) for fd, at in zip(high, (0, 1, _IN, _OUT), strict=True)]
            environment = {"PATH": os.environ.get("PATH", os.defpath)}
            try:
                # setpgroup: see `worker_command`
                self._pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions, setpgroup=0)
            finally:
                for fd in (*high, requests, answers, arriving, leaving):
                    os.close(fd)
            self._send(self._job)
            self.answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        for fd in (self._requests, self.feed, self._archive, self._answers):
            if fd >= 0:
                os.close(fd)
        self._requests = self.feed = self._archive = self._answers = -1
        try:
            if self._pid >= 0:
                os.waitpid(self._pid, 0)
                self._pid = -1
                if not self._is_running:
                    from rootless.storage import drivers

                    drivers.unmount_root(self._plan)
        finally:
            if self._lock is not None:
                self._lock.release()

    def ask(self, request: TransferRequest) -> TransferAnswer:
        """Send a request and wait for its answer. Raises the error that the worker sends instead of one."""
        self.send(request)
        return self.answer()

    def send(self, request: TransferRequest) -> None:
        """Send a request. Its archive is to be read or written next, and then `answer` to be called."""
        self._send(request)

    def _send(self, message: TransferJob | TransferRequest) -> None:
        content = json.dumps(message.to_json()).encode()
        content = struct.pack("!I", len(content)) + content
        try:
            write_all(self._requests, content)
        except BrokenPipeError:
            pass  # The worker has ended: reading its answer says why, or that there is none

    def answer(self) -> TransferAnswer:
        """The answer to the last request. Raises the error that the worker sends instead, HostLimit when it has ended.

        Its length is bounded, as the worker handles the container's files with the container's ids.
        """
        header = self._exactly(4)
        (size,) = struct.unpack("!I", header)
        if size > LIMIT:
            raise HostLimit(f"the answer of a child process is longer than {LIMIT} bytes")
        answer = parse_object(self._exactly(size))
        if "error" not in answer:
            return TransferAnswer.from_json(answer)
        error = error_from_json(answer["error"])
        if isinstance(error, RootlessError):
            raise type(error)(f"container '{self.record.name}': {error.message}", hint=error.hint)
        raise error

    def _exactly(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            piece = os.read(self._answers, size - len(content))
            if not piece:
                raise HostLimit("the process that handles the container's files has ended", hint="is memory short?")
            content += piece
        return content

    def pack(self, name: str) -> Archive:
        """The archive of the source that was found last, with `name` at its top. Call `answer` after its end."""
        self.send(PackRequest(name))
        return Archive(self._archive)

    def export(self) -> None:
        """Write the archive of the whole tree to the descriptor `out`. Raises BrokenPipeError when nobody reads it."""
        self.ask(ExportRequest())

    def end_feed(self) -> None:
        """Close the pipe to the worker, as the archive to place is complete."""
        if self.feed >= 0:
            os.close(self.feed)
            self.feed = -1
