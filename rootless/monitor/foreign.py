"""Runs a container with another OCI runtime (`--runtime crun`): calls it from inside the container's user namespace.

The agent that calls it is a forked child of the monitor (monitor.foreign_agent). The monitor makes and limits the
container's cgroup: the program is called in it and makes none.
"""

from __future__ import annotations

import array
import os
import socket

from rootless.errors import (
    HostLimit,
    RootlessError,
    RuntimeFailure,
)
from rootless.kernel import procfs
from rootless.kernel.process import pidfd_open
from rootless.monitor import cgroup
from rootless.monitor.foreign_agent import DELETE, START, RuntimeAgent, read_answer, write_bundle
from rootless.monitor.native import NetworkedRun, helper_identities, start_network
from rootless.monitor.state import add_note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.monitor.cgroup import AnyGroup, Holder
    from rootless.monitor.handover import RunHandover
    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.records.state import ContainerNamespaces
    from rootless.storage.drivers import Mounter


class ForeignRun(NetworkedRun):
    """A run under another runtime: the agent that called it, and the container's first process.

    That process is the monitor's child by adoption: the runtime that forked it has ended, and the monitor is the
    nearest subreaper (PR_SET_CHILD_SUBREAPER).
    """

    __slots__ = ("_agent", "_channel", "_spec", "console_fd", "group", "pid", "pidfd")

    def __init__(self, spec: LaunchSpec, agent: int, channel: socket.socket, pid: int, group: AnyGroup | None) -> None:
        super().__init__()
        self.group = group
        self._spec = spec
        self._agent = agent
        self._channel = channel
        self.pid = pid
        self.pidfd = pidfd_open(pid)
        self.console_fd: int | None = None

    def connect(self) -> None:
        """Begin to connect the network, without waiting.

        The runtime was executed inside of the user namespace, and so its child's namespaces can be opened at any time
        (OpenNetwork.of_process says when the kernel forbids that).
        """
        from rootless.kernel.namespaces import OpenNetwork

        try:
            opened = OpenNetwork.of_process(self.pid)
        except OSError as e:
            raise RuntimeFailure(f"the container's first process has no network to connect: {e.strerror}") from e
        try:
            self._helper = start_network(self._spec, opened)
        finally:
            opened.close()

    def start(self) -> None:
        """Wait for the network, then run PROGRAM start. Raises RuntimeFailure and its kin with the program's words."""
        self.wait_for_network()
        if self.group is not None:
            cgroup.apply_late(self.group, self._spec)
        self._channel.send(START)
        read_answer(self._channel)

    def wait(self) -> int:
        """Reap the container's first process; its exit code, 128+N when signal N ended it."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def helpers(self) -> list[tuple[int, int]]:
        """(pid, start time) of the agent and of the network helper."""
        return [(self._agent, procfs.start_time(self._agent)), *helper_identities(self._helper)]

    @property
    def namespaces(self) -> ContainerNamespaces | None:
        """The namespaces by which processes are found that outlive the first one; None where none can."""
        makes = self._spec.config.linux.makes
        if makes("pid") and makes("user"):
            return None
        from rootless.kernel.container_members import identify_namespaces

        found = identify_namespaces(self.pid)
        if found is not None:
            found.makes_user, found.shares_processes = makes("user"), not makes("pid")
        return found

    def forget(self, pid: int) -> str | None:
        """Drop child `pid`, which was reaped; return the network helper's last words if it was that one, None else."""
        if pid == self._agent:
            self._agent = -1
        return super().forget(pid)

    def hand_over(self) -> RunHandover | None:
        """None: a new image of this process would not know the agent's channel, and so this image stays."""
        return None

    def close(self, *, remove: bool = False) -> None:
        """Run PROGRAM delete --force, end the agent and the helpers, delete the container if it shall be removed."""
        from rootless.storage import drivers

        try:
            self._channel.send(DELETE)
            read_answer(self._channel)
        except (OSError, RootlessError):
            pass  # the agent has ended, and everything that its namespaces held went with it
        self._channel.close()
        for pid in (self._agent, self.pid):
            if pid <= 0:
                continue
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass
        os.close(self.pidfd)
        if self.group is not None:
            cgroup.remove_group(self.group, None, lambda text: add_note(self._spec.directory, text))
        if self._helper is not None:
            self._helper.stop()
            self._helper = None
        if self._spec.plan.rootfs is not None:
            drivers.unmount_root(self._spec.plan.rootfs)
        if remove:
            self._spec.remove_container()


def launch_container(spec: LaunchSpec, stdio: tuple[int, int, int] | None, holder: Holder | None = None) -> ForeignRun:
    """Create the container with PROGRAM create. Raises RuntimeFailure and its kin with the program's own words.

    stdio: the container's ends of stdin, stdout and stderr, None where it gets a terminal; holder: gives it a cgroup.
    """
    from rootless.storage import drivers

    program = _find(spec.plan.runtime or "")
    place = f"{spec.directory}/foreign"
    write_bundle(spec, place)
    listener = _ConsoleListener() if stdio is None else None
    mounter: Mounter | None = None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agent = -1
    group: AnyGroup | None = None
    try:
        if holder is not None:
            group = holder.make(spec, lambda text: add_note(spec.directory, text))
        if spec.plan.rootfs is not None:
            mounter = drivers.make_mounter(spec.plan.rootfs)
        monitor = os.getpid()
        agent = os.fork()
        if agent == 0:
            RuntimeAgent(spec, program, place, theirs, group).live(
                monitor, mounter, stdio, listener.path if listener else None
            )
        theirs.close()
        run = ForeignRun(spec, agent, ours, read_answer(ours), group)
        if listener is not None:
            run.console_fd = listener.receive()
        run.connect()
    except BaseException:
        ours.close()
        if agent > 0:
            os.waitpid(agent, 0)  # the agent sees the end of the channel, and kills and deletes what it has made
        if group is not None:
            cgroup.remove_group(group, None, lambda text: add_note(spec.directory, text))
        raise
    finally:
        theirs.close()
        if mounter is not None:
            mounter.close()
        if listener is not None:
            listener.close()
    return run


def _find(name: str) -> str:
    from rootless.host.facts import find_helper

    path = name if name.startswith("/") else find_helper(name)
    if path is None or not os.access(path, os.X_OK):
        raise HostLimit(f"cannot find runtime '{name}'", hint="install it, or give its absolute path to --runtime")
    return path


class _ConsoleListener:
    """The socket to which a runtime sends the terminal's master (--console-socket), below a private directory.

    The directory is in /tmp because the socket's name, which the runtime must use, may have 107 bytes only. Its mode
    keeps other users from connecting first and sending a terminal of theirs, where the user's input would go.
    """

    def __init__(self) -> None:
        self._directory = f"/tmp/rootless-{os.urandom(8).hex()}"  # noqa: S108 - mkdir fails when it exists
        os.mkdir(self._directory, 0o700)
        self.path = f"{self._directory}/console"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self.path)
        self._socket.listen(1)
        self._socket.settimeout(5)

    def receive(self) -> int:
        """The descriptor of the terminal's master, after PROGRAM create. Raises RuntimeFailure when none comes."""
        try:
            connection, _ = self._socket.accept()
            connection.settimeout(5)
            with connection:
                _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC)
        except OSError as e:
            raise RuntimeFailure(f"the runtime sent no terminal: {e}") from e
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        # The kernel has installed every descriptor of the message: one that is not closed here stays open for ever
        for extra in fds[1:]:
            os.close(extra)
        if not fds:
            raise RuntimeFailure("the runtime sent no terminal")
        return fds[0]

    def close(self) -> None:
        """Remove the socket and its directory; harmless when they are gone."""
        self._socket.close()
        for remove, path in ((os.unlink, self.path), (os.rmdir, self._directory)):
            try:
                remove(path)
            except OSError:
                pass
