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
# Bytes of stdin that wait for the monitor. With so many waiting no more is read from the user: of a container that
# reads nothing, a whole file would pile up in this process's memory
_MAX_UNSENT = 1 << 18

# Stop and continue are the shell's job control of this client, SIGWINCH goes as a frame of its own, and the rest speak
# of this process (a fault, a timer, a closed pipe) and not of the container's
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
    """The descriptors of this process that are attached to the container's streams; None: that stream is not."""

    stdin: int | None = 0
    stdout: int | None = 1
    stderr: int | None = 2


class StreamOptions(NamedTuple):
    """How to attach to a container.

    terminal: the container has one; detach_keys: docker's text ("ctrl-p,ctrl-q"), None for the default; sig_proxy:
    signals to this process are passed on to the container's, where it has no terminal.
    """

    streams: Streams = Streams()
    terminal: bool = False
    detach_keys: str | None = None
    sig_proxy: bool = True


class Outcome(NamedTuple):
    """How an attachment ended: with the container's exit code, or None when the user detached and it runs on.

    is_abandoned: nobody reads our output any more: the exit code is that of a program which SIGPIPE ended (141), and
    the container runs on.
    """

    exit_code: int | None
    pid: int | None = None
    is_abandoned: bool = False

    @property
    def detached(self) -> bool:
        """Whether the user left the container running."""
        return self.exit_code is None


def spawn_monitor(connection: int | None = None) -> socket.socket:
    """A socket to a new monitor, which waits at its fd 3 to be told what to launch.

    connection: the descriptor of such a socket, where the console script has started a monitor already. Closing the
    socket before a launch ends the monitor, and nothing of it is left.
    """
    if connection is None:
        from rootless.engine.container import spawn

        connection = spawn.spawn_monitor()
    return socket.socket(fileno=connection)


def launch_detached(connection: socket.socket, directory: str, warn: Callable[[str], None] | None = None) -> int:
    """Have the monitor start the container in `directory`, leave it running and return its first process's pid.

    warn: is called with each warning of the launch. Raises the error of the step that failed (RuntimeFailure,
    CommandNotFound, CommandNotExecutable).
    """
    with connection:
        try:
            connection.sendall(protocol.encode_message(protocol.LaunchRequest(directory)))
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
    """Have the monitor start the container in `directory` and stay attached until it ends or the user detaches.

    on_started is called with the pid of its first process, warn with each warning of the launch. Raises the error of
    the step that failed.
    """
    client = _Client(connection, options, on_started, warn)
    client.send(protocol.encode_message(protocol.LaunchRequest(directory, client.request())))
    return client.run(directory)


def attach(socket_path: str, options: StreamOptions, on_started: Callable[[int], None] | None = None) -> Outcome:
    """Attach to the running container whose monitor listens at `socket_path` (`<runtime>/containers/<id>.sock`).

    Raises InvalidState when no process listens there, or one of another user does: it would read what the user types.
    """
    client = _Client(_connect(socket_path), options, on_started)
    client.send(protocol.encode_message(client.request()))
    return client.run(socket_path)


def wait(socket_path: str) -> int | None:
    """Block until the container's next exit and return its code; None when its monitor ended without sending one."""
    nothing = StreamOptions(streams=Streams(None, None, None), sig_proxy=False)
    try:
        return attach(socket_path, nothing).exit_code
    except (InvalidState, RuntimeFailure):
        return None


def change_network(
    socket_path: str, request: protocol.NetworkRequest, warn: Callable[[str], None] | None = None
) -> None:
    """Have the monitor put its container on a network, or let it leave one; returns when that is done.

    Raises InvalidState when no monitor answers, RuntimeFailure with the monitor's words.
    """
    connection = _connect(socket_path)
    decoder = protocol.Decoder()
    with connection:
        try:
            connection.sendall(protocol.encode_message(request))
        except (BrokenPipeError, ConnectionResetError) as e:
            raise _lost(socket_path) from e
        while received := _receive(connection):
            for kind, payload in decoder.feed(received):
                if kind == protocol.ERROR:
                    raise protocol.ErrorNotice.from_json(protocol.read_payload(payload)).error()
                if kind == protocol.STARTED:
                    _started(payload, warn)
                    return
    raise _lost(socket_path)


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = -1
    try:
        # sun_path holds 107 bytes (unix(7)), and a runtime directory may be longer: its descriptor makes a short path
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        # Without $XDG_RUNTIME_DIR the directory is below /tmp, where any user could have been first at the name
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
    """The pid in a STARTED frame, whose warnings are handed to `warn` first."""
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
    """One attachment: a poll loop over the connection, the user's stdin, and a pipe into which signals are written."""

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
        # Asked now, as isatty(3) says no of a terminal that has been closed meanwhile
        self.stdin_is_terminal = options.terminal and self.reading and is_terminal(options.streams.stdin or 0)

    def request(self) -> protocol.AttachRequest:
        """The request to attach the chosen streams, with the size of our terminal in rows and columns."""
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
        """Carry bytes until the monitor sends EXIT or ERROR, or the user detaches.

        Raises the error that ERROR holds, and RuntimeFailure, naming `what`, when the monitor ends before.
        """
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
        # As with docker: of a container with a terminal the interrupt key arrives as a byte, and its own terminal makes
        # a signal of it. A signal that this process gets is meant for this process then
        if self.options.sig_proxy and not self.options.terminal:
            numbers |= signal.valid_signals() - _NOT_PROXIED
        elif self.options.terminal and is_terminal(self.options.streams.stdin or 0):
            numbers |= {signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT}
        # Python calls poll(2) again after a signal (PEP 475), so that a handler alone could not end the wait in the
        # loop. The numbers of signals are written into a pipe that the loop polls as well
        try:
            old_wakeup = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        except ValueError:
            return lambda: None  # Only the main thread can take signals: a program that calls us from another keeps its
        old_handlers = {}
        for number in numbers:
            # What our parent had set to be ignored (nohup) stays ignored
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
            return None  # nothing to read now, whereas b"" says that the monitor has ended
        except ConnectionResetError:
            return b""

    def _flush(self) -> None:
        while self.unsent:
            try:
                del self.unsent[: self.connection.send(self.unsent)]
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self.unsent.clear()  # The monitor takes no more; the EXIT frame that it sent before is still to be read

    def _take(self, kind: int, payload: bytes) -> Outcome | None:
        streams = self.options.streams
        if kind in (protocol.STDOUT, protocol.STDERR):
            fd = streams.stdout if kind == protocol.STDOUT else streams.stderr
            if fd is not None and not write_all(fd, payload):
                # The reader of our output has gone: any program of a pipeline is ended by SIGPIPE then
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
        """Pass on what was typed, and return whether the user detached."""
        try:
            typed = os.read(stdin, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            typed = b""  # EIO: our terminal has been closed
        if not typed:
            if self.stdin_is_terminal:
                # In raw mode no key means the end of input, so the terminal was closed. The container's shell is not
                # told and lives on, as with docker
                sys.exit(128 + signal.SIGHUP)
            self.reading = False
            self.send(protocol.encode_frame(protocol.STDIN_EOF))
            return False
        passed, detached = self.keys.filter(typed)
        if passed:
            self.send(protocol.encode_frame(protocol.STDIN, passed))
        return detached

    def _signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            if found := self._size():
                self.send(protocol.encode_resize(*found))
        elif self.options.terminal:
            sys.exit(128 + number)  # SystemExit leaves `with RawMode` above, which restores the terminal's mode
        elif number not in _NOT_PROXIED:
            self.send(protocol.encode_frame(protocol.SIGNAL, bytes((number,))))
