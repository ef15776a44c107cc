"""Carries bytes between the caller's streams and a process that `exec` started; no monitor is involved.

The process gets pipes or a pty, never the caller's own terminal or files. With the terminal it could push keys into the
caller's shell by the ioctl TIOCSTI, which runs them outside of the container (CVE-2017-5226).
"""

from __future__ import annotations

import os
import select
import signal

from rootless.engine.container.terminal import DetachKeys, RawMode, is_terminal, parse_detach_keys, size, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.runtime.process.running import Process

_CHUNK = 1 << 16
_GRACE = 0.2  # seconds without output after the process's end, until children of it that hold the pipes are left alone
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


class Pipes:
    """The pipes of a process without a terminal: our ends and its ends of stdin, stdout and stderr."""

    __slots__ = ("ours", "theirs")

    def __init__(self, *, interactive: bool) -> None:
        if interactive:
            their_in, our_in = os.pipe2(os.O_CLOEXEC)
        else:
            their_in, our_in = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
        our_out, their_out = os.pipe2(os.O_CLOEXEC)
        our_err, their_err = os.pipe2(os.O_CLOEXEC)
        self.ours = (our_in, our_out, our_err)
        self.theirs = (their_in, their_out, their_err)

    def close_theirs(self) -> None:
        """Close our copies of the process's ends, so that we see when it closes its own."""
        for fd in self.theirs:
            os.close(fd)
        self.theirs = (-1, -1, -1)

    def close(self) -> None:
        """Close every end that is still open."""
        for fd in (*self.ours, *self.theirs):
            if fd >= 0:
                os.close(fd)
        self.ours = self.theirs = (-1, -1, -1)


class Carrier:
    """The streams of one exec session, until the process ends or the user types the detach keys.

    stdin: our descriptor that is read, -1 for none; sink: the one towards the process into which that is written;
    outputs: descriptor from the process → our descriptor.
    """

    def __init__(self, process: Process, *, detach_keys: str = "") -> None:
        self.process = process
        self.terminal = process.console_fd
        self.keys = DetachKeys(parse_detach_keys(detach_keys) if self.terminal is not None else b"")
        self.stdin = -1
        self.sink = -1
        self.unsent = bytearray()
        self.outputs: dict[int, int] = {}
        self.ended = False
        self.is_abandoned = False

    def use_pipes(self, pipes: Pipes) -> None:
        """Carry the bytes of a process without a terminal, over its pipes."""
        self.sink, out, err = pipes.ours
        self.stdin = 0 if self.sink >= 0 else -1
        self.outputs = {out: 1, err: 2}
        if self.sink >= 0:
            os.set_blocking(self.sink, False)

    def use_terminal(self, *, interactive: bool) -> None:
        """Carry the bytes of a process with a terminal, over the master of its pty. interactive: keys too."""
        assert self.terminal is not None
        self.outputs = {self.terminal: 1}
        os.set_blocking(self.terminal, False)
        if interactive:
            self.stdin, self.sink = 0, self.terminal
        self._resize()

    def run(self) -> int | None:
        """Carry bytes until the end, and return the process's exit code; None after a detach.

        Where nobody reads the pty's output any more it is 141, as of a program that SIGPIPE ended.
        """
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        numbers = [signal.SIGWINCH] if self.terminal is not None else [*_FORWARDED]
        handlers = {n: signal.signal(n, lambda *_: None) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
        old_wake = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        raw = RawMode(0 if self.terminal is not None and self.stdin >= 0 else -1)
        try:
            with raw:
                detached = self._loop(wake_read)
        finally:
            signal.set_wakeup_fd(old_wake)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(wake_read)
            os.close(wake_write)
        if detached:
            self._leave_a_reader()
            return None
        code = self.process.wait()
        return 128 + signal.SIGPIPE if self.is_abandoned else code

    def _loop(self, wake_read: int) -> bool:
        while not (self.ended and not self.outputs):
            poll = select.poll()
            poll.register(wake_read, select.POLLIN)
            if not self.ended:
                poll.register(self.process.pidfd, select.POLLIN)
            wanted = dict.fromkeys(self.outputs, select.POLLIN)
            if self.unsent and self.sink >= 0:
                wanted[self.sink] = wanted.get(self.sink, 0) | select.POLLOUT
            elif self.stdin >= 0:
                wanted[self.stdin] = select.POLLIN
            for fd, events in wanted.items():
                poll.register(fd, events)
            ready = dict(poll.poll(_GRACE * 1000 if self.ended else None))
            if self.ended and not ready:
                return False  # A process that the first one left in the background holds the pipes, perhaps for ever
            if wake_read in ready:
                self._signals(os.read(wake_read, 4096))
            if self.process.pidfd in ready:
                self.ended = True
            for fd in [fd for fd in self.outputs if fd in ready and ready[fd] & ~select.POLLOUT]:
                self._read(fd)
            if self.stdin in ready and self._read_stdin():
                return True
            self._flush()
        return False

    def _read(self, fd: int) -> None:
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""  # EIO: no process has the pty open any more
        is_abandoned = bool(chunk) and not write_all(self.outputs[fd], chunk)
        if not chunk or is_abandoned:
            del self.outputs[fd]
            if fd != self.terminal:
                os.close(fd)  # At its next write the process gets SIGPIPE, as in any pipeline
            elif is_abandoned:
                self._hang_up()

    def _hang_up(self) -> None:
        """Close the pty, as nobody reads what comes from it any more.

        Left open it would fill up, its processes would block, and we would wait for them for ever. So they get SIGHUP,
        as those of a terminal that is closed.
        """
        self.is_abandoned = True
        self.process.close_console()
        self.terminal = None
        self.stdin = self.sink = -1
        self.unsent.clear()

    def _read_stdin(self) -> bool:
        """Take what was typed, and return whether the user detached."""
        try:
            typed = os.read(self.stdin, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            typed = b""
        if not typed:
            self.stdin = -1
            if self.terminal is not None:
                # One direction of a pty cannot be closed: the character Ctrl-D stands for the end of input (VEOF)
                self.unsent += b"\x04"
            return False
        passed, detached = self.keys.filter(typed)
        self.unsent += passed
        return detached

    def _flush(self) -> None:
        while self.unsent and self.sink >= 0:
            try:
                del self.unsent[: os.write(self.sink, self.unsent)]
            except BlockingIOError:
                return
            except OSError:
                self.unsent.clear()
                self.stdin = -1
        if self.stdin < 0 and self.sink >= 0 and not self.unsent and self.terminal is None:
            os.close(self.sink)
            self.sink = -1

    def _signals(self, numbers: bytes) -> None:
        from rootless.kernel.process import pidfd_send_signal

        for number in numbers:
            if number == signal.SIGWINCH:
                self._resize()
            elif number in _FORWARDED:
                try:
                    pidfd_send_signal(self.process.pidfd, number)
                except OSError:
                    pass  # the process has ended

    def _resize(self) -> None:
        from rootless.kernel.tty import set_winsize

        found = next((s for fd in (1, 0, 2) if is_terminal(fd) and (s := size(fd))), None)
        if found and self.terminal is not None:
            try:
                set_winsize(self.terminal, *found)
            except OSError:
                pass  # the pty has been closed

    def _leave_a_reader(self) -> None:
        """Leave a process that reads the pty after a detach.

        When the last descriptor of a pty's master is closed, the processes at the pty get SIGHUP; and when nobody reads
        the master, their writes block as soon as it is full.
        """
        # When this process leads the session of its terminal, its end sends SIGHUP to the whole foreground group
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if os.fork():
            return
        try:
            os.setsid()
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            assert self.terminal is not None
            os.set_blocking(self.terminal, True)
            while os.read(self.terminal, _CHUNK):
                pass
        except OSError:
            pass
        finally:
            os._exit(0)
