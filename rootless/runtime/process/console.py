"""What happens with the master of a container's pty: it goes to a console socket, or is relayed to our own terminal.

The pty itself is opened inside of the container, by runtime.process.init or join.
"""

from __future__ import annotations

import array
import errno
import os
import select
import signal
import socket

from rootless.errors import RuntimeFailure
from rootless.kernel import process as kernel
from rootless.kernel.tty import get_winsize, set_winsize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_BLOCK = 1 << 16
FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGALRM,
    signal.SIGWINCH,
)


def send_master(path: str, master: int) -> None:
    """Send the master's fd to the unix socket at `path` (`--console-socket`)."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            connection.sendmsg([b"/dev/ptmx"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))])
    except OSError as e:
        raise RuntimeFailure(f"cannot hand the terminal to console socket '{path}': {e.strerror}") from e


class Forward:
    """Passes signals that this process gets to the process of `pidfd`, as long as the `with` lasts.

    A change of our terminal's size (SIGWINCH) goes to the pty `master` instead, whose kernel tells the process.
    """

    __slots__ = ("_master", "_pidfd", "_previous")

    def __init__(self, pidfd: int, master: int | None = None) -> None:
        self._pidfd = pidfd
        self._master = master
        self._previous: list[tuple[int, object]] = []

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGWINCH and self._master is not None:
            copy_size(self._master)
            return
        try:
            kernel.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass

    def __enter__(self) -> Forward:
        for number in FORWARDED:
            self._previous.append((number, signal.signal(number, self._take)))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous:
            signal.signal(number, handler)  # type: ignore[arg-type]


def copy_size(master: int) -> None:
    """Give the pty the size of our terminal, when we have one."""
    for fd in (0, 1, 2):
        try:
            set_winsize(master, *get_winsize(fd))
        except OSError:
            continue
        return


def prepare_terminal(master: int) -> None:
    """Fit the pty, before its process runs, to where `relay_terminal` will copy its output to.

    It gets the size of our terminal. Where our stdout is no terminal, lines end as the command writes them, without the
    carriage return that a terminal needs: what is written to a file or a pipe is to be read by programs.
    """
    copy_size(master)
    if not os.isatty(1):
        import termios

        settings = termios.tcgetattr(master)
        settings[1] &= ~termios.ONLCR
        termios.tcsetattr(master, termios.TCSANOW, settings)


def relay_terminal(master: int, pidfd: int) -> None:
    """Copy between our stdin and stdout and the pty until the process has ended and its output is drained."""
    import termios
    import tty

    saved = None
    try:
        if os.isatty(0):
            saved = termios.tcgetattr(0)
            tty.setraw(0)
        _copy(master, pidfd)
    finally:
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)


def _copy(master: int, pidfd: int) -> None:
    """Copy both ways until the process has ended and the master has nothing left to read."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(master, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    ended = False
    while True:
        # After the end of the process the pty may still hold its last output: what is there is copied, without waiting,
        # since another process that has the slave open could keep us here for ever
        ready = poll.poll(0 if ended else None)
        if ended and not any(fd == master for fd, _ in ready):
            return
        for fd, _ in ready:
            if fd == pidfd:
                poll.unregister(pidfd)
                ended = True
            elif fd == 0:
                if not _move(0, master):
                    poll.unregister(0)
            elif not _move(master, 1):
                return


def _move(source: int, target: int) -> bool:
    """Copy one block of what is there to read; False at the end of `source`."""
    try:
        block = os.read(source, _BLOCK)
    except OSError as e:
        if e.errno != errno.EIO:  # a master answers EIO, and not the end of a file, when nobody has its slave open
            raise
        return False
    view = memoryview(block)
    while view:
        view = view[os.write(target, view) :]
    return bool(block)
