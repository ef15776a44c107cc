"""Moves bytes between the container and the rest: output to log and clients, stdin from clients to the container.

The pump owns the monitor's ends of the pipes or of the terminal. Its descriptors are non-blocking, because one that
blocked would stop log, health checks and signals of the container with it. It decides nothing about the container.
"""

from __future__ import annotations

import errno
import fcntl
import os

from rootless.monitor import protocol
from rootless.monitor.logfile import Splitter
from rootless.monitor.loop import READ, WRITE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.monitor.clients import Clients
    from rootless.monitor.handover import StreamHandover
    from rootless.monitor.logfile import LogFile, NoLog

_CHUNK = 1 << 16
_MAX_STDIN = 1 << 18  # bytes that the container has not read yet; beyond them clients wait, for memory's sake
_TIOCGPTPEER = 0x5441
_NAMES = {protocol.STDOUT: "stdout", protocol.STDERR: "stderr"}
_END_OF_TRANSMISSION = b"\x04"


class OutputPump:
    """One stream out of the container. The stream ends at EOF, and `on_end` is called once then."""

    __slots__ = ("_clients", "_log", "_loop", "_on_end", "_splitter", "fd", "kind", "paused")

    def __init__(
        self, loop: Loop, clients: Clients, log: LogFile | NoLog, stream: tuple[int, int], on_end: Callable[[], None]
    ) -> None:
        """stream: (descriptor, which the pump closes at the end; protocol.STDOUT or protocol.STDERR)."""
        self._loop = loop
        self._clients = clients
        self._log = log
        self._splitter = Splitter()
        self.fd, self.kind = stream
        self._on_end = on_end
        self.paused = False
        os.set_blocking(self.fd, False)
        loop.watch(self.fd, READ, lambda _: self.read())

    def read(self) -> int:
        """Take one chunk and pass it on; return the number of its bytes, 0 where none is there or the stream ended."""
        try:
            chunk = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return 0
        except OSError as e:
            if e.errno != errno.EIO:  # the master of a terminal says EIO, not EOF, once nobody has the slave open
                raise
            chunk = b""
        if not chunk:
            self.end()
            return 0
        self._clients.output(self.kind, chunk)
        self._log.write(_NAMES[self.kind], self._splitter.feed(chunk))
        if self._clients.is_behind(self.kind):
            self.paused = True
            # To watch for no events is not enough: epoll reports a hang-up all the same, and the loop would spin
            self._loop.forget(self.fd)
        return len(chunk)

    @property
    def unfinished(self) -> bytes:
        """The bytes of the last line that has no newline yet, and so is not in the log."""
        return self._splitter.rest

    @unfinished.setter
    def unfinished(self, rest: bytes) -> None:
        self._splitter.rest = rest

    def resume(self) -> None:
        """Read the container again, if the slowest client has caught up."""
        if self.paused and self.fd >= 0 and not self._clients.is_behind(self.kind):
            self.paused = False
            self._loop.watch(self.fd, READ, lambda _: self.read())

    def drain(self) -> None:
        """Take what is in the pipe now, also beyond the clients' bound: a user's pipe holds 1 MiB at most (pipe(7)).

        The number of chunks has a bound, for a process that outlives the container's first one may write without end.
        """
        for _ in range(64):
            if self.fd < 0 or self.read() == 0:
                return

    def end(self) -> None:
        """Close the stream, log its unfinished line, and call `on_end`."""
        if self.fd >= 0:
            self._loop.forget(self.fd)
            os.close(self.fd)
            self.fd = -1
            self._log.write(_NAMES[self.kind], self._splitter.end())
            self._on_end()


class Input:
    """The container's stdin: a pipe or the terminal. Bytes that the container does not take yet are kept here, and the
    clients that send them are not read meanwhile."""

    __slots__ = ("_clients", "_loop", "_unsent", "closing", "fd")

    def __init__(self, loop: Loop, clients: Clients, fd: int) -> None:
        self._loop = loop
        self._clients = clients
        self.fd = fd
        self._unsent = bytearray()
        self.closing = False
        os.set_blocking(fd, False)

    @property
    def is_busy(self) -> bool:
        """Whether bytes are kept that the container has not taken, or its stdin is about to be closed."""
        return bool(self._unsent) or self.closing

    def write(self, typed: bytes) -> None:
        """Pass on what a client sent; it is dropped once the container has closed its end."""
        if self.fd < 0 or self.closing:
            return
        self._unsent += typed
        self._flush()

    def close_when_written(self) -> None:
        """Give the container EOF, after all that was sent before."""
        self.closing = True
        self._flush()

    def close(self) -> None:
        """Close the container's stdin now; what was not written is lost."""
        if self.fd >= 0:
            self._loop.forget(self.fd)
            os.close(self.fd)
            self.fd = -1
            self._unsent.clear()
            self._clients.pause_stdin(paused=False)

    def _flush(self) -> None:
        while self.fd >= 0 and self._unsent:
            try:
                del self._unsent[: os.write(self.fd, memoryview(self._unsent)[:_CHUNK].tobytes())]
            except BlockingIOError:
                self._loop.watch(self.fd, WRITE, lambda _: self._flush())
                self._clients.pause_stdin(paused=len(self._unsent) > _MAX_STDIN)
                return
            except OSError:
                self.close()  # EPIPE of a pipe, EIO of a terminal: nobody in the container reads its stdin any more
                return
        if self.fd >= 0:
            self._loop.forget(self.fd)
            self._clients.pause_stdin(paused=False)
            if self.closing:
                self.close()


class Pump:
    """The streams of one run of the container."""

    __slots__ = ("_slave", "input", "is_terminal", "on_end", "outputs", "size")

    def __init__(self, on_end: Callable[[], None]) -> None:
        """on_end: called each time that an output has ended."""
        self.input: Input | None = None
        self.outputs: list[OutputPump] = []
        self.on_end = on_end
        self.is_terminal = False
        self.size = (0, 0)
        self._slave = -1

    def use_pipes(self, loop: Loop, clients: Clients, log: LogFile | NoLog, pipes: tuple[int, int, int]) -> None:
        """Pump three pipes. pipes: the monitor's ends (stdin, -1 without; stdout; stderr), which the pump closes."""
        if pipes[0] >= 0:
            self.input = Input(loop, clients, pipes[0])
        for fd, kind in ((pipes[1], protocol.STDOUT), (pipes[2], protocol.STDERR)):
            self.outputs.append(OutputPump(loop, clients, log, (fd, kind), self.on_end))

    def use_terminal(self, loop: Loop, clients: Clients, log: LogFile | NoLog, master: int) -> None:
        """Pump a terminal. master: its descriptor, which the pump closes. All output of a terminal is STDOUT."""
        self.is_terminal = True
        # epoll(7) takes a descriptor once, with one set of events: a duplicate of it is the writing side
        self.input = Input(loop, clients, fcntl.fcntl(master, fcntl.F_DUPFD_CLOEXEC, 3))
        # While nobody has the slave open, the master reports a hang-up again and again, and a container may well close
        # its terminal for a while. A slave that the monitor holds keeps the master quiet; `release` closes it when the
        # container has ended, and EIO is the true end of the output then. O_NOCTTY: the monitor leads a session, and
        # its first terminal would otherwise become its controlling terminal, with the signals of Ctrl-C
        try:
            self._slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            self._slave = -1
        self.outputs.append(OutputPump(loop, clients, log, (master, protocol.STDOUT), self.on_end))
        if self.size != (0, 0):
            self.resize(*self.size)

    def resize(self, rows: int, cols: int) -> None:
        """Give the terminal a size. A size that comes before the terminal is kept for it."""
        self.size = (rows, cols)
        if self.is_terminal and self.outputs and self.outputs[0].fd >= 0:
            from rootless.kernel.tty import set_winsize

            try:
                set_winsize(self.outputs[0].fd, rows, cols)
            except OSError:
                pass

    def end_input(self) -> None:
        """Give the container EOF on its stdin, when all that was typed before has been taken."""
        if self.input is None:
            return
        if self.is_terminal:
            self.input.write(_END_OF_TRANSMISSION)  # to close a terminal would hang it up: Ctrl-D is its EOF
        else:
            self.input.close_when_written()

    def release(self) -> None:
        """Close what the monitor holds open itself, now that the container has ended, so that its output can end."""
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1
        if self.input is not None:
            self.input.close()

    def drain(self) -> bool:
        """Take the output that is there; return whether every output has ended."""
        for output in self.outputs:
            output.drain()
        return all(output.fd < 0 for output in self.outputs)

    def hand_over(self) -> StreamHandover | None:
        """The streams as `resume_from` takes them; None while bytes are under way, which an execve would lose."""
        feed = self.input
        if (feed is not None and feed.is_busy) or any(output.paused or output.fd < 0 for output in self.outputs):
            return None
        from rootless.monitor.handover import StreamHandover

        stdin = -1 if feed is None or self.is_terminal else feed.fd
        outputs = [(output.fd, output.unfinished) for output in self.outputs]
        return StreamHandover(stdin, outputs, is_terminal=self.is_terminal)

    def resume_from(self, loop: Loop, clients: Clients, log: LogFile | NoLog, handover: StreamHandover) -> None:
        """Go on with the streams that an earlier image of this process has handed over."""
        fds = [fd for fd, _ in handover.outputs]
        if handover.is_terminal:
            self.use_terminal(loop, clients, log, fds[0])
        else:
            self.use_pipes(loop, clients, log, (handover.stdin, fds[0], fds[1]))
        for output, (_, rest) in zip(self.outputs, handover.outputs, strict=True):
            output.unfinished = rest

    def end(self) -> None:
        """Close every stream, whether it has ended or not."""
        self.release()
        for output in self.outputs:
            output.end()

    def resume(self) -> None:
        """Read the outputs again that waited for a client, now that one has caught up or left."""
        for output in self.outputs:
            output.resume()


def make_pipes(*, open_stdin: bool) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(the monitor's ends, the container's ends) of new pipes for stdin, stdout and stderr.

    Without open_stdin the container reads /dev/null, and the monitor's end of stdin is -1. Raises OSError.
    """
    flags = os.O_CLOEXEC
    if open_stdin:
        their_in, our_in = os.pipe2(flags)
    else:
        their_in, our_in = os.open("/dev/null", os.O_RDONLY | flags), -1
    our_out, their_out = os.pipe2(flags)
    our_err, their_err = os.pipe2(flags)
    return (our_in, our_out, our_err), (their_in, their_out, their_err)
