"""The caller's standard streams: output written whole or with an error; a terminal's raw mode, size and detach keys.

It knows nothing of containers or sockets.
"""

from __future__ import annotations

import os
import select
import termios
from types import TracebackType
from typing import Any

from rootless.errors import HostLimit, UsageError

# Of ctrl-X a terminal sends the byte of X with the upper three bits cleared. Docker allows these names besides letters
_CONTROL_NAMES = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}
_NAMES = {1: "standard output", 2: "standard error"}


def write_all(fd: int, content: bytes) -> bool:
    """Write all of `content` to descriptor `fd`. False when nobody will ever read it (EPIPE).

    Raises HostLimit with the kernel's reason when it cannot be written: a dump that a full disk (ENOSPC) has cut short
    must not look like a whole one.
    """
    view = memoryview(content)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except (BrokenPipeError, ConnectionResetError):
            return False
        except OSError as e:
            name = _NAMES.get(fd, f"descriptor {fd}")
            raise HostLimit(f"cannot write the container's output to {name}: {e.strerror}") from e
    return True


def is_terminal(fd: int) -> bool:
    """Whether `fd` is open and a terminal."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def size(fd: int) -> tuple[int, int] | None:
    """(rows, columns) of the terminal at `fd`; None when it has no size."""
    try:
        rows, cols = termios.tcgetwinsize(fd)
    except (OSError, termios.error):
        return None
    return (rows, cols) if rows and cols else None


class RawMode:
    """`with RawMode(fd):` hands every key to the container, and restores the terminal's mode at the end.

    As of cfmakeraw(3) no key is a signal or edits the line here: the container's own terminal does that. A descriptor
    that is no terminal is left alone.
    """

    __slots__ = ("_saved", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._saved: Any = None  # the shape of termios.tcgetattr

    def __enter__(self) -> RawMode:
        if not is_terminal(self.fd):
            return self
        mode = termios.tcgetattr(self.fd)
        self._saved = list(mode)
        iflag, oflag, cflag, lflag = mode[:4]
        iflag &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        oflag &= ~termios.OPOST
        lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        control = list(mode[6])
        control[termios.VMIN], control[termios.VTIME] = 1, 0
        termios.tcsetattr(self.fd, termios.TCSADRAIN, [iflag, oflag, cflag, lflag, mode[4], mode[5], control])
        return self

    def restore(self) -> None:
        """Give the terminal its old mode back. A second call does nothing."""
        saved, self._saved = self._saved, None
        if saved is not None:
            try:
                termios.tcsetattr(self.fd, termios.TCSADRAIN, saved)
            except (OSError, termios.error):
                pass  # the terminal has been closed, and has no mode any more

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()


def parse_detach_keys(text: str) -> bytes:
    """The byte sequence of docker's `--detach-keys` ("ctrl-p,ctrl-q", "a", "ctrl-@"); empty text: no detaching.

    Raises UsageError for anything else.
    """
    sequence = bytearray()
    for key in text.split(",") if text else ():
        name = key.lower()
        if len(key) == 1 and key.isascii() and key.isprintable():
            sequence += key.encode()
        elif name.startswith("ctrl-") and len(name) == 6 and "a" <= name[5] <= "z":
            sequence.append(ord(name[5]) - ord("a") + 1)
        elif name.startswith("ctrl-") and name[5:] in _CONTROL_NAMES:
            sequence.append(_CONTROL_NAMES[name[5:]])
        else:
            raise UsageError(
                f"detach key '{key}' is not known",
                hint="use single characters and ctrl-a to ctrl-z, ctrl-@, ctrl-[, ctrl-\\, ctrl-], ctrl-^ or ctrl-_, "
                "separated by commas",
            )
    return bytes(sequence)


class DetachKeys:
    """Watches what is typed for the detach sequence, and lets everything else through.

    A part of the sequence is held back until the next key shows that it was not meant.
    """

    __slots__ = ("_held", "sequence")

    def __init__(self, sequence: bytes) -> None:
        self.sequence = sequence
        self._held = 0

    def filter(self, typed: bytes) -> tuple[bytes, bool]:
        """The bytes for the container, of `typed` and of those held back; and whether the sequence is complete."""
        sequence = self.sequence
        if not sequence:
            return typed, False
        passed = bytearray()
        held = self._held
        for key in typed:
            # After a mismatch, the held keys may still end in a shorter start of the sequence: of ctrl-p ctrl-p ctrl-q
            # the last two keys complete it
            pending = sequence[:held] + bytes((key,))
            held += 1
            while pending and not sequence.startswith(pending):
                passed.append(pending[0])
                pending = pending[1:]
            held = len(pending)
            if held == len(sequence):
                self._held = 0
                return bytes(passed), True
        self._held = held
        return bytes(passed), False
