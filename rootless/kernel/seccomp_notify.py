"""The listener of a seccomp filter: system calls that wait for an answer (Linux 5.0). It decides nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

_FLAG_CONTINUE = 1  # Linux 5.5
# struct seccomp_notif { u64 id; u32 pid, flags; struct seccomp_data { s32 nr; u32 arch; u64 ip, args[6]; } }
_NOTICE = struct.Struct("=QIIiIQ6Q")
# struct seccomp_notif_resp { u64 id; s64 val; s32 error; u32 flags; }
_ANSWER = struct.Struct("=QqiI")
_READ, _WRITE = (2, 1) if not os.uname().machine.startswith(("ppc", "mips", "sparc", "alpha")) else (2, 4)
_SHIFT = 30 if _WRITE == 1 else 29


def _request(direction: int, number: int, size: int) -> int:
    """An ioctl's number (_IOC of linux/ioctl.h) of the group '!'."""
    return direction << _SHIFT | size << 16 | ord("!") << 8 | number


_RECV = _request(_READ | _WRITE, 0, _NOTICE.size)
_SEND = _request(_READ | _WRITE, 1, _ANSWER.size)
_ID_VALID = _request(_WRITE, 2, 8)
_ID_VALID_OLD = _request(_READ, 2, 8)  # before Linux 5.8 the direction was the wrong one


class Notice:
    """One call that waits. pid: the calling thread, as the pid namespace of this process numbers it."""

    __slots__ = ("arch", "args", "id", "nr", "pid")

    def __init__(self, id: int, pid: int, nr: int, arch: int, args: tuple[int, ...]) -> None:
        self.id = id
        self.pid = pid
        self.nr = nr
        self.arch = arch
        self.args = args


def receive_notice(listener: int) -> Notice | None:
    """The next call, waited for; None when its process was killed meanwhile (look whether there is another)."""
    buffer = bytearray(_NOTICE.size)  # zeroed: the kernel refuses anything else
    try:
        fcntl.ioctl(listener, _RECV, buffer)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    id, pid, _, nr, arch, _, *args = _NOTICE.unpack(buffer)
    return Notice(id, pid, nr, arch, tuple(args))


def is_waiting(listener: int, id: int) -> bool:
    """Does the call still wait? Then what was opened below /proc/PID before belongs to its process."""
    for request in (_ID_VALID, _ID_VALID_OLD):
        try:
            fcntl.ioctl(listener, request, struct.pack("=Q", id))
        except OSError as e:
            if e.errno == errno.EINVAL:
                continue
            return False
        return True
    return False


def answer_call(listener: int, id: int, error: int = 0) -> None:
    """End the call with 0, or with errno `error`; harmless when its process is gone."""
    _send(listener, _ANSWER.pack(id, 0, -error, 0))


def let_proceed(listener: int, id: int) -> None:
    """Let the kernel carry the call out.

    seccomp_unotify(2): another thread can exchange what the call's pointers point to after it was looked at, so this
    is no way to allow or to forbid a call. Only a call that the kernel itself judges rightly may proceed.
    """
    try:
        _send(listener, _ANSWER.pack(id, 0, 0, _FLAG_CONTINUE))
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        # Linux before 5.5 has no such answer: the call fails as it does for a caller without the right to make it
        answer_call(listener, id, errno.EPERM)


def _send(listener: int, response: bytes) -> None:
    try:
        fcntl.ioctl(listener, _SEND, response)
    except OSError as e:
        if e.errno != errno.ENOENT:
            raise
