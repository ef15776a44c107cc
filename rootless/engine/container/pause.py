"""`pause` and `unpause`: every process of a container is stopped and continued, by the freezer of its cgroup.

Without a cgroup of its own a container has no freezer, and SIGSTOP stands in. That is weaker: a parent inside sees its
children stop (waitpid(2), WUNTRACED) and may continue them. Which processes are a container's is decided by namespaces,
never by names, which a process chooses itself.
"""

from __future__ import annotations

import os
import signal

from rootless.engine import events
from rootless.engine.container.container_cgroup import group_of
from rootless.engine.container.reconcile import state_of
from rootless.errors import HostLimit, InvalidState, RootlessError
from rootless.kernel import procfs
from rootless.kernel.container_members import Members
from rootless.kernel.process import pidfd_open, pidfd_send_signal
from rootless.records.state import LIVE, ContainerNamespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.context import Engine
    from rootless.records.state import ContainerState

# How often the container's processes are listed anew, as some fork while others are being stopped. One that forks
# faster than it is stopped would keep `pause` busy for ever
_ROUNDS = 20
_OPEN = 500  # processes that are open at once: a process may have 1024 files open, as a rule


def pause_container(engine: Engine, container: str) -> None:
    """Stop all processes of a running container. Raises NotFound, InvalidState, HostLimit."""
    container_id, directory, state = _running(engine, container, wanted="running")
    # The mark comes first, and `unpause` removes it last: if either is killed in between, the container still counts as
    # paused and can be continued. Processes stopped without the mark could be continued by no command
    try:
        os.close(os.open(f"{directory}/paused", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as e:
        raise HostLimit(f"cannot write '{directory}/paused': {e.strerror}") from e
    record = engine.store.containers.read(container_id)
    group = group_of(state)
    if group is not None:
        try:
            group.freeze()
        except HostLimit as e:
            engine.warn(f"paused by SIGSTOP: {e.message}")
        else:
            events.record_container(engine, record, "pause")
            return
    stopped: set[int] = set()

    def members() -> list[int]:
        return processes_of(engine, container_id, state)

    for _ in range(_ROUNDS):
        fresh = [p for p in members() if p not in stopped]
        if not fresh:
            break
        _signal_all(fresh, signal.SIGSTOP, members)
        stopped.update(fresh)
    if group is None:
        engine.warn(f"container {container_id[:12]} has no cgroup of its own: paused by SIGSTOP, not by the freezer")
    events.record_container(engine, record, "pause")


def unpause_container(engine: Engine, container: str) -> None:
    """Continue all processes of a paused container. Raises NotFound, InvalidState, HostLimit."""
    container_id, directory, state = _running(engine, container, wanted="paused")
    group = group_of(state)
    if group is not None:
        group.thaw()
    # Processes may have been stopped by SIGSTOP where the freezer failed, and no file says whether they were. One that
    # had stopped itself before the pause goes on as well, as it cannot be told apart
    _signal_all(
        processes_of(engine, container_id, state), signal.SIGCONT, lambda: processes_of(engine, container_id, state)
    )
    try:
        os.unlink(f"{directory}/paused")
    except FileNotFoundError:
        pass
    events.record_container(engine, engine.store.containers.read(container_id), "unpause")


def _running(engine: Engine, container: str, *, wanted: str) -> tuple[str, str, ContainerState]:
    container_id = engine.store.containers.find(container)
    state = state_of(engine, container_id)
    if state.remote:
        raise InvalidState(f"container '{container}' runs on host '{state.remote}'")
    if state.status != wanted:
        problem = {"running": "is not running", "paused": "is not paused"}[wanted]
        if state.status == "paused":
            problem = "is already paused"
        raise InvalidState(f"container {container} {problem}")
    return container_id, engine.store.containers.path(container_id), state


def processes_of(engine: Engine, container_id: str, state: ContainerState) -> list[int]:
    """The host pids of all processes of a running container, that of its first process first.

    They are in the pid namespace of the first one, or descend from a process that is (nested namespaces). Where the
    container shares the pid namespace of another, the mount and user namespace say whose a process is. Descent would
    not: a process whose parent ends becomes the child of another one, and it can arrange for that (a double fork).
    """
    known = state.namespaces
    if known is not None and known.shares_processes:
        namespaces = ContainerNamespaces(known.mount, known.user)
        namespaces.makes_user = known.makes_user and not _is_joined(engine, container_id, known.user)
        members = set(Members(namespaces, [pid for pid, _ in state.helpers]).pids()) | {state.pid}
    else:
        members = _of_pid_namespace(state.pid)
    return sorted(members, key=lambda pid: (pid != state.pid, pid))


def _is_joined(engine: Engine, container_id: str, user: tuple[int, int]) -> bool:
    """Whether another running container is in the user namespace `user`, which then does not say whose a process is."""
    for other in engine.store.containers.list():
        try:
            state = engine.store.containers.read_state(other) if other != container_id else None
        except RootlessError:
            continue  # the container is damaged, of which `ps` warns
        if state is not None and state.status in LIVE and state.namespaces and state.namespaces.user == user:
            return True
    return False


def _of_pid_namespace(init: int) -> set[int]:
    """The processes in the pid namespace of `init` and in those below it.

    Where that namespace is our own one (the container has --pid=host) it holds all of the user's processes, and only
    the descendants of `init` count.
    """
    own = _namespace(init)
    is_host = own == _namespace(os.getpid())
    parents: dict[int, int] = {}
    members = {init}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        pid = int(name)
        try:
            parents[pid] = procfs.read_stat(pid).parent
        except OSError:
            continue
        if own is not None and not is_host and _namespace(pid) == own:
            members.add(pid)
    grown = True
    while grown:
        fresh = {pid for pid, parent in parents.items() if parent in members and pid not in members}
        members |= fresh
        grown = bool(fresh)
    return members


def _namespace(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None


def _signal_all(pids: list[int], number: int, members: Callable[[], list[int]]) -> None:
    """Send signal `number` to those of `pids` that are still among `members()`, and to no process that took a number.

    Some processes are opened first, as many as one process may, and the members are listed after that: a number that
    has changed hands in between leads to a descriptor of a process that has ended, or to one that is no member.
    """
    for first in range(0, len(pids), _OPEN):
        _signal_some(pids[first : first + _OPEN], number, members)


def _signal_some(pids: list[int], number: int, members: Callable[[], list[int]]) -> None:
    opened: dict[int, int] = {}
    try:
        for pid in pids:
            try:
                opened[pid] = pidfd_open(pid)
            except ProcessLookupError:
                continue
            except OSError as e:
                raise HostLimit(f"cannot open process {pid} of the container: {e.strerror}") from e
        for pid in set(members()) & set(opened):
            try:
                pidfd_send_signal(opened[pid], number)
            except ProcessLookupError:
                continue
            except OSError as e:
                raise HostLimit(f"cannot signal process {pid} of the container: {e.strerror}") from e
    finally:
        for fd in opened.values():
            os.close(fd)
