"""Runs a container with our own runtime, in this process: the bridge from launch.json to rootless.runtime.launch."""

from __future__ import annotations

from rootless.kernel import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.monitor.spec import LaunchSpec
    from rootless.network import Helper
    from rootless.runtime.process import Process

_MAX_FILTER = 1 << 20  # bytes of a compiled seccomp filter


class NativeRun:
    """A run under rootless.runtime.launch, with its network helper."""

    __slots__ = ("_helper", "_process", "_spec", "console_fd", "network", "pid", "pidfd")

    def __init__(self, spec: LaunchSpec, process: Process, helper: Helper | None) -> None:
        self._spec = spec
        self._process = process
        self._helper = helper
        self.pid = process.pid
        self.pidfd = process.pidfd
        self.console_fd = process.console_fd
        self.network: dict[str, Any] = {}

    def start(self) -> None:
        """Wait until the network is there, then let the command begin."""
        if self._helper is not None:
            self._helper.ready()
        self._process.start()

    def wait(self) -> int:
        """The exit status of the ended container."""
        return self._process.wait()

    def helpers(self) -> list[tuple[int, int]]:
        """The network helper, to be found by `reap.stale` if we are killed."""
        return helper_identities(self._helper)

    def close(self) -> None:
        """Stop the network helper and the filesystem's daemon."""
        if self._helper is not None:
            self._helper.stop()
            self._helper = None
        self._process.close()

    def remove(self) -> None:
        """Delete the container with the ids of its own user namespace."""
        from rootless.monitor.finish import remove_container

        remove_container(self._spec, self._process.userns_fd)


def helper_identities(helper: Helper | None) -> list[tuple[int, int]]:
    """(pid, start time) of a network helper that runs."""
    if helper is None:
        return []
    try:
        return [(helper.pid, procfs.start_time(helper.pid))]
    except OSError:
        return []


def start_network(spec: LaunchSpec, pid: int) -> Helper | None:
    """Begin, without waiting, to connect the network namespace of `pid`; None when its mode needs no helper."""
    mode = spec.network.get("mode")
    if mode == "pasta":
        from rootless.network.pasta import start
    elif mode == "slirp4netns":
        from rootless.network.slirp4netns import start
    else:
        return None
    return start(pid, spec.network)
