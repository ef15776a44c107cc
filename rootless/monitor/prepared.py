"""Namespaces, and a network, made before anybody has said which container is wanted. It launches nothing.

The monitor waits while the command line still loads and plans. What most containers want is known: the default id map,
own network, ipc and uts namespaces, and (as the console script guesses from its words) the default network. What turns
out not to fit is closed, which undoes it.
"""

from __future__ import annotations

import os

from rootless.errors import RootlessError
from rootless.kernel.namespaces import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    OpenNetwork,
    switch_on_loopback,
    unshare,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.network.helper import Helper
    from rootless.records.id_map import IdMap

_FILES = {"user": "user", "network": "net", "ipc": "ipc", "uts": "uts"}


class PreparedContainer:
    """id_map: of the user namespace; fds: by the OCI's name of the type; helper: connects the network, or None."""

    __slots__ = ("_helper", "fds", "id_map")

    def __init__(self, id_map: IdMap, fds: dict[str, int], helper: Helper | None) -> None:
        self.id_map = id_map
        self.fds = fds
        self._helper = helper

    def take(self, spec: LaunchSpec) -> Helper | None:
        """Keep what `spec` can use, close the rest; the network helper if it is the one that `spec` wants.

        Where nothing fits, `fds` is empty afterwards.
        """
        wanted = {namespace.kind for namespace in spec.config.linux.namespaces if not namespace.path}
        if "user" not in wanted or self.id_map != (spec.plan.outer_map or spec.plan.id_map):
            self.close()
            return None
        helper, self._helper = self._helper, None
        network = spec.plan.network
        fits = helper is None or (network.mode == helper.name and not network.ports and not network.options)
        if not fits and helper is not None:
            helper.stop(wait=False)
            helper = None
            wanted.discard("network")  # it has an interface that nobody asked for: a new one instead
        for kind in [kind for kind in self.fds if kind not in wanted]:
            os.close(self.fds.pop(kind))
        return helper

    def close(self) -> None:
        """End the helper and close the namespaces, which end with that."""
        if self._helper is not None:
            self._helper.stop(wait=False)
            self._helper = None
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()


def prepare(*, connected: bool) -> PreparedContainer | None:
    """Make the usual namespaces. connected: with the default network already.

    None when the host refuses: the launch will meet the same refusal and tell it.
    """
    from rootless.host.mapping import write_maps
    from rootless.host.subid import default_id_map

    try:
        id_map = default_id_map()
        ready, tell = os.pipe2(os.O_CLOEXEC)
        wait, release = os.pipe2(os.O_CLOEXEC)
    except (RootlessError, OSError):
        return None
    child = os.fork()
    if child == 0:
        _hold(tell, wait, release)
    os.close(tell)
    os.close(wait)
    prepared = PreparedContainer(id_map, {}, None)
    try:
        if os.read(ready, 1):
            write_maps(child, id_map)
            for kind, name in _FILES.items():
                prepared.fds[kind] = os.open(f"/proc/{child}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            if connected:
                from rootless.network.modes import DEFAULT

                prepared._helper = DEFAULT.start(OpenNetwork(prepared.fds["network"], prepared.fds["user"]))
    except (RootlessError, OSError):
        prepared.close()
    finally:
        os.close(ready)
        os.close(release)
        os.waitpid(child, 0)
    return prepared if prepared.fds else None


def _hold(tell: int, wait: int, release: int) -> NoReturn:
    """The child whose namespaces they are, until others have them open."""
    try:
        os.close(release)
        unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
        switch_on_loopback()
        os.write(tell, b"x")
        os.read(wait, 1)
    finally:
        os._exit(0)
