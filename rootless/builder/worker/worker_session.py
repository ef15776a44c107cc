"""What lives in a worker from job to job, and what its jobs work in: shared namespaces, trees mounted for one job.

The user and network namespaces are made once, and the network is connected once, for all steps of one worker: these
cost most to make, because newuidmap, newgidmap and the network's helper are programs to be started. Every step has
mount, pid, ipc and uts namespaces of its own. This module knows no job, so that every job's module may import it.
"""

from __future__ import annotations

import os
import select
import signal

from rootless.errors import HostLimit
from rootless.host.mapping import write_maps
from rootless.kernel.namespaces import CLONE_NEWNET, CLONE_NEWUSER, OpenNetwork, setns, switch_on_loopback, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import NoReturn

    from rootless.builder.worker.step_jobs import LayerTree
    from rootless.network.helper import Helper
    from rootless.network.mode import HelperProgram
    from rootless.records.id_map import IdMap
    from rootless.storage.drivers import Mounter


class WorkerSession:
    """The namespaces that the steps of one worker share, and its connection to the build. pid: of the worker."""

    __slots__ = ("_namespaces", "connection", "pid")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.pid = os.getpid()
        self._namespaces: Namespaces | None = None

    def namespaces(self, id_map: IdMap) -> Namespaces:
        """The shared namespaces with the map `id_map`, made when they are first wanted. Raises HostLimit.

        A job with another map gets new ones, because the maps of a user namespace are written once.
        """
        if self._namespaces is not None and self._namespaces.id_map.key() != id_map.key():
            self.close()
        if self._namespaces is None:
            self._namespaces = Namespaces(id_map)
        return self._namespaces

    def call(self, id_map: IdMap, function: Callable[[], bytes]) -> bytes:
        """Run `function` in a forked child inside the user namespace of `id_map`, and return its result.

        Raises the error of `function`. The child is killed when the build is gone, wherever it is in its work, and
        HostLimit is raised.
        """
        from rootless.host.answer import LIMIT, decode_answer, fork_with_answer
        from rootless.host.userns import join_namespace

        user = self.namespaces(id_map).user

        def inside() -> bytes:
            join_namespace(user)
            return function()

        child, read_end = fork_with_answer(inside)
        poll = select.poll()
        poll.register(read_end, select.POLLIN)
        poll.register(self.connection, select.POLLIN | select.POLLRDHUP)
        answer = bytearray()
        try:
            while len(answer) <= LIMIT:
                ready = {fd for fd, _ in poll.poll()}
                if read_end not in ready:
                    # Between a job and its answer the build sends nothing: a connection that is readable has ended
                    raise HostLimit("the build is gone")
                piece = os.read(read_end, 1 << 16)
                if not piece:
                    return decode_answer(bytes(answer))
                answer += piece
            raise HostLimit(f"the answer of a child process is longer than {LIMIT} bytes")
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            os.close(read_end)
            os.waitpid(child, 0)

    def close(self) -> None:
        """End the helpers of the networks, and let go of the namespaces."""
        if self._namespaces is not None:
            self._namespaces.close()
            self._namespaces = None

    def wait(self, pidfd: int) -> None:
        """Return when the process of `pidfd` has ended. It is killed when the build is gone."""
        from rootless.kernel.process import pidfd_send_signal

        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self.connection, select.POLLIN | select.POLLRDHUP)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if pidfd in ready:
                return
            # Between a job and its answer the build sends nothing: a connection that is readable has ended
            poll.unregister(self.connection)
            try:
                pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Namespaces:
    """The namespaces of one worker. id_map: of the user namespace; user: its fd, -1 after `close`.

    Network namespaces are made when they are first wanted, one for each program that connects networks.
    """

    __slots__ = ("_networks", "id_map", "user")

    def __init__(self, id_map: IdMap) -> None:
        """Make the user namespace. Raises HostLimit."""
        self.id_map = id_map
        self._networks: dict[str, tuple[int, Helper]] = {}
        self.user = _made(id_map)

    def network(self, program: HelperProgram) -> tuple[int, Helper]:
        """(fd, helper) of the network namespace that `program` connects; `helper.ready` waits until it does."""
        found = self._networks.get(program.name)
        if found is None:
            found = self._networks[program.name] = _connected(self.user, program)
        return found

    def close(self) -> None:
        """End the helpers of the networks. The kernel ends a namespace with its last process and fd."""
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
        switch_on_loopback()

    with _Child(enter) as pid:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return fd, program.start(OpenNetwork(fd, user), ())
        except BaseException:
            os.close(fd)
            raise


class _Child:
    """A forked process that calls `enter`, which makes or joins namespaces, and stays in them until the `with` ends.

    Its namespaces can be opened through /proc meanwhile. Raises HostLimit with the reason why `enter` failed.
    """

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

        # /proc/PID of a process that is not dumpable belongs to root: nobody could write its maps or open its
        # namespaces
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


class MountedTree:
    """A tree of layers that a job reads. It is made outside of the step's namespaces and mounted inside of them."""

    __slots__ = ("_mounter", "_plan", "target")

    def __init__(self, tree: LayerTree) -> None:
        from rootless.storage import drivers

        self._plan = tree.rootfs
        self.target = tree.target
        self._mounter: Mounter = drivers.make_mounter(self._plan)

    def mount(self) -> None:
        """Mount the tree, inside of the step's namespaces. Raises RuntimeFailure."""
        self._mounter(self.target)

    def open(self) -> int:
        """Mount the tree, inside of the step's namespaces; an O_PATH fd of its root. Raises RuntimeFailure."""
        self.mount()
        return os.open(self.target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """End what the driver left. To be called outside of the step's namespaces, after these have gone."""
        from rootless.storage import drivers

        self._mounter.close()
        drivers.unmount_root(self._plan)


def own_mounts(worker: int) -> None:
    """Make this child of the worker with pid `worker` die with it, and give it a mount namespace, which ends with the
    child.

    MS_SLAVE: mounts of the child must not show outside. The umask is 0, because files get the modes that they are to
    have.
    """
    from rootless.kernel import mounts
    from rootless.kernel.namespaces import CLONE_NEWNS, unshare
    from rootless.kernel.process import end_with_parent

    end_with_parent(worker)
    unshare(CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_SLAVE)
    os.umask(0)
