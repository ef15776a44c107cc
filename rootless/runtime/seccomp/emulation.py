"""The filter of a container whose root is emulated, and the process that answers it. It knows no call by its name.

The supervisor is forked by the first child, in the container's user and mount namespace and outside of its pid
namespace; the command loads the filter and hands the listener over just before execve. The supervisor ends when the
last process with the filter has.
"""

from __future__ import annotations

import array
import errno
import os
import socket

from rootless.errors import RuntimeFailure
from rootless.kernel import process as kernel
from rootless.kernel.process import FILTER_FLAG_NEW_LISTENER, FILTER_FLAG_WAIT_KILLABLE_RECV, load_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Protocol

    from rootless.records.launch import RootEmulation

    class CallSupervisor(Protocol):
        """What answers the calls that the filter of an emulated root reports."""

        def fds(self) -> tuple[int, ...]:
            """What has to stay open until `serve`."""

        def serve(self, listener: int, root: int) -> None:
            """Answer until no process with the filter is left."""


NOT_NOTED = "owners that this container asks for are not recorded: "


class Emulation:
    """filter: has calls that wait for the supervisor, empty where none can; plain: answers them all with success."""

    __slots__ = ("filter", "plain", "supervisor")

    def __init__(self, filter: bytes, plain: bytes, supervisor: CallSupervisor) -> None:
        self.filter = filter
        self.plain = plain
        self.supervisor = supervisor


def read_emulation(planned: RootEmulation, supervisor: CallSupervisor) -> Emulation:
    """With the filters in the files of `runtime.seccomp.filter_cache.emulation`. Raises HostLimit."""
    from rootless.runtime.seccomp.filter_cache import require_filter

    hint = "start the container again"
    waiting = require_filter(planned.filter, hint=hint) if planned.filter else b""
    return Emulation(waiting, require_filter(planned.plain, hint=hint), supervisor)


def fork_supervisor(emulation: Emulation, null: int) -> socket.socket:
    """Start the supervisor; the socket by which it waits for the listener, to be passed to `load`.

    null: the host's null device. In a container that was joined, /dev/null may be any file of the container's.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        try:
            os.setsid()
            # the streams are the container's: who reads them waits for their end
            for number in (0, 1, 2):
                os.dup2(null, number)
            kernel.close_others((0, 1, 2, theirs.fileno(), *emulation.supervisor.fds()))
            kernel.set_dumpable(False)
            _serve(emulation.supervisor, theirs)
        finally:
            os._exit(1)
    theirs.close()
    return ours


def _serve(supervisor: CallSupervisor, connection: socket.socket) -> NoReturn:
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for _, _, content in ancillary:
        fds.frombytes(content)
    connection.close()
    if len(fds) == 2:
        supervisor.serve(fds[0], fds[1])
    os._exit(0)


def load(emulation: Emulation, connection: socket.socket, warn: Callable[[str], None]) -> None:
    """Load the filter on this process, which is about to become the command. Raises RuntimeFailure."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = None
    reason = "the kernel (before 5.0) or libseccomp (before 2.5) is too old"
    ways = (FILTER_FLAG_NEW_LISTENER | FILTER_FLAG_WAIT_KILLABLE_RECV, FILTER_FLAG_NEW_LISTENER)
    for flags in ways if emulation.filter else ():
        try:
            listener = load_filter(emulation.filter, flags)
            break
        except OSError as e:
            # EINVAL: Linux before 5.0, or before 5.19 for the second flag; EBUSY: somebody around us listens already
            if e.errno not in (errno.EINVAL, errno.EBUSY, errno.ENOSYS):
                raise _failure(e) from e
            if e.errno == errno.EBUSY:
                reason = "another seccomp listener is around it"
    if listener is None:
        warn(f"{NOT_NOTED}{reason}")
        try:
            load_filter(emulation.plain)
        except OSError as e:
            raise _failure(e) from e
    else:
        rights = array.array("i", (listener, root))
        connection.sendmsg([b"L"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_NOSIGNAL)
        os.close(listener)
    os.close(root)
    connection.close()


def _failure(error: OSError) -> RuntimeFailure:
    return RuntimeFailure(
        f"cannot load the seccomp filter that emulates root: {error.strerror}", hint="run with --root-emulation=off"
    )
