"""The namespaces of a new container: its own, the host's, or another container's. It reads records and /proc.

A container that joins a namespace of another container joins the user namespace of that as well: setns(2) asks for
CAP_SYS_ADMIN in the user namespace that owns the one to join. Beside that, ids then mean the same in both containers.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from rootless.engine.plan.bundle import NamespaceChoice
from rootless.errors import InvalidState, UsageError
from rootless.network.modes import recorded_mode
from rootless.records.container_options import ContainerOptions
from rootless.records.id_map import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine

_FILES = {"pid": "pid", "ipc": "ipc", "uts": "uts", "network": "net", "cgroup": "cgroup", "user": "user"}


class Joined(NamedTuple):
    """The namespaces of a container, and what comes with those that it joins.

    id_map: of the container whose user namespace is joined, None where it has its own; network: id of the container
    whose network is shared, None where none is.
    """

    namespaces: NamespaceChoice
    id_map: IdMap | None = None
    network: str | None = None


def named_containers(options: ContainerOptions) -> dict[str, str]:
    """The containers that the options name by `container:NAME`: kind of namespace → NAME.

    Raises UsageError for a mode that does not exist.
    """
    found = {}
    for kind, flag, value in (
        ("pid", "--pid", options.pid),
        ("ipc", "--ipc", options.ipc),
        ("uts", "--uts", options.uts),
        ("cgroup", "--cgroupns", options.cgroupns),
        ("network", "--network", options.network),
        ("user", "--userns", options.userns),
    ):
        if value and value.startswith("container:"):
            name = value.removeprefix("container:")
            if not name:
                raise UsageError(f"invalid {flag} '{value}': a container name or id is missing")
            found[kind] = name
        elif kind not in ("network", "user") and value not in _modes(kind):
            raise UsageError(f"invalid {flag} mode '{value}'", hint="use private, host or container:NAME")
    return found


def _modes(kind: str) -> tuple[str | None, ...]:
    return (None, "", "private", "host", *(("shareable", "none") if kind == "ipc" else ()))


def resolve(engine: Engine, options: ContainerOptions, network_mode: str) -> Joined:
    """Find out each namespace of a new container. network_mode: the mode that --network or the settings ask for.

    Raises InvalidState when a container to join does not run; UsageError when two with different user namespaces are
    asked for, as a process is in one only, and for one that has none of the user's own ids.
    """
    named = named_containers(options)
    how = {
        "pid": "host" if options.pid == "host" else "private",
        "ipc": "host" if options.ipc == "host" else "private",
        "uts": "host" if options.uts == "host" else "private",
        "cgroup": "host" if options.cgroupns == "host" else "private",
        "network": "private" if recorded_mode(network_mode).has_own_namespace else "host",
    }
    if not named:
        return Joined(NamespaceChoice(**how))
    from rootless.engine.container.reconcile import running_pid
    from rootless.kernel.procfs import visible_process
    from rootless.storage.drivers.writable import is_reachable

    id_map: IdMap | None = None
    network = None
    users = {}
    for kind, text in named.items():
        container_id = engine.store.containers.find(text)
        pid = running_pid(engine, container_id)
        if not pid:
            raise InvalidState(
                f"cannot join the {kind} namespace of container '{text}': it is not running",
                hint=f"rootless start {text}",
            )
        pid = visible_process(pid)
        try:
            users[os.stat(f"/proc/{pid}/ns/user").st_ino] = f"/proc/{pid}/ns/user"
        except OSError as e:
            raise InvalidState(f"cannot join container '{text}': {e.strerror}") from e
        if kind != "user":
            how[kind] = f"/proc/{pid}/ns/{_FILES[kind]}"
        if kind == "network":
            network = container_id
        id_map = engine.store.containers.read(container_id).id_map
        if not is_reachable(id_map):
            raise UsageError(
                f"cannot share namespaces of container '{text}': it has none of your own ids (--userns=nomap), and its "
                "root cannot reach your files"
            )
    if len(users) > 1:
        raise UsageError(
            "the containers to join have user namespaces of their own, and a process is in only one",
            hint="start the second with --userns=container:FIRST",
        )
    return Joined(NamespaceChoice(user=next(iter(users.values())), **how), id_map, network)
