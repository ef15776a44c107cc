"""--ssh and RUN --mount=type=ssh: the agent's socket forwarded into a step. No key is read here.

The step talks to a socket of this process, which passes its connections on: an agent asks the kernel for the user at
the other end and answers its own user only, and a step may run as another one.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import threading
from collections.abc import Iterable
from typing import NamedTuple

from rootless.errors import UsageError

_CHUNK = 65536


class AgentSource(NamedTuple):
    """What answers for an agent: a socket of an agent that runs, or, where that is "", files with keys."""

    socket: str
    keys: tuple[str, ...] = ()


def agent_for(flags: Iterable[str], name: str) -> AgentSource | None:
    """What --ssh gives as the agent `name`: `NAME=SOCKET` or `NAME=KEYFILE,KEYFILE`.

    None when none of `flags`, the texts of --ssh, gives it. NAME alone is the user's own agent (SSH_AUTH_SOCK). Raises
    UsageError.
    """
    for text in flags:
        id, _, path = text.partition("=")
        if (id or "default") == name:
            return _source(path, name)
    return None


def _source(text: str, name: str) -> AgentSource:
    paths = text.split(",") if text else [os.environ.get("SSH_AUTH_SOCK", "")]
    if not paths[0]:
        hint = "start an agent: eval $(ssh-agent); ssh-add; or give a key: --ssh default=KEYFILE"
        raise UsageError(f"--ssh {name}: SSH_AUTH_SOCK is not set", hint=hint)
    paths = [os.path.abspath(os.path.expanduser(path)) for path in paths]
    sockets = []
    for path in paths:
        try:
            mode = os.stat(path).st_mode
        except OSError as e:
            raise UsageError(f"--ssh {name}: cannot use '{path}': {e.strerror}") from e
        if stat.S_ISSOCK(mode):
            sockets.append(path)
        elif not stat.S_ISREG(mode):
            raise UsageError(f"--ssh {name}: '{path}' is neither the socket of an agent nor a file with a key")
    if sockets and len(paths) > 1:
        raise UsageError(f"--ssh {name}: an agent has one socket, or files with keys, not both")
    return AgentSource(sockets[0]) if sockets else AgentSource("", tuple(paths))


class Forwarder:
    """Listens at the socket `path` and passes each connection on to the agent, in threads of its own, until `close`."""

    def __init__(self, agent: str, path: str) -> None:
        self._agent = agent
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # sun_path holds 107 bytes and the path may be longer, so it goes through the directory's descriptor
            self._listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        finally:
            os.close(folder)
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # `close` has shut the listener down
            threading.Thread(target=self._forward, args=(connection,), daemon=True).start()

    def _forward(self, inside: socket.socket) -> None:
        with inside, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as outside:
            try:
                outside.connect(self._agent)
                other = {inside: outside, outside: inside}
                while True:
                    ready, _, _ = select.select([inside, outside], [], [])
                    for one in ready:
                        piece = one.recv(_CHUNK)
                        if not piece:
                            return
                        other[one].sendall(piece)
            except OSError:
                return  # the step or the agent has closed its end

    def close(self) -> None:
        """Take no further connections; those that are open end with the step.

        shutdown comes before close: a thread that waits in accept(2) keeps the socket open, and only shutdown wakes it.
        """
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
