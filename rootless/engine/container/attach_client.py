"""The user's end of a container: starts a monitor, carries the terminal's bytes to it and back, returns the exit code.

It speaks rootless.monitor.protocol and knows nothing of images or records. One thread, one poll loop.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import NamedTuple

from rootless.engine.container.terminal import DetachKeys, RawMode, is_terminal, parse_detach_keys, size, write_all
from rootless.errors import InvalidState, RuntimeFailure
from rootless.monitor import protocol

_CHUNK = 32768
_MAX_UNSENT = 1 << 18  # of stdin: what the monitor has not taken yet is not read from the user

# Stopping the client is for the shell, WINCH is a frame of its own, the rest are about this process and not the user's
_NOT_PROXIED = frozenset(
    {
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCONT,
        signal.SIGCHLD,
        signal.SIGPIPE,
        signal.SIGURG,
        signal.SIGWINCH,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGABRT,
        signal.SIGTRAP,
        signal.SIGSYS,
        signal.SIGPROF,
        signal.SIGVTALRM,
    }
)


class Streams(NamedTuple):
    """File descriptors of ours that are attached to the container's streams; None: not attached."""

    stdin: int | None = 0
    stdout: int | None = 1
    stderr: int | None = 2


class StreamOptions(NamedTuple):
    """How to attach. terminal: the container has one; detach_keys: docker's text, None for the default."""

    streams: Streams = Streams()
    terminal: bool = False
    detach_keys: str | None = None
    sig_proxy: bool = True


class Outcome(NamedTuple):
    """How an attachment ended: the container's exit code, or None when the user detached and it runs on.

    is_abandoned: the exit code is ours, for nobody reads our output any more, and the container runs on.
    """

    exit_code: int | None
    pid: int | None = None
    is_abandoned: bool = False

    @property
    def detached(self) -> bool:
        """Whether the user left the container running."""
        return self.exit_code is None


def spawn_monitor(connection: int | None = None) -> socket.socket:
    """Our end of a monitor's fd 3; connection: that of one which the console script has started already.

    Closing it before `launch` ends the monitor; nothing is left then.
    """
    if connection is None:
        from rootless.engine.container import spawn

        connection = spawn.spawn_monitor()
    return socket.socket(fileno=connection)


def launch_detached(connection: socket.socket, directory: str, warn: Callable[[str], None] | None = None) -> int:
    """Have the monitor start the container of `directory`, leave it running and return its pid.

    warn: gets what the launch has to tell.
    Raises the error of the step that failed (RuntimeFailure, CommandNotFound, CommandNotExecutable).
    """
    with connection:
        try:
            connection.sendall(protocol.message(protocol.LaunchRequest(directory)))
        except (BrokenPipeError, ConnectionResetError) as e:
            raise _lost(directory) from e
        decoder = protocol.Decoder()
        while received := _receive(connection):
            for kind, payload in decoder.feed(received):
                if kind == protocol.STARTED:
                    return _started(payload, warn)
                if kind == protocol.ERROR:
                    raise protocol.ErrorNotice.from_json(protocol.read_payload(payload)).error()
    raise _lost(directory)


def launch_attached(
    connection: socket.socket,
    directory: str,
    options: StreamOptions,
    on_started: Callable[[int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Outcome:
    """Have the monitor start the container of `directory` and stay attached until it ends or the user detaches.

    on_started is called with the container's pid, warn with what the launch has to tell. Raises the error of the step
    that failed.
    """
    client = _Client(connection, options, on_started, warn)
    client.send(protocol.message(protocol.LaunchRequest(directory, client.request())))
    return client.run(directory)


def attach(socket_path: str, options: StreamOptions, on_started: Callable[[int], None] | None = None) -> Outcome:
    """Attach to the running container whose monitor listens at `socket_path` (`<runtime>/containers/<id>.sock`).

    Raises InvalidState when nothing listens there, or somebody else does: he would read what the user types.
    """
    client = _Client(_connect(socket_path), options, on_started)
    client.send(protocol.message(client.request()))
    return client.run(socket_path)


def wait(socket_path: str) -> int | None:
    """Block until the container's next exit and return its code; None when its monitor is gone without telling."""
    nothing = StreamOptions(streams=Streams(None, None, None), sig_proxy=False)
    try:
        return attach(socket_path, nothing).exit_code
    except (InvalidState, RuntimeFailure):
        return None


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = -1
    try:
        # sun_path holds 107 bytes: a longer path goes through its directory's descriptor
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        if protocol.peer_uid(connection) != os.geteuid():
            connection.close()
            raise InvalidState(
                f"the process that answers at '{path}' belongs to another user", hint="look who owns that directory"
            )
    except OSError as e:
        connection.close()
        raise InvalidState(f"no monitor answers at '{path}': {e.strerror}") from e
    finally:
        if directory >= 0:
            os.close(directory)
    return connection


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def _started(payload: bytes, warn: Callable[[str], None] | None) -> int:
    """The pid of a STARTED frame; its warnings are passed on."""
    notice = protocol.StartNotice.from_json(protocol.read_payload(payload))
    for text in notice.warnings:
        if warn is not None:
            warn(text)
    return notice.pid


def _lost(what: str) -> RuntimeFailure:
    return RuntimeFailure(
        f"the monitor of '{what}' ended unexpectedly",
        hint="see monitor.log in the container's directory; 'rootless rm -f' removes the container",
    )


class _Client:
    """One attachment: poll loop over the connection, the user's stdin and a pipe that signals wake."""

    def __init__(
        self,
        connection: socket.socket,
        options: StreamOptions,
        on_started: Callable[[int], None] | None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.warn = warn
        self.connection = connection
        self.options = options
        self.on_started = on_started
        text = options.detach_keys
        keys = b"" if not options.terminal else parse_detach_keys("ctrl-p,ctrl-q" if text is None else text)
        self.keys = DetachKeys(keys)
        self.unsent = bytearray()
        self.pid: int | None = None
        self.reading = options.streams.stdin is not None
        # asked now: of a terminal that was closed it would be untrue
        self.stdin_is_terminal = options.terminal and self.reading and is_terminal(options.streams.stdin or 0)

    def request(self) -> protocol.AttachRequest:
        """What we want to be attached to, with the size of our terminal."""
        streams = self.options.streams
        return protocol.AttachRequest(
            stdin=streams.stdin is not None,
            stdout=streams.stdout is not None,
            stderr=streams.stderr is not None,
            size=self._size() or (0, 0),
        )

    def _size(self) -> tuple[int, int] | None:
        if not self.options.terminal:
            return None
        for fd in (self.options.streams.stdout, self.options.streams.stdin):
            if fd is not None and (found := size(fd)):
                return found
        return None

    def send(self, frame: bytes) -> None:
        self.unsent += frame

    def run(self, what: str) -> Outcome:
        """Carry bytes until EXIT, ERROR, a detach, or the monitor's end."""
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        restore_signals = self._take_signals(wake_write)
        stdin = self.options.streams.stdin
        raw = RawMode(stdin) if self.options.terminal and stdin is not None else RawMode(-1)
        try:
            with self.connection, raw:
                self.connection.setblocking(False)
                outcome = self._loop(wake_read)
        finally:
            restore_signals()
            os.close(wake_read)
            os.close(wake_write)
        if outcome is None:
            raise _lost(what)
        return outcome

    def _take_signals(self, wake_write: int) -> Callable[[], None]:
        numbers = {signal.SIGWINCH} if self.options.terminal else set()
        # as docker: with a terminal the keys arrive as bytes, and a signal to us is meant for us
        if self.options.sig_proxy and not self.options.terminal:
            numbers |= signal.valid_signals() - _NOT_PROXIED
        elif self.options.terminal and is_terminal(self.options.streams.stdin or 0):
            numbers |= {signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT}
        try:
            old_wakeup = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        except ValueError:
            return lambda: None  # not the main thread: signals are somebody else's
        old_handlers = {}
        for number in numbers:
            # what our parent had ignored (nohup) stays ignored
            if signal.getsignal(number) is not signal.SIG_IGN:
                old_handlers[number] = signal.signal(number, lambda *_: None)

        def restore() -> None:
            signal.set_wakeup_fd(old_wakeup)
            for number, handler in old_handlers.items():
                signal.signal(number, handler)

        return restore

    def _loop(self, wake_read: int) -> Outcome | None:
        decoder = protocol.Decoder()
        socket_fd = self.connection.fileno()
        while True:
            poll = select.poll()
            poll.register(wake_read, select.POLLIN)
            poll.register(socket_fd, select.POLLIN | (select.POLLOUT if self.unsent else 0))
            stdin = self.options.streams.stdin
            if self.reading and stdin is not None and self.pid is not None and len(self.unsent) < _MAX_UNSENT:
                poll.register(stdin, select.POLLIN)
            ready = dict(poll.poll())
            if wake_read in ready:
                for number in os.read(wake_read, 4096):
                    self._signal(number)
            if ready.get(socket_fd, 0) & ~select.POLLOUT:
                received = self._read_socket()
                if received == b"":
                    return None
                for kind, payload in decoder.feed(received or b""):
                    if (outcome := self._take(kind, payload)) is not None:
                        return outcome
            if stdin in ready and stdin is not None and self._read_stdin(stdin):
                return Outcome(None, self.pid)
            self._flush()

    def _read_socket(self) -> bytes | None:
        try:
            return self.connection.recv(1 << 17)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""

    def _flush(self) -> None:
        while self.unsent:
            try:
                del self.unsent[: self.connection.send(self.unsent)]
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self.unsent.clear()  # the EXIT frame, or the lack of one, is read next

    def _take(self, kind: int, payload: bytes) -> Outcome | None:
        streams = self.options.streams
        if kind in (protocol.STDOUT, protocol.STDERR):
            fd = streams.stdout if kind == protocol.STDOUT else streams.stderr
            if fd is not None and not write_all(fd, payload):
                # who read our output is gone: as for any program in a pipeline
                return Outcome(128 + signal.SIGPIPE, self.pid, is_abandoned=True)
        elif kind == protocol.STARTED:
            self.pid = _started(payload, self.warn)
            if self.on_started:
                self.on_started(self.pid)
        elif kind == protocol.EXIT:
            return Outcome(protocol.ExitNotice.from_json(protocol.read_payload(payload)).exit_code, self.pid)
        elif kind == protocol.ERROR:
            raise protocol.ErrorNotice.from_json(protocol.read_payload(payload)).error()
        return None

    def _read_stdin(self, stdin: int) -> bool:
        """Pass on what was typed; whether the user detached."""
        try:
            typed = os.read(stdin, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            typed = b""  # EIO: our terminal is gone
        if not typed:
            if self.stdin_is_terminal:
                # In raw mode no key is an end of input: the terminal was closed. The container's shell gets no word of
                # that and lives on, as docker has it.
                sys.exit(128 + signal.SIGHUP)
            self.reading = False
            self.send(protocol.frame(protocol.STDIN_EOF))
            return False
        passed, detached = self.keys.filter(typed)
        if passed:
            self.send(protocol.frame(protocol.STDIN, passed))
        return detached

    def _signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            if found := self._size():
                self.send(protocol.resize(*found))
        elif self.options.terminal:
            sys.exit(128 + number)  # `with RawMode` gives the terminal back on the way out
        elif number not in _NOT_PROXIED:
            self.send(protocol.frame(protocol.SIGNAL, bytes((number,))))
