"""What the forked processes of a launch and of a join share: their words with the launcher, and their first steps."""

from __future__ import annotations

import errno
import fcntl
import os
import signal

from rootless.errors import RootlessError, RuntimeFailure
from rootless.kernel import process as kernel
from rootless.runtime.channel import Channel, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.runtime.spec.process_config import OciProcess


class Conversation:
    """The words of a process inside with whoever waits for it. step: what it does now, for the error if that fails.

    channel: to the launcher; another one when `rootless-oci start` has taken over the conversation at the gate.
    """

    __slots__ = ("channel", "step")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.step = "start"

    def fail(self, error: BaseException) -> None:
        """Report `error` with the step that failed; the death of the peer makes that pointless, and is no error."""
        if isinstance(error, RootlessError):
            failure = error
        elif isinstance(error, OSError):
            # notes of the kernel room that name only the system call would repeat what the step says
            notes = [n for n in getattr(error, "__notes__", []) if not n.startswith(("syscall", "mount("))]
            reason = (error.strerror or str(error)) + (f" ({'; '.join(notes)})" if notes else "")
            failure = RuntimeFailure(f"cannot {self.step}: {reason}", hint=_hint(error))
        else:
            failure = RuntimeFailure(f"cannot {self.step}: {type(error).__name__}: {error}")
        report = Report()
        report.error = failure
        try:
            self.channel.send(report)
        except OSError:
            pass


def _hint(error: OSError) -> str | None:
    if error.errno == errno.ENOSPC:
        return "the disk is full, or a limit below /proc/sys/user is reached"
    if error.errno == errno.EROFS:
        return "the root file system is read-only and lacks the directory to mount on"
    return None


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, and end now if that has happened before it was asked.

    A change of ids, and execve of a setuid program, cancel the wish (PR_SET_PDEATHSIG): it is repeated after them.
    """
    kernel.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def set_oom_score(process: OciProcess, container: OciProcess | None, warn: Callable[[str], None]) -> None:
    """`oomScoreAdj` of the process, else of the container's first one; unset leaves ours. Lowering it needs root."""
    score = process.oom_score_adj
    if score is None and container is not None:
        score = container.oom_score_adj
    if score is None:
        return
    try:
        write_own("oom_score_adj", str(score))
    except PermissionError:
        warn(f"process.oomScoreAdj {score} is not set: an ordinary user can only raise it")


def set_labels(process: OciProcess) -> None:
    """Set the AppArmor profile and the SELinux label that execve will give; procfs must be the host's still."""
    if process.apparmor_profile:
        write_own("attr/apparmor/exec", f"exec {process.apparmor_profile}")
    if process.selinux_label:
        write_own("attr/exec", process.selinux_label)


def write_own(name: str, text: str) -> None:
    """Write /proc/self/NAME by an fd that is proven to be of procfs.

    CVE-2019-16884, CVE-2025-52881: where a hostile root has another file at that place, a label would be written to
    that file, and the command would run without the label.
    """
    from rootless.kernel.procfs import is_procfs, write_proc

    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not is_procfs(proc):
            # before its link "self" is believed
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), "/proc")
        own = os.readlink("self", dir_fd=proc)
        write_proc(proc, f"{own}/{name}", text.encode())
    finally:
        os.close(proc)


def restore_signals() -> None:
    """Set all signals to their default action and block none.

    What is ignored or blocked stays so across execve(2): Python ignores SIGPIPE, and whoever started us may ignore or
    block more.
    """
    signal.set_wakeup_fd(-1)
    for number in range(1, signal.NSIG):
        try:
            if signal.getsignal(number) not in (signal.SIG_DFL, None):
                signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            pass
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def take_stdio(stdio: tuple[int, int, int]) -> None:
    """Make these fds 0, 1 and 2, and close the others' numbers above 2."""
    # All three are copied first: one of them may have the number that another is to get, and dup2(2) would close it
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in stdio]
    for number, fd in enumerate(copies):
        os.dup2(fd, number)
        os.close(fd)
    for fd in set(stdio):
        if fd > 2:
            os.close(fd)


def take_terminal(slave: int) -> None:
    """Make the pty's slave the controlling terminal of this session leader, and fds 0, 1 and 2."""
    from rootless.kernel.tty import set_controlling

    set_controlling(slave)
    for number in (0, 1, 2):
        os.dup2(slave, number)
    if slave > 2:
        os.close(slave)
