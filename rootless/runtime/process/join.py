"""Runs one more process in a container that runs (`exec`). It knows the container by its first pid only."""

from __future__ import annotations

import gc
import os
import signal

from rootless.errors import InvalidState, RuntimeFailure
from rootless.kernel import process as kernel
from rootless.kernel.namespaces import CLONE_NEWPID, setns
from rootless.kernel.tty import set_winsize
from rootless.runtime import capabilities
from rootless.runtime.channel import Channel, pair
from rootless.runtime.operations.devices import open_pty
from rootless.runtime.process import session_keyring
from rootless.runtime.process.command import (
    ProcessCommand,
    execute,
    find,
    restore_signals,
    take_stdio,
    take_terminal,
)
from rootless.runtime.process.init import label, report, set_oom_score
from rootless.runtime.process.launch import preserved_fds
from rootless.runtime.process.namespace_steps import FILES, FLAGS
from rootless.runtime.process.nested import give_streams_from_outside, is_without_us
from rootless.runtime.process.running import Process, expect
from rootless.runtime.process.scheduling import apply_affinity, apply_inherited
from rootless.runtime.seccomp import emulation as emulating

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from rootless.runtime.seccomp.emulation import Emulation


def exec_process(
    pid: int,
    process: dict[str, Any],
    *,
    config: dict[str, Any],
    stdio: tuple[int, int, int] | None = None,
    seccomp_bpf: bytes | None = None,
    seccomp_flags: int = 0,
    emulation: Emulation | None = None,
    on_listener: Callable[[int, int], None] | None = None,
    preserve_fds: int = 0,
    start_time: int | None = None,
    own_keyring: bool = False,
    keep_groups: bool = False,
    die_with_parent: bool = False,
    join_cgroup: Callable[[int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Process:
    """Start the OCI `process` in the container whose first process is `pid`; return once its command runs.

    config: the container's, for what a process does not say itself (oomScoreAdj, personality). stdio: fds for 0, 1, 2,
    None for the caller's own; with `process["terminal"]` the result has the master of a new pty of the container.
    emulation: as in Launch. on_listener: gets the listener of a filter that has one, and the pid.
    start_time: of `pid`, when the caller has it on record: another process with that number is refused.
    Raises InvalidState when the container does not run, else what `Process.start` raises.
    """
    preserved = preserved_fds(preserve_fds)
    target = _open_target(pid, start_time)
    command = ProcessCommand(
        process,
        seccomp_bpf=seccomp_bpf,
        seccomp_flags=seccomp_flags,
        emulation=emulation,
        preserved=preserved,
        die_with_parent=die_with_parent,
        keep_groups=keep_groups,
        single_id=_denies_setgroups(pid),
    )
    notice = warn or (lambda text: None)
    if command.sets.unknown:
        notice(f"capabilities not known to this kernel: {', '.join(command.sets.unknown)}")
    kernel.set_child_subreaper()
    ours, theirs = pair()
    inner_ours, inner_theirs = pair()
    result: Process | None = None
    helper = -1
    try:
        caller = os.getpid()
        helper = os.fork()
        if helper == 0:
            ours.close()
            inner_ours.close()
            _Joiner(command, target, stdio, config, own_keyring).outer(theirs, inner_theirs, caller)
        theirs.close()
        inner_theirs.close()
        expect(ours, "ready", notice)
        if join_cgroup is not None:
            join_cgroup(helper)
        ours.send({"do": "join"})
        answer, _ = expect(ours, "init", notice)
        result = Process(answer["pid"], inner_ours, notice)
        if on_listener is not None:
            number = result.pid
            result.on_listener = lambda fd: on_listener(fd, number)
        result.adopt(helper, ours)
        _until_started(result, inner_ours, notice)
        return result
    except BaseException:
        if result is not None:
            result.destroy()
        elif helper > 0:
            os.kill(helper, signal.SIGKILL)
            os.waitpid(helper, 0)
        ours.close()
        inner_ours.close()
        raise
    finally:
        target.close()


def _until_started(process: Process, channel: Channel, warn: Callable[[str], None]) -> None:
    while True:
        message, fds = expect(channel, None, warn)
        if message.get("at") == "console":
            process.console_fd = fds[0]
        elif message.get("at") == "created":
            process.start()
            return
        else:
            raise RuntimeFailure(f"the joining process said {message}")


class _Target:
    """The container's first process, held by a pidfd, and the namespaces of it that are not ours."""

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
            for child in procfs.children(pid):
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

    __slots__ = ("command", "config", "own_keyring", "stdio", "target")

    def __init__(
        self,
        command: ProcessCommand,
        target: _Target,
        stdio: tuple[int, int, int] | None,
        config: dict[str, Any],
        own_keyring: bool,
    ) -> None:
        self.command = command
        self.target = target
        self.stdio = stdio
        self.config = config
        self.own_keyring = own_keyring

    def outer(self, launcher: Channel, inner: Channel, parent: int) -> NoReturn:
        step = ["join the container"]
        try:
            gc.disable()
            restore_signals()
            kernel.set_pdeathsig(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            notice = lambda text: launcher.send({"warning": text})  # noqa: E731
            set_oom_score(self.command.process, self.config.get("process") or {}, notice)
            label(self.command.process)
            apply_inherited(self.config.get("linux") or {})
            apply_affinity(self.command.process, final=False)
            launcher.send({"at": "ready"})
            if launcher.receive()[0] is None:
                os._exit(1)
            apply_affinity(self.command.process, final=True)
            kernel.set_dumpable(False)
            self._give_streams()
            if self.command.emulation is None:
                self._join(self.target.flags)
            else:
                # the supervisor stays outside of the pid namespace, which it must see from outside
                self._join(self.target.flags & ~CLONE_NEWPID)
                step[0] = "start the supervisor of the emulated root"
                self.command.supervisor = emulating.fork_supervisor(self.command.emulation)
                step[0] = "join the container"
                self._enter(self.target.flags & CLONE_NEWPID)
            child = os.fork()
            if child == 0:
                launcher.close()
                self._inside(inner)
            inner.close()
            launcher.send({"at": "init", "pid": child})
            launcher.receive()
            os._exit(0)
        except BaseException as e:
            report(launcher, e, step[0])
        finally:
            os._exit(1)

    def _give_streams(self) -> None:
        """To the user that we become, where the container has none of our own ids (runtime.process.nested)."""
        userns = next((fd for flag, fd in self.target.spaces if flag == FLAGS["user"]), None)
        if userns is None or not is_without_us(userns, self.target.pid):
            return
        uid = (self.command.process.get("user") or {}).get("uid", 0)
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
        step = ["start"]
        try:
            kernel.set_pdeathsig(0)
            os.setsid()
            self._streams(channel, step)
            step[0] = "find the command"
            program = find(self.command)
            step[0] = "join a new session keyring"
            extra_filter = (
                session_keyring.join(warn=lambda text: channel.send({"warning": text})) if self.own_keyring else None
            )
            step[0] = "drop capabilities from the bounding set"
            capabilities.drop_bounding(self.command.sets.bounding)
            channel.send({"at": "created"})
            if channel.receive()[0] is None:
                os._exit(1)
            step[0] = "start the command"
            execute(
                self.command,
                program,
                extra_filter=extra_filter,
                warn=lambda text: channel.send({"warning": text}),
                outside=channel,
            )
        except BaseException as e:
            report(channel, e, step[0])
        finally:
            os._exit(1)

    def _streams(self, channel: Channel, step: list[str]) -> None:
        """The pty or the given fds become 0, 1, 2; everything else but the preserved and the channel is closed."""
        step[0] = "take the streams"
        if self.stdio is not None:
            take_stdio(self.stdio)
        supervisor = self.command.supervisor
        own = () if supervisor is None else (supervisor.fileno(),)
        kernel.close_others((0, 1, 2, *self.command.preserved, channel.fileno(), *own))
        if not self.command.process.get("terminal"):
            return
        step[0] = "open a pty"
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        master, slave = open_pty(root)
        os.close(root)
        size = self.command.process.get("consoleSize") or {}
        if size.get("height") and size.get("width"):
            set_winsize(master, size["height"], size["width"])
        uid = (self.command.process.get("user") or {}).get("uid", 0)
        if uid:
            os.fchown(slave, uid, -1)
        channel.send({"at": "console"}, (master,))
        os.close(master)
        take_terminal(slave)
