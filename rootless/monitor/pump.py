"""Moves bytes between the container and the rest: output to log and clients, stdin from clients to the container.

It owns the monitor's ends of the pipes or of the terminal, never blocks, and decides nothing about the container.
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
_MAX_STDIN = 1 << 18  # bytes the container has not read yet; beyond it clients are not read
_TIOCGPTPEER = 0x5441
_NAMES = {protocol.STDOUT: "stdout", protocol.STDERR: "stderr"}
_END_OF_TRANSMISSION = b"\x04"


class OutputPump:
    """One stream out of the container. It ends at EOF; `on_end` is called then, once."""

    __slots__ = ("_clients", "_log", "_loop", "_on_end", "_splitter", "fd", "kind", "paused")

    def __init__(
        self, loop: Loop, clients: Clients, log: LogFile | NoLog, stream: tuple[int, int], on_end: Callable[[], None]
    ) -> None:
        """stream: (descriptor that is ours now, STDOUT or STDERR)."""
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
        """Take one chunk; the number of bytes it had."""
        try:
            chunk = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return 0
        except OSError as e:
            if e.errno != errno.EIO:  # EIO: the last holder of the terminal has closed it
                raise
            chunk = b""
        if not chunk:
            self.end()
            return 0
        self._clients.output(self.kind, chunk)
        self._log.write(_NAMES[self.kind], self._splitter.feed(chunk))
        if self._clients.is_behind(self.kind):
            self.paused = True
            self._loop.forget(self.fd)  # a hang-up is reported even for an empty set of events
        return len(chunk)

    @property
    def unfinished(self) -> bytes:
        """The line that has no end yet."""
        return self._splitter.rest

    @unfinished.setter
    def unfinished(self, rest: bytes) -> None:
        self._splitter.rest = rest

    def resume(self) -> None:
        """Go on, if the slowest client has caught up."""
        if self.paused and self.fd >= 0 and not self._clients.is_behind(self.kind):
            self.paused = False
            self._loop.watch(self.fd, READ, lambda _: self.read())

    def drain(self) -> None:
        """Take what is there now, also beyond the clients' bound: a pipe holds 1 MiB at most."""
        for _ in range(64):
            if self.fd < 0 or self.read() == 0:
                return

    def end(self) -> None:
        """Close, and log the unfinished line."""
        if self.fd >= 0:
            self._loop.forget(self.fd)
            os.close(self.fd)
            self.fd = -1
            self._log.write(_NAMES[self.kind], self._splitter.end())
            self._on_end()


class Input:
    """The container's stdin: a pipe or the terminal. What it does not take yet is kept, and clients wait."""

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
        """Whether it holds bytes, or is about to close."""
        return bool(self._unsent) or self.closing

    def write(self, typed: bytes) -> None:
        """Pass on what a client sent; forgotten once the container has closed its end."""
        if self.fd < 0 or self.closing:
            return
        self._unsent += typed
        self._flush()

    def close_when_written(self) -> None:
        """EOF for the container, after all that was sent before."""
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
                self.close()  # EPIPE, EIO: nobody reads it any more
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
        """on_end is called each time an output has ended."""
        self.input: Input | None = None
        self.outputs: list[OutputPump] = []
        self.on_end = on_end
        self.is_terminal = False
        self.size = (0, 0)
        self._slave = -1

    def use_pipes(self, loop: Loop, clients: Clients, log: LogFile | NoLog, pipes: tuple[int, int, int]) -> None:
        """pipes: our ends (stdin or -1, stdout, stderr)."""
        if pipes[0] >= 0:
            self.input = Input(loop, clients, pipes[0])
        for fd, kind in ((pipes[1], protocol.STDOUT), (pipes[2], protocol.STDERR)):
            self.outputs.append(OutputPump(loop, clients, log, (fd, kind), self.on_end))

    def use_terminal(self, loop: Loop, clients: Clients, log: LogFile | NoLog, master: int) -> None:
        """master: the terminal's master, ours now. All its output is STDOUT."""
        self.is_terminal = True
        # epoll knows a descriptor once: the writing side is a duplicate
        self.input = Input(loop, clients, fcntl.fcntl(master, fcntl.F_DUPFD_CLOEXEC, 3))
        # While nobody has the slave open the master reports a hang-up for ever; holding one keeps it quiet until the
        # container has ended, and `release` then makes EIO the true end
        try:
            self._slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            self._slave = -1
        self.outputs.append(OutputPump(loop, clients, log, (master, protocol.STDOUT), self.on_end))
        if self.size != (0, 0):
            self.resize(*self.size)

    def resize(self, rows: int, cols: int) -> None:
        """Give the terminal a size; remembered until there is one."""
        self.size = (rows, cols)
        if self.is_terminal and self.outputs and self.outputs[0].fd >= 0:
            from rootless.kernel.tty import set_winsize

            try:
                set_winsize(self.outputs[0].fd, rows, cols)
            except OSError:
                pass

    def end_input(self) -> None:
        """EOF on the container's stdin, when all that was typed has been taken."""
        if self.input is None:
            return
        if self.is_terminal:
            self.input.write(_END_OF_TRANSMISSION)  # closing would hang the terminal up
        else:
            self.input.close_when_written()

    def release(self) -> None:
        """The container has ended: let the end of its output show."""
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1
        if self.input is not None:
            self.input.close()

    def drain(self) -> bool:
        """Take what is there; whether every output has ended."""
        for output in self.outputs:
            output.drain()
        return all(output.fd < 0 for output in self.outputs)

    def hand_over(self) -> StreamHandover | None:
        """What `resume_from` takes; None while bytes are under way."""
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
        """Close everything, ended or not."""
        self.release()
        for output in self.outputs:
            output.end()

    def resume(self) -> None:
        """Some client has caught up or left."""
        for output in self.outputs:
            output.resume()


def pipes(*, open_stdin: bool) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(our ends, the container's ends) of stdin, stdout, stderr; without open_stdin the container reads /dev/null."""
    flags = os.O_CLOEXEC
    if open_stdin:
        their_in, our_in = os.pipe2(flags)
    else:
        their_in, our_in = os.open("/dev/null", os.O_RDONLY | flags), -1
    our_out, their_out = os.pipe2(flags)
    our_err, their_err = os.pipe2(flags)
    return (our_in, our_out, our_err), (their_in, their_out, their_err)
