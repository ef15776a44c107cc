"""What lives in a worker from job to job: the namespaces that steps share, and the connection to the build.

It knows no job, so that every job's module may import it.
"""

from __future__ import annotations

import select
import signal
from typing import TYPE_CHECKING

from rootless.builder.worker.step_namespaces import Namespaces

if TYPE_CHECKING:
    import socket

    from rootless.records.id_map import IdMap


class WorkerSession:
    """What lives from job to job: the namespaces that the steps share."""

    __slots__ = ("_namespaces", "connection")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._namespaces: Namespaces | None = None

    def namespaces(self, id_map: IdMap) -> Namespaces:
        """The namespaces of `id_map`."""
        if self._namespaces is not None and self._namespaces.id_map.key() != id_map.key():
            self.close()
        if self._namespaces is None:
            self._namespaces = Namespaces(id_map)
        return self._namespaces

    def close(self) -> None:
        """End the namespaces' helpers."""
        if self._namespaces is not None:
            self._namespaces.close()
            self._namespaces = None

    def wait(self, pidfd: int) -> None:
        """Return when the process has ended, or the build is gone: it is killed then."""
        from rootless.kernel.process import pidfd_send_signal

        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self.connection, select.POLLIN | select.POLLRDHUP)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if pidfd in ready:
                return
            # between a job and its answer the build says nothing: whatever comes is its end
            poll.unregister(self.connection)
            try:
                pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
