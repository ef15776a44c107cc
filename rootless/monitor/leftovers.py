"""Ends processes of a container that outlive its first one, where it has no pid namespace to do that."""

from __future__ import annotations

import os
import time

from rootless.monitor import signals

_ROUNDS = 100  # each kills one generation: children of the killed become ours, as the child subreaper


def root_of(pid: int) -> tuple[int, int] | None:
    """What tells a container's processes from our other children: the identity of their root directory."""
    try:
        status = os.stat(f"/proc/{pid}/root")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def kill(root: tuple[int, int] | None) -> None:
    """Kill and reap all children of this process that live in `root`."""
    from rootless.kernel.procfs import children

    if root is None or root == root_of(os.getpid()):
        return
    for _ in range(_ROUNDS):
        found = [pid for pid in children(os.getpid()) if root_of(pid) == root]
        if not found:
            return
        for pid in found:
            os.kill(pid, signals.SIGKILL)  # a child that nobody has reaped: the number is still its own
            os.waitpid(pid, 0)
        time.sleep(0)
