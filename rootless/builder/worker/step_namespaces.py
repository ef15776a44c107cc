"""The user and network namespaces that the steps of one worker share: made once, the network connected once.

Every step has mount, pid, ipc and uts namespaces of its own; what is shared is what costs most to make: the id maps
(two programs) and the network's helper.
"""

from __future__ import annotations

import os

from rootless.errors import HostLimit
from rootless.host.mapping import write_maps
from rootless.kernel import loopback
from rootless.kernel.namespaces import CLONE_NEWNET, CLONE_NEWUSER, setns, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from rootless.network.helper import Helper
    from rootless.network.mode import HelperProgram
    from rootless.records.id_map import IdMap


class Namespaces:
    """What this worker has made. `user` is the fd of the user namespace; networks are made when first wanted."""

    __slots__ = ("_networks", "id_map", "user")

    def __init__(self, id_map: IdMap) -> None:
        """Make the user namespace. Raises HostLimit."""
        self.id_map = id_map
        self._networks: dict[str, tuple[int, Helper]] = {}
        self.user = _made(id_map)

    def network(self, program: HelperProgram) -> tuple[int, Helper]:
        """(fd, helper) of the network namespace that `program` connects; it may not be ready yet."""
        found = self._networks.get(program.name)
        if found is None:
            found = self._networks[program.name] = _connected(self.user, program)
        return found

    def close(self) -> None:
        """End the helpers; the namespaces end with their last process."""
        for fd, helper in self._networks.values():
            helper.stop(wait=False)
            os.close(fd)
        self._networks.clear()
        if self.user >= 0:
            os.close(self.user)
            self.user = -1


def _made(id_map: IdMap) -> int:
    with _Child(lambda: unshare(CLONE_NEWUSER)) as pid:
        write_maps(pid, id_map)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def _connected(user: int, program: HelperProgram) -> tuple[int, Helper]:
    def enter() -> None:
        setns(user, CLONE_NEWUSER)
        unshare(CLONE_NEWNET)
        loopback.switch_on()

    with _Child(enter) as pid:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return fd, program.start(pid, ())
        except BaseException:
            os.close(fd)
            raise


class _Child:
    """A forked process that does one thing to its namespaces and stays in them until the `with` ends."""

    __slots__ = ("_pid", "_release")

    def __init__(self, enter: Callable[[], None]) -> None:
        ready, tell = os.pipe2(os.O_CLOEXEC)
        wait, self._release = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._release)
            _stay(enter, tell, wait)
        os.close(tell)
        os.close(wait)
        try:
            words = os.read(ready, 4096)
        finally:
            os.close(ready)
        if words != b"+":
            self.__exit__()
            raise HostLimit(f"cannot make namespaces for the build: {words.decode('utf-8', 'replace')}")

    def __enter__(self) -> int:
        return self._pid

    def __exit__(self, *_: object) -> None:
        if self._release >= 0:
            os.close(self._release)
            self._release = -1
            os.waitpid(self._pid, 0)


def _stay(enter: Callable[[], None], tell: int, wait: int) -> NoReturn:
    try:
        from rootless.kernel.process import set_dumpable

        set_dumpable(True)
        try:
            enter()
        except OSError as e:
            os.write(tell, (e.strerror or str(e)).encode())
        else:
            os.write(tell, b"+")
            os.close(tell)
            os.read(wait, 1)
    finally:
        os._exit(0)
