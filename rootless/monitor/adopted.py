"""A run that an earlier image of this process has started with our runtime: wait for it and clean up after it."""

from __future__ import annotations

import os

from rootless.monitor.loop import SIGKILL
from rootless.records.state import NetworkFacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.monitor.cgroup import AnyGroup
    from rootless.monitor.handover import RunHandover
    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.network.helper import Helper
    from rootless.records.state import ContainerNamespaces


class AdoptedRun:
    """The rest of a NativeRun's life, from what NativeRun.hand_over gave."""

    __slots__ = (
        "_error_fd", "_has_grown", "_helpers", "_spec", "_userns_fd", "console_fd", "group", "network", "pid", "pidfd",
    )  # fmt: skip

    def __init__(self, spec: LaunchSpec, handover: RunHandover) -> None:
        self._spec = spec
        self.pid = handover.pid
        self.pidfd = os.pidfd_open(self.pid)  # our child, not reaped: the number is still its own
        self.console_fd: int | None = None
        self.network = NetworkFacts()
        self._userns_fd, self._error_fd = handover.userns_fd, handover.error_fd
        self._helpers = handover.helpers
        self._has_grown = False
        self.group: AnyGroup | None = None
        if handover.group:
            from rootless.runtime.cgroups.group import restore

            self.group = restore(handover.group)

    def start(self) -> None:
        """Do nothing: the earlier image of this process has started the command."""

    def wait(self) -> int:
        """The exit status of the ended container."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def helpers(self) -> list[tuple[int, int]]:
        """The helpers as they were handed over, but for those that have ended."""
        return self._helpers

    @property
    def namespaces(self) -> ContainerNamespaces | None:
        """None: the state that was handed over has them."""
        return None

    def hand_over(self) -> RunHandover | None:
        """None where this image of the process is small already, and stays; another one after it had to load more."""
        if not self._has_grown:
            return None
        from rootless.monitor.handover import RunHandover

        handover = RunHandover(self.pid, (self._userns_fd, self._error_fd), self._helpers)
        handover.group = None if self.group is None else self.group.to_json()
        return handover

    def forget(self, pid: int) -> str | None:
        """A child was reaped: a helper that has ended is not to be killed by its number."""
        left = [helper for helper in self._helpers if helper[0] != pid]
        if len(left) == len(self._helpers):
            return None
        self._helpers = left
        if self._error_fd >= 0:
            os.close(self._error_fd)
            self._error_fd = -1
        return ""

    def use_helper(self, helper: Helper) -> None:
        """Another helper connects the network from now on."""
        from rootless.kernel import procfs

        self._helpers = [(helper.pid, procfs.start_time(helper.pid))]
        self._error_fd = helper.error_fd()
        self._has_grown = True

    def close(self, *, remove: bool = False) -> None:
        """End the helpers, unmount, delete the container if it shall be removed."""
        from rootless.storage import drivers

        os.close(self.pidfd)
        for pid, _ in self._helpers:
            _end(pid)
        if self._error_fd >= 0:
            os.close(self._error_fd)
        userns_fd = self._userns_fd if self._userns_fd >= 0 else None
        if self.group is not None:
            from rootless.monitor import cgroup, state

            cgroup.end(self.group, userns_fd, lambda text: state.note(self._spec.directory, text))
        try:
            if self._spec.plan.rootfs is not None:
                drivers.unmount(self._spec.plan.rootfs)
            if remove:
                self._spec.remove_container(userns_fd)
        finally:
            if self._userns_fd >= 0:
                os.close(self._userns_fd)


def _end(pid: int) -> None:
    """End a helper, which keeps no state, and reap it. It is our child, and `forget` hears of others who reap it."""
    try:
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
