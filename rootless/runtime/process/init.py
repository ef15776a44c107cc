"""What happens inside: the two forked processes between the launcher and the container's command. It decides nothing.

The first child enters the namespaces and mounts the root file system; its child, pid 1 of a new pid namespace, builds
the view, waits at the start gate and becomes the command. Nothing is imported after pivot_root: the files would be the
image's.
"""

from __future__ import annotations

import gc
import os
import socket
import stat

# codecs and classes that would else be looked up on first use, inside the container's root
import encodings.ascii  # isort: skip
import encodings.latin_1
import encodings.utf_8  # noqa: F401

from rootless.kernel import mounts
from rootless.kernel import process as kernel
from rootless.kernel.namespaces import CLONE_NEWNET, switch_on_loopback
from rootless.runtime import capabilities
from rootless.runtime.channel import Channel, Report
from rootless.runtime.operations.base import Operation, RootContext
from rootless.runtime.process import session_keyring
from rootless.runtime.process.command import (
    ProcessCommand,
    confine_process,
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
    write_own,
)
from rootless.runtime.process.namespace_steps import NamespaceEntry, NamespaceSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from rootless.runtime.process.nested import Nested
    from rootless.runtime.spec.oci_config import Hook, HookStage, OciConfig, TimeOffset
    from rootless.runtime.spec.oci_state import OciState


class Setup:
    """All that the two processes need, made by the launcher before the fork.

    plan: the operations that build the view, the last one pivot_root; root: real path of the root file system;
    propagation: MS_* of the old tree; ids: uid and gid of the set-up, None to keep the caller's; root_mount: mounts the
    root at the path that it is given; stdio: fds for 0, 1 and 2; gate: the socket by which a later process starts the
    container; reap: forks our own pid 1; nested: for a map that lacks the caller's ids.
    """

    __slots__ = (
        "command",
        "config",
        "gate",
        "ids",
        "namespaces",
        "nested",
        "plan",
        "propagation",
        "reap",
        "root",
        "root_mount",
        "stdio",
    )

    def __init__(
        self,
        config: OciConfig,
        command: ProcessCommand,
        namespaces: NamespaceSet,
        plan: list[Operation],
        root: str,
    ) -> None:
        self.config = config
        self.command = command
        self.namespaces = namespaces
        self.plan = plan
        self.root = root
        self.propagation = 0
        self.ids: tuple[int, int] | None = None
        self.root_mount: Callable[[str], None] | None = None
        self.stdio: tuple[int, int, int] | None = None
        self.gate: socket.socket | None = None
        self.reap: Callable[[ProcessCommand, Channel], None] | None = None
        self.nested: Nested | None = None


def outer(setup: Setup, launcher: Channel, inner: Channel, parent: int) -> NoReturn:
    """The first child's life: namespaces, maps (from outside), root file system, fork. Never returns.

    launcher, inner: our end of this process's channel, and that of the process that it forks; parent: the launcher.
    """
    conversation = Conversation(launcher)
    try:
        gc.disable()
        restore_signals()
        die_with(parent)
        # the reaper of --init is a fork of this one, and everybody inside reads its command line and environment
        kernel.replace_command_line(b"init")
        entry = _enter_namespaces(setup, conversation, parent)
        conversation.step = "set the propagation of mounts"
        mounts.mount(None, "/", None, setup.propagation)
        conversation.step = f"mount the root file system '{setup.root}'"
        if setup.root_mount is not None:
            setup.root_mount(setup.root)
        if setup.nested is not None:
            conversation.step = "become root of the inner id map"
            setup.nested.become_root()
        conversation.step = "start the supervisor of the emulated root"
        setup.command.start_supervisor(setup.command.open_null())
        conversation.step = "enter the namespaces"
        entry.last()
        _set_time_offsets(setup.config.linux.time_offsets)
        set_oom_score(setup.command.process, None, launcher.warn)
        if setup.config.linux.personality or setup.config.linux.memory_policy is not None:
            from rootless.runtime.process.scheduling import apply_inherited

            apply_inherited(setup.config.linux)
        _close_others(setup, launcher, inner)
        report = Report("init")
        linux = setup.config.linux
        if not (linux.makes("pid") and linux.makes("user")):
            from rootless.kernel.container_members import own_namespaces

            # Told from inside: whoever has joined a user namespace is not dumpable, and nobody else may look. And told
            # before the fork: the child's pivot_root(2) takes /proc away in the mount namespace that both are in
            report.namespaces = own_namespaces()
            report.namespaces.makes_user = linux.makes("user")
            report.namespaces.shares_processes = not linux.makes("pid")
        conversation.step = "fork"
        child = os.fork()
        if child == 0:
            launcher.close()
            _inside(setup, inner)
        inner.close()
        report.pid = child
        launcher.send(report)
        # stay until `Process.release`: by the end of this process the other one becomes the launcher's own child
        launcher.receive_order()
        os._exit(0)
    except BaseException as e:
        conversation.fail(e)
    finally:
        os._exit(1)


def _enter_namespaces(setup: Setup, conversation: Conversation, parent: int) -> NamespaceEntry:
    """All namespaces but the late ones, with their id map, ids and interfaces; returns the way into the late ones."""
    conversation.step = "enter the namespaces"
    launcher = conversation.channel
    entry = NamespaceEntry(setup.namespaces)
    entry.open()
    entry.before_maps()
    launcher.send(Report("namespaces"))
    devices = launcher.await_order("mapped").devices
    if setup.ids is not None:
        _become(*setup.ids)
    die_with(parent)
    if setup.namespaces.new & CLONE_NEWNET:
        conversation.step = "switch on the loopback interface"
        switch_on_loopback()
    if devices:
        from rootless.runtime.process import netdevices

        conversation.step = "set up the network interfaces"
        netdevices.settle(devices)
    # proc(5): a change of ids gave our files in /proc to the host's root, and we are to write some (oom_score_adj)
    kernel.set_dumpable(True)
    return entry


def _inside(setup: Setup, channel: Channel) -> NoReturn:
    """The life of the container's first process until it becomes the command. Never returns."""
    conversation = Conversation(channel)
    command = setup.command
    try:
        if not setup.namespaces.own_pid_namespace:
            # CVE-2016-9962, CVE-2019-5736: others can see us in /proc, and must not reach our files and executable
            kernel.set_dumpable(False)
        kernel.set_pdeathsig(0)
        os.setsid()
        context = RootContext(setup.root, channel.warn)
        if setup.nested is not None:
            setup.nested.prepare()
        _build(setup, context, conversation)
        _terminal_and_stdio(context, conversation)
        conversation.step = "find the command"
        set_home(command.process)
        program = find_program(command)
        if setup.nested is not None:
            conversation.step = "enter the inner user namespace"
            setup.nested.give_streams(command.process.user.uid)
            setup.nested.enter()
            capabilities.drop_bounding(command.sets.bounding)
        conversation.step = "join a new session keyring"
        extra_filter = session_keyring.join_own_keyring(warn=context.warn) if command.options.keyring else None
        channel.send(Report("created"))
        state = _gate(setup, conversation)
        conversation.step = "run the startContainer hooks"
        if state is not None:
            _run_start_hooks(setup, state, extra_filter, conversation)
        conversation.step = "start the command"
        if setup.reap is not None:
            setup.reap(command, conversation.channel)
        execute(command, program, extra_filter=extra_filter, outside=conversation.channel)
    except BaseException as e:
        conversation.fail(e)
    finally:
        os._exit(1)


def _run_start_hooks(setup: Setup, state: OciState, extra_filter: bytes | None, conversation: Conversation) -> None:
    """The startContainer hooks: programs of the image, so each has the identity, limits and filter of the command."""
    stage = setup.config.hooks.start_container
    command = setup.command

    def become(hook: Hook) -> NoReturn:
        command.replace(hook.args or [hook.path], command.process.env if hook.env is None else hook.env)
        confine_process(command, extra_filter=extra_filter, outside=conversation.channel)
        os.execve(hook.path, command.arguments, command.environment)  # noqa: S606 - no shell is the point

    if not stage.hooks:
        return
    from rootless.runtime.process import hooks  # the launcher has loaded it

    for hook in stage.hooks:
        hooks.run_confined(stage.name, hook, state, become)


def _build(setup: Setup, context: RootContext, conversation: Conversation) -> None:
    """Apply the plan; the hooks in between run before the last operation, which is pivot_root."""
    if setup.stdio is not None:
        take_stdio(setup.stdio)
    os.umask(0)
    for operation in setup.plan[:-1]:
        conversation.step = operation.describe()
        operation.apply(context)
    conversation.step = "run the hooks of creation"
    if setup.config.hooks.of_creation():
        conversation.channel.send(Report("mounted"))
        state = conversation.channel.await_order("hooked").state
        if state is not None:
            run_hooks(setup.config.hooks.create_container, state)
    conversation.step = "drop capabilities from the bounding set"
    capabilities.drop_bounding(setup.command.sets.bounding)
    set_labels(setup.command.process)
    conversation.step = setup.plan[-1].describe()
    setup.plan[-1].apply(context)
    os.umask(0o022)


def _terminal_and_stdio(context: RootContext, conversation: Conversation) -> None:
    """With a terminal, its slave becomes our controlling terminal and fds 0 to 2, and the launcher gets its master.

    Without one, each of fds 0 to 2 that is the null device is opened again in the container: the host's /dev/null, as
    an open file, would be a way to the host's mount by /proc/self/fd.
    """
    if context.pty is not None:
        conversation.step = "take the terminal"
        master, slave = context.pty
        conversation.channel.send(Report("console"), (master,))
        os.close(master)
        take_terminal(slave)
        return
    conversation.step = "reopen '/dev/null'"
    for number in (0, 1, 2):
        try:
            status = os.fstat(number)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3):
                own = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
                if os.fstat(own).st_rdev == status.st_rdev:
                    os.dup2(own, number)
                os.close(own)
        except OSError:
            pass  # a closed fd, or a root without /dev


def _gate(setup: Setup, conversation: Conversation) -> OciState | None:
    """Wait for the order to start; the state for hooks. From here on errors go to whoever gave the order."""
    order = conversation.channel.receive_order()
    if order is None:
        os._exit(1)  # the launcher is gone, and with it everybody who could want us
    if order.do == "detach" and setup.gate is not None:
        # the launcher ends; a later process will connect to the gate, a socket in the state directory
        conversation.channel.close()
        while True:
            connection, _ = setup.gate.accept()
            conversation.channel = Channel(connection)
            later = conversation.channel.receive_order()
            if later is not None:
                order = later
                break
            conversation.channel.close()
        setup.gate.close()
    return order.state


def run_hooks(stage: HookStage, state: OciState) -> None:
    """Run the hooks of this stage; the launcher has loaded what runs them. Raises HookFailed."""
    if stage.hooks:
        from rootless.runtime.process import hooks

        hooks.run(stage, state)


def _become(uid: int, gid: int) -> None:
    """Take on the ids of the set-up. They stay, or none of the present ones is 0 in the new namespace: so the kernel,
    which takes capabilities away when an id changes from 0 to another, takes none (capabilities(7))."""
    if os.getresgid() != (gid, gid, gid):
        os.setresgid(gid, gid, gid)
    if os.getresuid() != (uid, uid, uid):
        os.setresuid(uid, uid, uid)


def _close_others(setup: Setup, *channels: Channel) -> None:
    """Close what the launcher has open beside what we need: logs, locks and clients must not stay open in here."""
    kept = setup.command.kept_fds() | {*(c.fileno() for c in channels), *(setup.stdio or ())}
    if setup.gate is not None:
        kept.add(setup.gate.fileno())
    kernel.close_others(kept)


def _set_time_offsets(offsets: list[TimeOffset]) -> None:
    """Set the clocks of the new time namespace, which no process has entered yet (time_namespaces(7))."""
    if offsets:
        lines = [f"{offset.clock} {offset.seconds} {offset.nanoseconds}\n" for offset in offsets]
        write_own("timens_offsets", "".join(lines))
