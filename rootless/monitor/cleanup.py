"""What is done when a container has ended: what outlives its first process is killed, a --rm container is removed.

It decides nothing: the supervisor says when.
"""

from __future__ import annotations

import os
import time

from rootless.monitor import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.monitor.launch_spec import LaunchSpec

_ROUNDS = 100  # each kills one generation: children of the killed become ours, as the child subreaper


def root_of(pid: int) -> tuple[int, int] | None:
    """What tells a container's processes from our other children: the identity of their root directory."""
    try:
        status = os.stat(f"/proc/{pid}/root")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def kill_leftovers(root: tuple[int, int] | None) -> None:
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


def remove_container(spec: LaunchSpec, userns_fd: int | None = None) -> None:
    """Delete what launch.json's "remove" lists: {"name_file", "directory", "volumes"}.

    The name goes first: a container without one is garbage that `prune` finds if we are killed in between.
    userns_fd: a user namespace with the container's id map, where one is open; else one is made.
    """
    from rootless.storage.files.removal import remove_tree

    remove = spec.now().remove
    if remove is None:
        return
    if remove.name_file:
        try:
            os.unlink(remove.name_file)
        except FileNotFoundError:
            pass
    id_map = spec.plan.id_map
    for path in (remove.directory, *remove.volumes):
        if path and os.path.lexists(path):
            remove_tree(path, id_map, userns_fd=userns_fd)
