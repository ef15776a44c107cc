"""A minimal pid 1: starts the command as its child, passes signals on, reaps orphans, ends with the command's status.

The engine prefers a static init program of the host (`--init`); this one, which keeps an interpreter in memory, is for
hosts without any.
"""

from __future__ import annotations

import os
import signal

from rootless.kernel import process as kernel
from rootless.runtime import capabilities
from rootless.runtime.process.command import ProcessCommand, become_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rootless.runtime.channel import Channel

_NOT_PASSED = {signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU}


def fork_reaper(command: ProcessCommand, launcher: Channel) -> None:
    """Fork, and return in the child, which goes on to become the command. The parent is the reaper, and never returns.

    launcher: the channel to it, by whose closed end the reaper sees that the launcher has ended.

    pid_namespaces(7): a process whose parent has ended becomes a child of pid 1, which has to wait for its end, or
    zombies use up the ids of the namespace. When pid 1 ends, the kernel kills all others.
    """
    # Signals are blocked before the fork and taken by sigwaitinfo(2). Blocked later, the SIGCHLD of a child that ends
    # at once would be lost, and the reaper would wait for it for ever.
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _own_group()
        return
    try:
        _shrink(command, launcher)
        _reap(child)
    finally:
        os._exit(1)


def _own_group() -> None:
    """Put the command into a process group of its own, the foreground one where it has a terminal.

    Ctrl-C and its like go to the whole foreground group. Were the reaper in it, it would pass the signal on, and the
    command would get it twice.
    """
    os.setpgid(0, 0)
    if os.isatty(0):
        # tcsetpgrp(3) from a background group, which this one still is, sends SIGTTOU, whose default is to stop
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpgrp())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)


def _shrink(command: ProcessCommand, launcher: Channel) -> None:
    """Give up what the reaper does not need, since it is our interpreter inside of the container.

    It keeps no file open, has the command's user and capabilities, and is not dumpable: /proc/1/exe, fd and mem of it
    are closed to the container's processes (CVE-2019-5736).
    """
    kernel.set_dumpable(False)
    os.chdir("/")
    kernel.set_name(b"init")
    channel = launcher.fileno()
    if channel > 0:
        kernel.close_range(0, channel - 1)
    kernel.close_range(channel + 1)
    become_user(command, lambda text: None)
    capabilities.apply(command.sets)
    kernel.set_dumpable(False)  # again, since a change of ids may change it (PR_SET_DUMPABLE)
    if command.options.die_with_parent:
        # A change of ids cancels the wish (PR_SET_PDEATHSIG). A launcher that ended before it was repeated has sent no
        # signal, and would leave a container that nobody supervises
        kernel.set_pdeathsig(signal.SIGKILL)
        if launcher.peer_is_gone():
            os._exit(1)
    launcher.close()
    kernel.set_no_new_privs()


def _reap(child: int) -> NoReturn:
    everything = signal.valid_signals()
    while True:
        number = signal.sigwaitinfo(everything).si_signo
        if number != signal.SIGCHLD:
            if number not in _NOT_PASSED:
                os.kill(child, number)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
