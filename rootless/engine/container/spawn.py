"""Starts a monitor's process, which loads while the command line and the engine do their part. It tells it nothing.

Imports stay at what the interpreter has loaded anyway: the console script calls this before it imports click.
"""

from __future__ import annotations

import _socket
import fcntl
import os

from rootless.errors import RuntimeFailure
from rootless.host import interpreter

_PASSED_ON = ("HOME", "USER", "PATH", "XDG_RUNTIME_DIR", "TMPDIR")


def spawn_monitor(*hints: str) -> int:
    """Start a monitor and return our end of its fd 3, a stream socket. Closing it before LAUNCH ends the monitor.

    hints: `prepare` makes the usual namespaces before LAUNCH comes, `prepare network` also connects them
    with the default network.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    argv = interpreter.worker_command("rootless.monitor.main", *hints)
    environment = {k: os.environ[k] for k in _PASSED_ON if k in os.environ}
    environment.update((k, v) for k, v in os.environ.items() if k.startswith("ROOTLESS_"))
    # posix_spawn leaves a descriptor that is "duplicated" onto itself close-on-exec or not as it is: move it away
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
