"""The listener of a profile with SCMP_ACT_NOTIFY: from the process that has the filter to the agent at `listenerPath`.

config-linux.md, "The Container Process State". The agent decides about calls; nothing here does.
"""

from __future__ import annotations

import json
import os
import socket

from rootless.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.records.launch import SeccompListener
    from rootless.runtime.spec.oci_state import Bundle, OciState

_PATIENCE = 10.0  # seconds for an agent that does not take its connection


def handler_of_launch(agent: SeccompListener | None, state: Callable[[], OciState]) -> Callable[[int], None] | None:
    """What passes a listener on to the agent, with the state of the container at that time; None without an agent."""
    if agent is None:
        return None
    return lambda fd: pass_on(agent, fd, state())


def pass_on(agent: SeccompListener, listener: int, state: OciState, pid: int | None = None) -> None:
    """Send the container process state and the listener to the agent. pid: of the process, the container's by default.

    Raises RuntimeFailure when it does not take them.
    """
    path = agent.path
    message: dict[str, object] = {
        "ociVersion": state.version,
        "fds": ["seccompFd"],
        "pid": state.pid if pid is None else pid,
        "state": state.to_json(),
    }
    if agent.metadata:
        message["metadata"] = agent.metadata
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE)
            _connect(connection, path)
            content = json.dumps(message).encode()
            sent = socket.send_fds(connection, [content], [listener])
            connection.sendall(content[sent:])
    except OSError as e:
        reason = e.strerror or "it does not answer"
        raise RuntimeFailure(f"cannot pass the seccomp listener on to '{path}': {reason}") from e


def handler_of_join(agent: SeccompListener | None, bundle: Bundle, first: int) -> Callable[[int, int], None] | None:
    """As `handler_of_launch`, for a process that joins: what takes its listener and its pid.

    first: the pid of the container's first process.
    """
    if agent is None:
        return None
    return lambda fd, pid: pass_on(agent, fd, bundle.state("running", first), pid)


def _connect(connection: socket.socket, path: str) -> None:
    """By a fd of the directory: addresses of sockets end at 107 bytes."""
    parent, _, name = path.rpartition("/")
    directory = os.open(parent or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{name}")
    finally:
        os.close(directory)
