"""Ends what outlives the first process of a container that lives in another's pid namespace.

The kernel kills a pid namespace with its first process. A container that joined the namespace of another one, or of
the host, has no such end: its other processes would run on, and hold its files and ports, while every command says that
it has exited.
"""

from __future__ import annotations

import os

from rootless.kernel import procfs
from rootless.kernel.container_members import Members, certain_namespaces
from rootless.monitor import state
from rootless.records.state import LIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.state import ContainerNamespaces, ContainerState


def end_leftovers(directory: str, facts: ContainerState, *, is_certain: bool) -> None:
    """Kill all processes of the container in `directory` whose state is `facts`, where it has no pid namespace.

    is_certain: its first process has ended just now. Otherwise the namespaces may be gone and their inode numbers those
    of another container, whose processes must not be killed: they are then checked first, and left alone in doubt.
    """
    namespaces = facts.namespaces
    if namespaces is None or not namespaces.shares_processes:
        return
    sure: ContainerNamespaces | None = namespaces
    if not is_certain:
        sure = certain_namespaces(
            namespaces, lambda top: _is_root_of(directory, top), lambda pid: _sees_files_of(directory, pid)
        )
    if sure is None:
        return
    if sure.makes_user and _is_joined(directory, sure.user):
        sure.makes_user = False
    left = Members(sure, [pid for pid, _ in facts.helpers]).end()
    if left:
        state.add_note(directory, f"processes that do not end: {', '.join(map(str, left))}")


def _is_root_of(directory: str, top: int) -> bool:
    """Whether the descriptor `top` is this container's root directory: its /etc/hosts is the file made for that."""
    try:
        return os.path.samestat(os.stat("etc/hosts", dir_fd=top, follow_symlinks=False), os.stat(f"{directory}/hosts"))
    except OSError:
        return False


def _sees_files_of(directory: str, pid: int) -> bool:
    """Whether the file that was made as this container's /etc/hosts is mounted where process `pid` is.

    Nobody outside of the container's user namespace can look into a root of fuse-overlayfs (fuse(4), allow_other), but
    the mounts of a process can be read.
    """
    file = f"/{os.path.basename(directory)}/hosts"
    try:
        return any(mount.root.endswith(file) for mount in procfs.mountinfo(pid))
    except OSError:
        return False


def _is_joined(directory: str, user: tuple[int, int]) -> bool:
    """Whether another container of the store lives in the user namespace `user`, (inode, id).

    A user namespace that two containers share does not tell whose a process in it is.
    """
    containers, own = os.path.split(directory)
    for name in os.listdir(containers):
        other = state.read_state(f"{containers}/{name}") if name != own else None
        if other is not None and other.status in LIVE and other.namespaces and other.namespaces.user == user:
            return True
    return False
