"""A run that an earlier image of this process has started with our runtime: wait for it and clean up after it."""

from __future__ import annotations

import os
import time

from rootless.monitor import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.monitor.spec import LaunchSpec

_PATIENCE = 1.0  # seconds for a helper to end by itself, now that the container's network namespace is gone


class AdoptedRun:
    """The rest of a NativeRun's life. known: what NativeRun.hand_over gave."""

    __slots__ = ("_helpers", "_spec", "_userns_fd", "console_fd", "network", "pid", "pidfd")

    def __init__(self, spec: LaunchSpec, known: dict[str, Any]) -> None:
        self._spec = spec
        self.pid: int = known["pid"]
        self.pidfd = os.pidfd_open(self.pid)  # our child, not reaped: the number is still its own
        self.console_fd: int | None = None
        self.network: dict[str, Any] = {}
        self._userns_fd: int = known["userns_fd"]
        self._helpers: list[tuple[int, int]] = known["helpers"]

    def start(self) -> None:
        """It runs."""

    def wait(self) -> int:
        """The exit status of the ended container."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def helpers(self) -> list[tuple[int, int]]:
        """As they were handed over."""
        return self._helpers

    def hand_over(self) -> dict[str, Any] | None:
        """Once is enough."""
        return None

    def close(self, *, remove: bool = False) -> None:
        """End the helpers, unmount, delete the container if it shall be removed."""
        from rootless.storage import drivers

        os.close(self.pidfd)
        for pid, _ in self._helpers:
            _end(pid)
        try:
            if self._spec.rootfs is not None:
                drivers.unmount(self._spec.rootfs)
            if remove:
                from rootless.monitor.finish import remove_container

                remove_container(self._spec, self._userns_fd if self._userns_fd >= 0 else None)
        finally:
            if self._userns_fd >= 0:
                os.close(self._userns_fd)


def _end(pid: int) -> None:
    """End a helper and reap it. It is our child, so its number is its own until we have."""
    patience = time.monotonic() + _PATIENCE
    number = signals.SIGTERM
    while True:
        try:
            os.kill(pid, number)
            reaped, _ = os.waitpid(pid, os.WNOHANG)
        except (ProcessLookupError, ChildProcessError, PermissionError):
            return
        if reaped:
            return
        if time.monotonic() > patience:
            number = signals.SIGKILL
        time.sleep(0.002)
