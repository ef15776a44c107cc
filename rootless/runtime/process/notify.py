"""systemd's NOTIFY_SOCKET: a socket of the container's own, of which only the word that it is ready is passed on.

sd_notify(3). Everything else a container may say (MAINPID of another process, FDSTORE) would be believed by the service
manager as ours. As runc and crun do, `start` returns when the container is ready or has ended.
"""

from __future__ import annotations

import os
import select
import socket

from rootless.errors import RuntimeFailure
from rootless.runtime.spec.oci_config import OciMount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.runtime.spec.oci_config import OciConfig

DIRECTORY = "/run/notify"
"""Where the container finds the socket's directory."""
_NAME = "notify.sock"
_BLOCK = 65536


def with_socket(config: OciConfig, directory: str) -> OciConfig:
    """Make `directory` (of the container's record); `config` with its mount and the variable."""
    os.mkdir(directory, 0o755)
    changed = config.copy()
    process = changed.process = config.first_process().copy()
    environment = [entry for entry in process.env if not entry.startswith("NOTIFY_SOCKET=")]
    process.env = [*environment, f"NOTIFY_SOCKET={DIRECTORY}/{_NAME}"]
    # ro: a socket can be written to all the same, and nothing be planted in what `delete` removes
    words = ["bind", "ro", "nosuid", "noexec", "nodev"]
    changed.mounts = [*config.mounts, OciMount(DIRECTORY, "bind", directory, words)]
    return changed


def listen(directory: str) -> socket.socket:
    """The container's socket in `directory`; every user of the container may write to it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # addresses of sockets end at 107 bytes
        listener.bind(f"/proc/self/fd/{place}/{_NAME}")
        os.chmod(_NAME, 0o777, dir_fd=place)  # noqa: S103 - the directory above is private
    except OSError as e:
        listener.close()
        raise RuntimeFailure(f"cannot make the notify socket in '{directory}': {e.strerror}") from e
    finally:
        os.close(place)
    return listener


def pass_on(listener: socket.socket, address: str, pid: int, pidfd: int) -> None:
    """Wait until the container says READY=1, then tell `address` so, with the pid `pid`; or until the process of
    `pidfd` has ended. Raises RuntimeFailure when nobody listens at `address`."""
    while True:
        ready, _, _ = select.select([listener.fileno(), pidfd], [], [])
        if listener.fileno() not in ready:
            return
        lines = listener.recv(_BLOCK).decode(errors="replace").splitlines()
        if "READY=1" not in lines:
            continue
        target = "\0" + address[1:] if address.startswith("@") else address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.sendto(f"READY=1\nMAINPID={pid}".encode(), target)
        except OSError as e:
            raise RuntimeFailure(f"cannot tell NOTIFY_SOCKET '{address}' that the container is ready: {e}") from e
        return


def pass_on_beside(listener: socket.socket, address: str, pid: int, pidfd: int) -> int:
    """`pass_on` in a child process, whose pid is returned: the caller has the container to wait for."""
    child = os.fork()
    if child:
        listener.close()
        return child
    try:
        pass_on(listener, address, pid, pidfd)
    finally:
        os._exit(0)
