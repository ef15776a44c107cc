"""Starts a monitor's process, which imports its modules while the command line and the engine do their part.

What to launch is sent to it later. Imports here stay at what the interpreter has loaded anyway, as the console script
calls this before it imports click: what it imports delays the monitor, and with it the start of the container.
"""

from __future__ import annotations

import _socket
import fcntl
import os

from rootless.errors import RuntimeFailure
from rootless.host import interpreter

_PASSED_ON = ("HOME", "USER", "PATH", "XDG_RUNTIME_DIR", "TMPDIR")


def spawn_monitor(*hints: str) -> int:
    """Start a monitor, and return the descriptor of a stream socket whose other end is the monitor's fd 3.

    Closing the socket before a LAUNCH frame is sent ends the monitor. hints: `prepare` has it make the usual namespaces
    before LAUNCH comes, `prepare network` also connects them with the default network. Raises RuntimeFailure.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    argv = interpreter.worker_command("rootless.monitor.main", *hints)
    environment = {k: os.environ[k] for k in _PASSED_ON if k in os.environ}
    environment.update((k, v) for k, v in os.environ.items() if k.startswith("ROOTLESS_"))
    # If the socket were descriptor 3 by chance, dup2(3, 3) in the child would do nothing, close-on-exec would stay set
    # (not every C library makes an exception for posix_spawn), and the monitor would find no fd 3
    moved = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)
    theirs.close()
    null = "/dev/null"
    try:
        os.posix_spawn(
            argv[0],
            argv,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, moved, 3),
                (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, null, os.O_WRONLY, 0),
            ],
        )
    except OSError as e:
        ours.close()
        raise RuntimeFailure(f"cannot start the monitor: {e.strerror}") from e
    finally:
        os.close(moved)
    return ours.detach()
