"""The listener of a profile with SCMP_ACT_NOTIFY: from the process that has the filter to the agent at `listenerPath`.

config-linux.md, "The Container Process State". The agent decides about calls; nothing here does.
"""

from __future__ import annotations

import errno
import json
import os
import socket

from rootless.errors import RuntimeFailure
from rootless.kernel.seccomp import FILTER_FLAG_NEW_LISTENER
from rootless.runtime import CONFIG_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rootless.runtime.channel import Channel

_PATIENCE = 10.0  # seconds for an agent that does not take its connection


def hand_over(listener: int, outside: Channel) -> None:
    """Give the listener to the launcher, wait until the agent has it. Without it the command must not run."""
    outside.send({"at": "listener"}, (listener,))
    os.close(listener)
    answer, _ = outside.receive()
    if answer is None or answer.get("do") != "go on":
        os._exit(1)


def listening(
    config: dict[str, Any], state: Callable[[], dict[str, Any]], given: dict[str, Any] | None = None
) -> Callable[[int], None] | None:
    """What passes a listener on to the agent that `given`, or else the configuration's profile, names; None: nobody."""
    profile = given or (config.get("linux") or {}).get("seccomp") or {}
    if not profile.get("listenerPath"):
        return None
    return lambda fd: pass_on(profile, fd, state())


def pass_on(profile: dict[str, Any], listener: int, state: dict[str, Any], pid: int | None = None) -> None:
    """Send the container process state and the listener to the agent. pid: of the process, the container's by default.

    Raises RuntimeFailure when it does not take them.
    """
    path = profile["listenerPath"]
    message: dict[str, Any] = {
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": state["pid"] if pid is None else pid,
        "state": state,
    }
    if profile.get("listenerMetadata"):
        message["metadata"] = profile["listenerMetadata"]
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


def joining(
    profile: dict[str, Any] | None, config: dict[str, Any], container: tuple[str, str], first: int
) -> Callable[[int, int], None] | None:
    """As `listening`, for a process that joins: what takes its listener and its pid.

    container: its id and its bundle; first: its first process.
    """
    if not profile:
        return None
    state: dict[str, Any] = {
        "ociVersion": config.get("ociVersion", CONFIG_VERSION),
        "id": container[0],
        "status": "running",
        "pid": first,
        "bundle": container[1],
    }
    if config.get("annotations"):
        state["annotations"] = config["annotations"]
    return lambda fd, pid: pass_on(profile, fd, state, pid)


def _connect(connection: socket.socket, path: str) -> None:
    """By a fd of the directory: addresses of sockets end at 107 bytes."""
    parent, _, name = path.rpartition("/")
    directory = os.open(parent or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{name}")
    finally:
        os.close(directory)


def listener_refusal(error: OSError, flags: int) -> RuntimeFailure:
    """Why a filter could not be loaded."""
    hint = None
    if flags & FILTER_FLAG_NEW_LISTENER and error.errno == errno.EINVAL:
        return RuntimeFailure(
            "cannot load the seccomp filter: this kernel cannot hand system calls to another process",
            hint="SCMP_ACT_NOTIFY needs Linux 5.0, its flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV Linux 5.19",
        )
    if flags & FILTER_FLAG_NEW_LISTENER and error.errno == errno.EBUSY:
        hint = "another seccomp listener is around this container already, and the kernel allows one"
    if error.errno == errno.ENOSYS:
        hint = "run without it: --security-opt seccomp=unconfined"
    return RuntimeFailure(f"cannot load the seccomp filter: {error.strerror}", hint=hint)
