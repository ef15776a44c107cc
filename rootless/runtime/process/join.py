"""Runs one more process in a container that runs (`exec`). It knows the container by its first pid only."""

from __future__ import annotations

import gc
import os

from rootless.errors import InvalidState, RuntimeFailure
from rootless.kernel import process as kernel
from rootless.kernel.namespaces import CLONE_NEWPID, setns
from rootless.kernel.tty import set_winsize
from rootless.runtime import capabilities
from rootless.runtime.channel import Channel, Order, Report
from rootless.runtime.operations.devices import open_pty
from rootless.runtime.process import session_keyring
from rootless.runtime.process.command import (
    ProcessCommand,
    ProcessOptions,
    ProcessStreams,
    SeccompFilters,
    execute,
    find_program,
    set_home,
)
from rootless.runtime.process.inside import (
    Conversation,
    die_with,
    restore_signals,
    set_labels,
    set_oom_score,
    take_stdio,
    take_terminal,
)
from rootless.runtime.process.namespace_steps import FILES, FLAGS
from rootless.runtime.process.nested import give_streams_from_outside, is_without_us
from rootless.runtime.process.running import Process, expect, fork_first_child
from rootless.runtime.process.scheduling import apply_affinity, apply_inherited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from rootless.runtime.spec.oci_config import OciConfig
    from rootless.runtime.spec.process_config import OciProcess


class Joining:
    """One more process for a container that runs. pid: of the container's first process; config: the container's.

    The configuration tells what `process` does not say itself (oomScoreAdj, personality). A process with a terminal
    gets a new pty of the container, whose master is in the result; on_console: called with it before the process runs.
    on_listener: gets the listener of a filter that has
    one, and the pid; start_time: of `pid` in clock ticks, None where the caller has none on record; join_cgroup: called
    with the pid of the process that joins, before it enters a namespace; warn: gets one line for each thing that is
    weaker than asked.
    """

    __slots__ = (
        "config",
        "filters",
        "join_cgroup",
        "on_console",
        "on_listener",
        "options",
        "pid",
        "process",
        "start_time",
        "streams",
        "warn",
    )

    def __init__(self, pid: int, process: OciProcess, config: OciConfig) -> None:
        self.pid = pid
        self.process = process
        self.config = config
        self.streams = ProcessStreams()
        self.filters = SeccompFilters()
        self.options = ProcessOptions()
        self.on_console: Callable[[int], None] | None = None
        self.on_listener: Callable[[int, int], None] | None = None
        self.start_time: int | None = None
        self.join_cgroup: Callable[[int], None] | None = None
        self.warn: Callable[[str], None] = lambda text: None


def exec_process(joining: Joining) -> Process:
    """Start the process in its container; return once its command runs.

    Raises InvalidState when the container does not run, or its pid belongs to another process by now; else what
    `Process.start` raises.
    """
    preserved = joining.streams.preserved()
    target = _open_target(joining.pid, joining.start_time)
    try:
        command = ProcessCommand(
            joining.process,
            joining.filters,
            joining.options,
            preserved,
            single_id=_denies_setgroups(joining.pid),
        )
        for line in command.sets.warnings:
            joining.warn(line)
        return _follow(joining, _Joiner(command, target, joining.streams.stdio, joining.config))
    finally:
        target.close()


def _follow(joining: Joining, joiner: _Joiner) -> Process:
    """Our side of the conversation; whatever fails, both children are gone afterwards."""
    child = fork_first_child(joiner.outer)
    process: Process | None = None
    try:
        expect(child.channel, "ready", joining.warn)
        if joining.join_cgroup is not None:
            joining.join_cgroup(child.pid)
        child.channel.send(Order("join"))
        process = child.follow(joining.warn)
        on_listener, pid = joining.on_listener, process.pid
        if on_listener is not None:
            process.on_listener = lambda fd: on_listener(fd, pid)
        _until_started(process, child.inner, joining)
        return process
    except BaseException:
        if process is not None:
            process.destroy()
        else:
            child.abandon()
        child.close()
        raise


def _until_started(process: Process, channel: Channel, joining: Joining) -> None:
    """Take the terminal that the process tells of, and start its command as soon as it is ready for that."""
    while True:
        report, fds = expect(channel, None, joining.warn)
        if report.at == "console":
            process.console_fd = fds[0]
            if joining.on_console is not None:
                joining.on_console(fds[0])
        elif report.at == "created":
            process.start()
            return
        else:
            raise RuntimeFailure(f"the joining process said '{report.at}'")


class _Target:
    """The container's first process, held by a pidfd, and the namespaces of it that are not ours.

    root: O_PATH fd of its root directory; spaces: (CLONE_NEW*, fd) each; flags: all of these CLONE_NEW* together.
    """

    __slots__ = ("flags", "pid", "pidfd", "root", "spaces")

    def __init__(self, pid: int, pidfd: int, root: int, spaces: list[tuple[int, int]]) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.root = root
        self.spaces = spaces
        self.flags = 0
        for flag, _ in spaces:
            self.flags |= flag

    def close(self) -> None:
        for fd in (self.pidfd, self.root, *(fd for _, fd in self.spaces)):
            os.close(fd)


def _open_target(pid: int, start_time: int | None) -> _Target:
    """Pidfd first, then the look whether it is the right process: so no number can be reused in between."""
    from rootless.kernel import procfs

    try:
        if start_time is not None and procfs.start_time(pid) != start_time:
            raise ProcessLookupError
        try:
            return _open_process(pid)
        except PermissionError:
            # our own reaper as pid 1 lets nobody in: its child, the command, has the same namespaces
            for child in procfs.child_pids(pid):
                try:
                    return _open_process(child)
                except OSError:
                    continue
            raise
    except (ProcessLookupError, FileNotFoundError):
        raise InvalidState(f"the container does not run: its process {pid} has ended") from None
    except OSError as e:
        raise RuntimeFailure(f"cannot join process {pid}: {e.strerror}") from e


def _open_process(pid: int) -> _Target:
    opened: list[int] = [kernel.pidfd_open(pid)]
    try:
        opened.append(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        spaces = []
        for kind, flag in FLAGS.items():
            try:
                fd = os.open(f"/proc/{pid}/ns/{FILES[kind]}", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # a kernel without this kind of namespace
            opened.append(fd)
            theirs, own = os.fstat(fd), os.stat(f"/proc/self/ns/{FILES[kind]}")
            if (theirs.st_dev, theirs.st_ino) != (own.st_dev, own.st_ino):
                spaces.append((flag, fd))
            else:
                os.close(opened.pop())
        # still there: then all of the above were its files
        kernel.pidfd_send_signal(opened[0], 0)
    except OSError:
        for fd in opened:
            os.close(fd)
        raise
    return _Target(pid, opened[0], opened[1], spaces)


def _denies_setgroups(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/setgroups") as f:
            return f.read().strip() == "deny"
    except OSError:
        return False


class _Joiner:
    """The two forked processes: one joins the namespaces, its child is in the pid namespace and becomes the command.

    CVE-2016-9962, CVE-2019-5736: neither is dumpable from before the join until execve, so that nobody inside can open
    their files, trace them, or write to the interpreter by /proc/PID/exe.
    """

    __slots__ = ("command", "config", "stdio", "target")

    def __init__(
        self, command: ProcessCommand, target: _Target, stdio: tuple[int, int, int] | None, config: OciConfig
    ) -> None:
        self.command = command
        self.target = target
        self.stdio = stdio
        self.config = config

    def outer(self, launcher: Channel, inner: Channel, parent: int) -> NoReturn:
        """The first child's life: cgroup (by the launcher), namespaces, fork. Never returns."""
        conversation = Conversation(launcher)
        conversation.step = "join the container"
        try:
            gc.disable()
            restore_signals()
            die_with(parent)
            # before the join: the container sees this process's child until its execve, and the caller's command line
            # names paths of the host
            kernel.replace_command_line(b"exec")
            set_oom_score(self.command.process, self.config.process, launcher.warn)
            set_labels(self.command.process)
            apply_inherited(self.config.linux)
            apply_affinity(self.command.process.cpu_affinity, final=False)
            launcher.send(Report("ready"))
            launcher.await_order("join")
            apply_affinity(self.command.process.cpu_affinity, final=True)
            kernel.set_dumpable(False)
            null = self.command.open_null()
            self._give_streams()
            if self.command.filters.emulation is None:
                self._join(self.target.flags)
            else:
                # the supervisor stays outside of the pid namespace, which it must see from outside
                self._join(self.target.flags & ~CLONE_NEWPID)
                conversation.step = "start the supervisor of the emulated root"
                self.command.start_supervisor(null)
                conversation.step = "join the container"
                self._enter(self.target.flags & CLONE_NEWPID)
            child = os.fork()
            if child == 0:
                launcher.close()
                self._inside(inner)
            inner.close()
            launcher.send(Report("init", pid=child))
            launcher.receive_order()
            os._exit(0)
        except BaseException as e:
            conversation.fail(e)
        finally:
            os._exit(1)

    def _give_streams(self) -> None:
        """To the user that we become, where the container has none of our own ids (runtime.process.nested)."""
        userns = next((fd for flag, fd in self.target.spaces if flag == FLAGS["user"]), None)
        if userns is None or not is_without_us(userns, self.target.pid):
            return
        uid = self.command.process.user.uid
        give_streams_from_outside(userns, self.target.pid, uid, self.stdio or (0, 1, 2))

    def _enter(self, flags: int) -> None:
        if not flags:
            return
        try:
            # all at once, in the kernel's order (Linux 5.8)
            setns(self.target.pidfd, flags)
        except OSError:
            for flag, fd in self.target.spaces:
                if flag & flags:
                    setns(fd, flag)

    def _join(self, flags: int) -> None:
        if not self.target.flags:
            os.fchdir(self.target.root)
            os.chroot(".")
            return
        self._enter(flags)
        # a root that was moved and not pivoted to is not the root of its mount namespace
        here, there = os.stat("/"), os.fstat(self.target.root)
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            os.fchdir(self.target.root)
            os.chroot(".")
        os.chdir("/")
        if self.target.flags & FLAGS["user"]:
            # root of the container for the time being, in its own user namespace only
            for change in (os.setresgid, os.setresuid):
                try:
                    change(0, 0, 0)
                except OSError:
                    pass  # a map without 0: the capabilities count, not the number
            kernel.set_dumpable(False)

    def _inside(self, channel: Channel) -> NoReturn:
        """The life of the process that becomes the command, in all namespaces of the container. Never returns."""
        conversation = Conversation(channel)
        try:
            kernel.set_pdeathsig(0)
            os.setsid()
            self._take_streams(conversation)
            conversation.step = "find the command"
            set_home(self.command.process)
            program = find_program(self.command)
            conversation.step = "join a new session keyring"
            extra_filter = session_keyring.join_own_keyring(warn=channel.warn) if self.command.options.keyring else None
            conversation.step = "drop capabilities from the bounding set"
            capabilities.drop_bounding(self.command.sets.bounding)
            channel.send(Report("created"))
            channel.await_order("start")
            conversation.step = "start the command"
            execute(self.command, program, extra_filter=extra_filter, outside=channel)
        except BaseException as e:
            conversation.fail(e)
        finally:
            os._exit(1)

    def _take_streams(self, conversation: Conversation) -> None:
        """The pty or the given fds become 0, 1, 2; everything else but the preserved and the channel is closed."""
        conversation.step = "take the streams"
        channel, process = conversation.channel, self.command.process
        if self.stdio is not None:
            take_stdio(self.stdio)
        kernel.close_others((*self.command.kept_fds(), channel.fileno()))
        if not process.terminal:
            return
        conversation.step = "open a pty"
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        master, slave = open_pty(root)
        os.close(root)
        rows, columns = process.console_size or (0, 0)
        if rows and columns:
            set_winsize(master, rows, columns)
        if process.user.uid:
            os.fchown(slave, process.user.uid, -1)
        channel.send(Report("console"), (master,))
        os.close(master)
        take_terminal(slave)
