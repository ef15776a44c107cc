"""Ends what outlives the first process of a container in another's pid namespace. Others say when."""

from __future__ import annotations

import os

from rootless.kernel.container_members import Members, certain_namespaces
from rootless.monitor import state
from rootless.records.state import LIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.state import ContainerState


def end_leftovers(directory: str, facts: ContainerState, *, is_certain: bool) -> None:
    """Kill all processes of the container in `directory` whose state is `facts`, where it has no pid namespace.

    is_certain: its first process has ended just now; else the namespaces may be gone, and their numbers another's.
    """
    namespaces = facts.namespaces
    if namespaces is None or not namespaces.shares_processes:
        return
    sure = namespaces if is_certain else certain_namespaces(namespaces, lambda top: _is_root_of(directory, top))
    if sure is None:
        return
    if sure.makes_user and _is_joined(directory, sure.user):
        sure.makes_user = False
    left = Members(sure, [pid for pid, _ in facts.helpers]).end()
    if left:
        state.note(directory, f"processes that do not end: {', '.join(map(str, left))}")


def _is_root_of(directory: str, top: int) -> bool:
    """Whether `top` is the root directory of this container: its /etc/hosts is the file that was made for it."""
    try:
        return os.path.samestat(os.stat("etc/hosts", dir_fd=top, follow_symlinks=False), os.stat(f"{directory}/hosts"))
    except OSError:
        return False


def _is_joined(directory: str, user: tuple[int, int]) -> bool:
    """Whether another container of the store lives in this user namespace: then it does not tell whose a process is."""
    containers, own = os.path.split(directory)
    for name in os.listdir(containers):
        other = state.read(f"{containers}/{name}") if name != own else None
        if other is not None and other.status in LIVE and other.namespaces and other.namespaces.user == user:
            return True
    return False
