"""Namespaces, and a network, that are made before it is known which container is wanted. Nothing is launched here.

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
    """Open namespaces that wait for a container to live in them.

    id_map: that of the user namespace; fds: descriptors by the OCI runtime specification's name of the namespace type
    ("user", "network", "ipc", "uts"); helper: the process that connects the network, None without.
    """

    __slots__ = ("_helper", "fds", "id_map")

    def __init__(self, id_map: IdMap, fds: dict[str, int], helper: Helper | None) -> None:
        self.id_map = id_map
        self.fds = fds
        self._helper = helper

    def take(self, spec: LaunchSpec) -> Helper | None:
        """Keep in `fds` the namespaces that `spec` can use, and close the others.

        Returns the network helper if `spec` wants that one, None else. Without the right user namespace nothing fits,
        because that one owns the others: `fds` is empty then.
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
            wanted.discard("network")  # it has an interface that nobody asked for: the launch makes a new one
        for kind in [kind for kind in self.fds if kind not in wanted]:
            os.close(self.fds.pop(kind))
        return helper

    def close(self) -> None:
        """End the helper and close the namespaces. The kernel frees each with its last descriptor."""
        if self._helper is not None:
            self._helper.stop(wait=False)
            self._helper = None
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()


def prepare_namespaces(*, connected: bool) -> PreparedContainer | None:
    """Make the usual namespaces; None when the host refuses, for the launch will meet that refusal and report it.

    A child makes them, and this process opens them through /proc. A process that entered a user namespace itself could
    not come back (setns(2) wants CAP_SYS_ADMIN in the one outside), and the monitor has to serve from outside.
    connected: begin to connect the new network namespace with the default network as well.
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
                from rootless.network.helper_choice import guess
                from rootless.paths import user_directories

                helper = guess(user_directories().cache)
                prepared._helper = helper.start(OpenNetwork(prepared.fds["network"], prepared.fds["user"]), ())
    except (RootlessError, OSError):
        prepared.close()
    finally:
        os.close(ready)
        os.close(release)
        os.waitpid(child, 0)
    return prepared if prepared.fds else None


def _hold(tell: int, wait: int, release: int) -> NoReturn:
    """Be the child whose namespaces the monitor opens, and end when it has opened them, or has ended itself."""
    try:
        os.close(release)  # with our own copy open, the read below would never see the end of the pipe
        unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
        switch_on_loopback()
        os.write(tell, b"x")
        os.read(wait, 1)
    finally:
        os._exit(0)
