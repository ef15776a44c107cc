"""What happens inside: the two forked processes between the launcher and the container's command. It decides nothing.

The first child enters the namespaces and mounts the root file system; its child, pid 1 of a new pid namespace, builds
the view, waits at the start gate and becomes the command. Nothing is imported after pivot_root: the files would be the
image's.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import stat

# codecs and classes that would else be looked up on first use, inside the container's root
import encodings.ascii  # isort: skip
import encodings.latin_1
import encodings.utf_8  # noqa: F401

from rootless.errors import RootlessError, RuntimeFailure
from rootless.host.answer import error_to_json
from rootless.kernel import loopback, mounts
from rootless.kernel import process as kernel
from rootless.kernel.namespaces import CLONE_NEWNET
from rootless.runtime import capabilities
from rootless.runtime.channel import Channel
from rootless.runtime.operations import Operation, RootContext
from rootless.runtime.process import hooks, session_keyring
from rootless.runtime.process.command import (
    ProcessCommand,
    execute,
    find,
    restore_signals,
    take_stdio,
    take_terminal,
)
from rootless.runtime.process.namespace_steps import NamespaceEntry, NamespaceSet
from rootless.runtime.process.scheduling import apply_inherited
from rootless.runtime.seccomp import emulation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from rootless.runtime.process.nested import Nested


class Setup:
    """All that the two processes need, made by the launcher before the fork."""

    __slots__ = (
        "command",
        "config",
        "gate",
        "ids",
        "keyring",
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
        config: dict[str, Any],
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
        self.keyring = False
        self.reap: Callable[[ProcessCommand], None] | None = None
        self.nested: Nested | None = None


def outer(setup: Setup, launcher: Channel, inner: Channel, parent: int) -> NoReturn:
    """The first child's life: namespaces, maps (from outside), root file system, fork. Never returns."""
    step = ["start"]
    try:
        gc.disable()
        restore_signals()
        _die_with(parent)
        step[0] = "enter the namespaces"
        entry = NamespaceEntry(setup.namespaces)
        entry.open()
        entry.before_maps()
        launcher.send({"at": "namespaces"})
        devices = _await(launcher, "mapped")["devices"]
        if setup.ids is not None:
            _become(*setup.ids)
        _die_with(parent)
        if setup.namespaces.new & CLONE_NEWNET:
            step[0] = "switch on the loopback interface"
            loopback.switch_on()
        if devices:
            from rootless.runtime.process import netdevices

            step[0] = "set up the network interfaces"
            netdevices.settle(devices)
        # the network helper has to open our namespaces
        kernel.set_dumpable(True)
        step[0] = "set the propagation of mounts"
        mounts.mount(None, "/", None, setup.propagation)
        step[0] = f"mount the root file system '{setup.root}'"
        if setup.root_mount is not None:
            setup.root_mount(setup.root)
        if setup.nested is not None:
            step[0] = "become root of the inner id map"
            setup.nested.become_root()
        if setup.command.emulation is not None:
            # before the pid namespace: whose first process it would be, and which it must see from outside
            step[0] = "start the supervisor of the emulated root"
            setup.command.supervisor = emulation.fork_supervisor(setup.command.emulation)
        step[0] = "enter the namespaces"
        entry.last()
        _time_offsets(setup.config)
        set_oom_score(setup.command.process, {}, lambda text: launcher.send({"warning": text}))
        apply_inherited(setup.config.get("linux") or {})
        _close_others(setup, launcher, inner)
        step[0] = "fork"
        child = os.fork()
        if child == 0:
            launcher.close()
            _inside(setup, inner)
        inner.close()
        launcher.send({"at": "init", "pid": child})
        # stay until the network helper, which knows us by our pid, is ready
        launcher.receive()
        os._exit(0)
    except BaseException as e:
        report(launcher, e, step[0])
    finally:
        os._exit(1)


def _inside(setup: Setup, channel: Channel) -> NoReturn:
    """The life of the container's first process until it becomes the command. Never returns."""
    step = ["start"]
    conversation = [channel]
    try:
        if not setup.namespaces.own_pid_namespace:
            # CVE-2016-9962, CVE-2019-5736: others can see us in /proc, and must not reach our files and executable
            kernel.set_dumpable(False)
        kernel.set_pdeathsig(0)
        os.setsid()
        context = RootContext(setup.root, lambda text: channel.send({"warning": text}))
        if setup.nested is not None:
            setup.nested.prepare()
        _build(setup, context, channel, step)
        _terminal_and_stdio(context, channel, step)
        step[0] = "find the command"
        program = find(setup.command)
        if setup.nested is not None:
            step[0] = "enter the inner user namespace"
            setup.nested.give_streams((setup.command.process.get("user") or {}).get("uid", 0))
            setup.nested.enter()
            capabilities.drop_bounding(setup.command.sets.bounding)
        step[0] = "join a new session keyring"
        extra_filter = session_keyring.join(warn=context.warn) if setup.keyring else None
        channel.send({"at": "created"})
        state = _gate(setup, conversation)
        step[0] = "run the startContainer hooks"
        hooks.run(setup.config, "startContainer", state)
        step[0] = "start the command"
        outside = conversation[0]
        if setup.reap is not None:
            setup.reap(setup.command)
        execute(
            setup.command,
            program,
            extra_filter=extra_filter,
            warn=lambda text: outside.send({"warning": text}),
            outside=outside,
        )
    except BaseException as e:
        report(conversation[0], e, step[0])
    finally:
        os._exit(1)


def _build(setup: Setup, context: RootContext, channel: Channel, step: list[str]) -> None:
    """Apply the plan; the hooks in between run before the last operation, which is pivot_root."""
    if setup.stdio is not None:
        take_stdio(setup.stdio)
    os.umask(0)
    for operation in setup.plan[:-1]:
        step[0] = operation.describe()
        operation.apply(context)
    step[0] = "run the hooks of creation"
    if hooks.has(setup.config, "prestart", "createRuntime", "createContainer"):
        channel.send({"at": "mounted"})
        answer = _await(channel, "hooked")
        hooks.run(setup.config, "createContainer", answer["state"])
    step[0] = "drop capabilities from the bounding set"
    # here, where /proc still is the host's
    capabilities.drop_bounding(setup.command.sets.bounding)
    label(setup.command.process)
    step[0] = setup.plan[-1].describe()
    setup.plan[-1].apply(context)
    os.umask(0o022)


def _terminal_and_stdio(context: RootContext, channel: Channel, step: list[str]) -> None:
    """The pty becomes our terminal its master goes to the launcher; the host's /dev/null becomes the container's."""
    if context.pty is not None:
        step[0] = "take the terminal"
        master, slave = context.pty
        channel.send({"at": "console"}, (master,))
        os.close(master)
        take_terminal(slave)
        return
    step[0] = "reopen '/dev/null'"
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


def _gate(setup: Setup, conversation: list[Channel]) -> dict[str, Any]:
    """Wait for the order to start; the state for hooks. From here on errors go to whoever gave the order."""
    message = _next(conversation[0])
    if message.get("do") == "detach" and setup.gate is not None:
        # the launcher ends; a later process will connect to the gate, a socket in the state directory
        conversation[0].close()
        while True:
            connection, _ = setup.gate.accept()
            conversation[0] = Channel(connection)
            order, _ = conversation[0].receive()
            if order is not None:
                message = order
                break
            conversation[0].close()
        setup.gate.close()
    state: dict[str, Any] = message.get("state") or {}
    return state


def _next(channel: Channel) -> dict[str, Any]:
    message, _ = channel.receive()
    if message is None:
        os._exit(1)  # the launcher is gone, and with it everybody who could want us
    return message


def _await(channel: Channel, word: str) -> dict[str, Any]:
    message = _next(channel)
    if message.get("do") != word:
        raise RuntimeFailure(f"the launcher said {message} in place of '{word}'")
    return message


def _die_with(parent: int) -> None:
    kernel.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _become(uid: int, gid: int) -> None:
    """The ids of set-up. No capability is lost: none of the present ids is 0 in the new namespace, or they stay."""
    if os.getresgid() != (gid, gid, gid):
        os.setresgid(gid, gid, gid)
    if os.getresuid() != (uid, uid, uid):
        os.setresuid(uid, uid, uid)


def _close_others(setup: Setup, *channels: Channel) -> None:
    """Close what the launcher has open beside what we need: logs, locks and clients must not stay open in here."""
    kept = {0, 1, 2, *setup.command.preserved, *(c.fileno() for c in channels), *(setup.stdio or ())}
    if setup.gate is not None:
        kept.add(setup.gate.fileno())
    if setup.command.supervisor is not None:
        kept.add(setup.command.supervisor.fileno())
    kernel.close_others(kept)


def _time_offsets(config: dict[str, Any]) -> None:
    offsets = (config.get("linux") or {}).get("timeOffsets")
    if not offsets:
        return
    lines = [f"{clock} {o.get('secs', 0)} {o.get('nanosecs', 0)}\n" for clock, o in offsets.items()]
    _write_own("timens_offsets", "".join(lines))


def set_oom_score(process: dict[str, Any], container: dict[str, Any], warn: Callable[[str], None]) -> None:
    """`oomScoreAdj` of the process, else of the container's first one; unset leaves ours. Lowering it needs root."""
    score = process.get("oomScoreAdj", container.get("oomScoreAdj"))
    if score is None:
        return
    try:
        _write_own("oom_score_adj", str(score))
    except PermissionError:
        warn(f"process.oomScoreAdj {score} is not set: an ordinary user can only raise it")


def label(process: dict[str, Any]) -> None:
    """AppArmor profile and SELinux label of the command to come; procfs must be the host's still."""
    if process.get("apparmorProfile"):
        _write_own("attr/apparmor/exec", f"exec {process['apparmorProfile']}")
    if process.get("selinuxLabel"):
        _write_own("attr/exec", process["selinuxLabel"])


def _write_own(name: str, text: str) -> None:
    """Write /proc/self/NAME by an fd proven to be procfs."""
    from rootless.kernel.procfs import write_proc

    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        own = os.readlink("self", dir_fd=proc)
        write_proc(proc, f"{own}/{name}", text.encode())
    finally:
        os.close(proc)


def report(channel: Channel, error: BaseException, step: str) -> None:
    """Send `error` outside with the step that failed; the peer's death makes it pointless."""
    if isinstance(error, RootlessError):
        failure = error
    elif isinstance(error, OSError):
        notes = [n for n in getattr(error, "__notes__", []) if not n.startswith(("syscall", "mount("))]
        reason = (error.strerror or str(error)) + (f" ({'; '.join(notes)})" if notes else "")
        failure = RuntimeFailure(f"cannot {step}: {reason}", hint=_hint(error))
    else:
        failure = RuntimeFailure(f"cannot {step}: {type(error).__name__}: {error}")
    try:
        channel.send({"error": error_to_json(failure)})
    except OSError:
        pass


def _hint(error: OSError) -> str | None:
    if error.errno == errno.ENOSPC:
        return "the disk is full, or a limit below /proc/sys/user is reached"
    if error.errno == errno.EROFS:
        return "the root file system is read-only and lacks the directory to mount on"
    return None
