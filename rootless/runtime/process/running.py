"""A container's process as its launcher holds it: the start gate, the wait, the fds. It sets nothing up."""

from __future__ import annotations

import os
import signal

from rootless.errors import RuntimeFailure
from rootless.kernel import process as kernel
from rootless.runtime.channel import Channel, Order, Report, pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from rootless.records.state import ContainerNamespaces
    from rootless.runtime.spec.oci_state import OciState


class Process:
    """A process of a container. pid: as this process sees it; pidfd; console_fd: the pty's master, None without.

    userns_fd: the container's user namespace, None where it is the caller's. on_listener: gets the listener of a filter
    that has one, before the command runs.
    state: what startContainer hooks get; None for a process that joined. namespaces: noted where a pid or user
    namespace is another's, None else.
    """

    __slots__ = (
        "_channel",
        "_helper",
        "_keeper",
        "_status",
        "console_fd",
        "namespaces",
        "on_listener",
        "pid",
        "pidfd",
        "state",
        "userns_fd",
        "warn",
    )

    def __init__(self, pid: int, channel: Channel, warn: Callable[[str], None]) -> None:
        self.pid = pid
        self.pidfd = kernel.pidfd_open(pid)
        self.console_fd: int | None = None
        self.userns_fd: int | None = None
        self.namespaces: ContainerNamespaces | None = None
        self.warn = warn
        self.state: OciState | None = None
        self.on_listener: Callable[[int], None] | None = None
        self._channel: Channel | None = channel
        self._helper: int | None = None
        self._keeper: Channel | None = None
        self._status: int | None = None

    def start(self, state: OciState | None = None) -> None:
        """Open the gate; return when the command runs. Raises what kept it from running; the process has ended then.

        state: of the container, for its startContainer hooks, in place of the attribute `state`.
        """
        channel = self._channel
        if channel is None:
            raise RuntimeFailure("the container has been started before")
        self.release()
        self._channel = None
        try:
            try:
                channel.send(Order("start", state or self.state))
            except OSError as e:
                raise RuntimeFailure("the container's first process ended before its start") from e
            await_exec(channel, self.warn, self.on_listener)
        except BaseException:
            self.destroy()
            raise
        finally:
            channel.close()

    def detach(self) -> None:
        """Leave the start to whoever connects to the gate; this process may end."""
        self.release()
        if self._channel is not None:
            self._channel.send(Order("detach"))
            self._channel.close()
            self._channel = None

    def release(self) -> None:
        """Let the first child end and reap it, which makes the process that it forked our child."""
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        if self._helper is not None:
            os.waitpid(self._helper, 0)
            self._helper = None

    def adopt(self, helper: int, keeper: Channel) -> None:
        """Note the first child, which ends when `keeper` is closed."""
        self._helper = helper
        self._keeper = keeper

    def wait(self) -> int:
        """The exit status: 0..255, 128+n after signal n. Blocks; may be called again."""
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self.set_status(status)
        assert self._status is not None
        return self._status

    def set_status(self, wait_status: int) -> None:
        """Note the status of a waitpid that the caller has done himself."""
        code = os.waitstatus_to_exitcode(wait_status)
        self._status = code if code >= 0 else 128 - code

    def kill(self) -> None:
        """End the process, started or not, and reap it; harmless when it has ended."""
        if self._status is None and self.pidfd >= 0:
            try:
                kernel.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.release()
            try:
                self.wait()
            except ChildProcessError:
                pass

    def destroy(self) -> None:
        """`kill` and `close`, for a launch that failed."""
        self.kill()
        self.close()

    def close_console(self) -> None:
        """Close the pty's master: the processes on it get SIGHUP."""
        if self.console_fd is not None:
            os.close(self.console_fd)
            self.console_fd = None

    def close(self) -> None:
        """Close the fds that belong to this object."""
        for name in ("pidfd", "console_fd", "userns_fd"):
            fd = getattr(self, name)
            if fd is not None and fd >= 0:
                os.close(fd)
        self.pidfd = -1
        self.console_fd = self.userns_fd = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None


class FirstChild:
    """The process that a launcher has forked, which enters the namespaces and forks the process that is wanted.

    pid: its own; channel: to it; inner: to the process that it forks.
    """

    __slots__ = ("channel", "inner", "pid")

    def __init__(self, pid: int, channel: Channel, inner: Channel) -> None:
        self.pid = pid
        self.channel = channel
        self.inner = inner

    def follow(self, warn: Callable[[str], None]) -> Process:
        """The process that it forks, as soon as it has told its pid. The first child stays until `Process.release`."""
        report, _ = expect(self.channel, "init", warn)
        process = Process(report.pid, self.inner, warn)
        process.adopt(self.pid, self.channel)
        process.namespaces = report.namespaces
        return process

    def abandon(self) -> None:
        """Kill and reap it, before it has forked; harmless when it has ended."""
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def close(self) -> None:
        """Close our ends of both channels."""
        self.channel.close()
        self.inner.close()


def fork_first_child(life: Callable[[Channel, Channel, int], NoReturn]) -> FirstChild:
    """Fork a process that lives `life`, with its ends of both channels and our pid.

    This process becomes a child subreaper (prctl(2)): the process that the first child forks is then our child, for
    which waitpid works, once the first child has ended.
    """
    kernel.set_child_subreaper()
    ours, theirs = pair()
    inner_ours, inner_theirs = pair()
    caller = os.getpid()
    child = os.fork()
    if child == 0:
        ours.close()
        inner_ours.close()
        life(theirs, inner_theirs, caller)
    theirs.close()
    inner_theirs.close()
    return FirstChild(child, ours, inner_ours)


def expect(channel: Channel, at: str | None, warn: Callable[[str], None]) -> tuple[Report, list[int]]:
    """The next report that is no warning, and its fds. Raises the error that came in place of it.

    at: the point that the process must have reached, None for any.
    """
    while True:
        report, fds = channel.receive_report()
        if report is None:
            raise RuntimeFailure("the container's first process was killed while it was set up")
        if report.warning:
            warn(report.warning)
        elif report.error is not None:
            raise report.error
        elif at is not None and report.at != at:
            raise RuntimeFailure(f"the container's first process said '{report.at}' in place of '{at}'")
        else:
            return report, fds


def await_exec(channel: Channel, warn: Callable[[str], None], on_listener: Callable[[int], None] | None = None) -> None:
    """Return when the peer has become the command: it announced that, and its end of the channel closed at execve.

    on_listener: gets a seccomp listener that the peer hands over; it must not keep the fd. The peer waits for it. The
    filter of the command is loaded after the announcement, those of startContainer hooks before it.
    """
    announced = False
    while True:
        report, fds = channel.receive_report()
        if report is None:
            if announced:
                return
            raise RuntimeFailure("the container's first process was killed before its command")
        if report.warning:
            warn(report.warning)
        elif report.at == "listener" and on_listener is not None:
            try:
                on_listener(fds[0])
            finally:
                os.close(fds[0])
            channel.send(Order("go on"))
        elif report.at == "exec" and not announced:
            announced = True
        else:
            raise report.error or RuntimeFailure(f"the container's first process said '{report.at}' before its command")
