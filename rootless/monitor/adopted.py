"""A container that this process started before it executed itself anew: wait for its end, and clean up after it.

An idle monitor executes itself a second time to keep few modules in memory (monitor.handover). execve(2) leaves the
process its children and open files, and what else it knew of them arrives in the handover.
"""

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
        "_error_fd", "_has_grown", "_held", "_helpers", "_spec", "_userns_fd", "console_fd", "group", "network", "pid",
        "pidfd",
    )  # fmt: skip

    def __init__(self, spec: LaunchSpec, handover: RunHandover) -> None:
        self._spec = spec
        self.pid = handover.pid
        # The process is our child and was not waited for yet, so the number cannot have become another process's
        self.pidfd = os.pidfd_open(self.pid)
        self.console_fd: int | None = None
        self.network = NetworkFacts()
        self._userns_fd, self._error_fd = handover.userns_fd, handover.error_fd
        self._helpers = handover.helpers
        self._held = handover.held
        self._has_grown = False
        self.group: AnyGroup | None = None
        if handover.group:
            from rootless.runtime.cgroups.group import restore

            self.group = restore(handover.group)

    def start(self) -> None:
        """Do nothing: the earlier image of this process has started the command."""

    def wait(self) -> int:
        """Wait for the container's first process; its exit code, 128+N when signal N ended it."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def helpers(self) -> list[tuple[int, int]]:
        """(pid, start time) of the helper processes that still run."""
        return self._helpers

    @property
    def namespaces(self) -> ContainerNamespaces | None:
        """None: the namespaces are in the container's state, which was handed over as a whole."""
        return None

    def hand_over(self) -> RunHandover | None:
        """None while this image of the process is small, for then it stays.

        To start a network helper again the image had to load more, and then hands over to another one.
        """
        if not self._has_grown:
            return None
        from rootless.monitor.handover import RunHandover

        handover = RunHandover(self.pid, (self._userns_fd, self._error_fd), self._helpers)
        handover.group = None if self.group is None else self.group.to_json()
        handover.held = self._held
        return handover

    @property
    def connection(self) -> int:
        """The connection to the process that serves networks with names; -1 where the container is on none."""
        return self._held[0] if self._held else -1

    @property
    def held(self) -> list[int]:
        """The descriptors by which the container is on networks with names, that connection first."""
        return self._held

    def use_connection(self, fd: int) -> None:
        """Let `fd` be that connection from now on."""
        os.close(self._held[0])
        self._held[0] = fd
        self._has_grown = True

    def forget(self, pid: int) -> str | None:
        """Note that child `pid` was reaped: its number may be another process's now, which `close` must not kill."""
        left = [helper for helper in self._helpers if helper[0] != pid]
        if len(left) == len(self._helpers):
            return None
        self._helpers = left
        if self._error_fd >= 0:
            os.close(self._error_fd)
            self._error_fd = -1
        return ""

    def use_helper(self, helper: Helper) -> None:
        """Let `helper` be the network helper of the run from now on."""
        from rootless.kernel import procfs

        self._helpers = [(helper.pid, procfs.start_time(helper.pid))]
        self._error_fd = helper.error_fd()
        self._has_grown = True

    def close(self, *, remove: bool = False) -> None:
        """End the helpers, remove the cgroup, unmount the root. remove: also delete the container (`--rm`)."""
        from rootless.storage import drivers

        os.close(self.pidfd)
        for pid, _ in self._helpers:
            _end(pid)
        if self._error_fd >= 0:
            os.close(self._error_fd)
        if self._held:
            from rootless.network.shared.member_paths import leave, member_file, shared_directory

            leave(member_file(shared_directory(self._spec.runtime_dir), self._spec.id), self._held)
            self._held = []
        userns_fd = self._userns_fd if self._userns_fd >= 0 else None
        if self.group is not None:
            from rootless.monitor import cgroup, state

            cgroup.remove_group(self.group, userns_fd, lambda text: state.add_note(self._spec.directory, text))
        try:
            if self._spec.plan.rootfs is not None:
                drivers.unmount_root(self._spec.plan.rootfs)
            if remove:
                self._spec.remove_container(userns_fd)
        finally:
            if self._userns_fd >= 0:
                os.close(self._userns_fd)


def _end(pid: int) -> None:
    """Kill helper `pid` and wait for its end. A helper keeps no state that SIGKILL could damage.

    The helper is a child of this process. Until it is waited for its number stays its own, and `forget` drops a helper
    that was.
    """
    try:
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
