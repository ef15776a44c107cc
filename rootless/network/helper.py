"""A network helper process: started inside the container's user namespace, ready or failed, stopped.

It knows no helper's options.

The forked child joins the user namespace itself, and only then asks to die with its parent and executes the helper. A
helper that joined by its own options would lose PDEATHSIG there, since the kernel clears it when a process gains
capabilities, and would outlive a monitor that was killed.
"""

from __future__ import annotations

import os
import select
import signal
import time

from rootless.errors import HostLimit
from rootless.kernel import process
from rootless.kernel.namespaces import CLONE_NEWUSER, setns
from rootless.network import addresses
from rootless.records.state import NetworkFacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from rootless.kernel.namespaces import OpenNetwork
    from rootless.records.port import Port

READY_FD = 3  # in the helper: what is written here says that the network is configured
NETWORK_NAMESPACE = "/proc/self/fd/0"  # in the helper: the namespace to connect
READY_TIMEOUT = 20.0  # seconds; pasta takes 0.1 on an idle machine
_MAX_WORDS = 16384  # bytes of a failed helper's stderr
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
# What is ignored stays ignored across execve(2). Python ignores SIGPIPE, which pasta of 2023 takes for a failure, and
# ends; the monitor may ignore the others.
_RESET = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class HelperProcess:
    """A helper that was started. pid: our child; ready, errors: pipes on which it says that it is ready, or why not."""

    __slots__ = ("errors", "pid", "ready")

    def __init__(self, pid: int, ready: int, errors: int) -> None:
        self.pid = pid
        self.ready = ready
        self.errors = errors


class Helper:
    """A running helper. name: its program; ports: as published; pid: our child, killed by the kernel when we end.

    facts: what state.json and inspect show: ip, gateway, prefix, ports. explain: the error that a message of the helper
    stands for, None for one that it does not know; on_ready: what is left to do when the network is configured.
    """

    __slots__ = ("_errors", "_explain", "_on_ready", "_ready", "facts", "name", "pid", "ports")

    def __init__(
        self,
        name: str,
        started: HelperProcess,
        facts: NetworkFacts,
        *,
        explain: Callable[[str], HostLimit | None],
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.pid = started.pid
        self.ports = facts.ports
        self.facts = facts
        self._ready, self._errors = started.ready, started.errors
        self._explain = explain
        self._on_ready = on_ready

    def ready(self) -> None:
        """Wait until the network is configured and the ports are forwarded. A second call returns at once.

        Raises HostLimit with what the helper said.
        """
        if self._ready < 0:
            return
        deadline = time.monotonic() + READY_TIMEOUT
        while True:
            readable, _, _ = select.select([self._ready], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                self.stop()
                raise HostLimit(f"{self.name} did not configure the network within {READY_TIMEOUT:.0f} seconds")
            try:
                word = os.read(self._ready, 64)
            except InterruptedError:
                continue
            break
        if not word:  # end of file: the helper has ended, and the kernel has closed its end
            raise self._failure()
        os.close(self._ready)
        self._ready = -1
        if self._on_ready is not None:
            try:
                self._on_ready()
            except BaseException:
                self.stop()
                raise

    def ready_fd(self) -> int:
        """The fd that is readable as soon as `ready` need not wait; -1 once `ready` has returned."""
        return self._ready

    def last_words(self) -> str:
        """The end of what a helper that has ended had to say; "" for one that was silent."""
        return self._words() if self._errors >= 0 else ""

    def note_end(self) -> str:
        """Give back what the helper needed, which has ended and was reaped; return its last words.

        Its number is forgotten first: `stop` would signal whatever process has that number by now.
        """
        self.pid = -1
        words = self.last_words()
        self.stop()
        return words

    def error_fd(self) -> int:
        """The read end of the pipe that the helper's messages go to.

        Whoever takes the helper over keeps it open: a write to a pipe without a reader is SIGPIPE, so that the next
        message would end the helper.
        """
        return self._errors

    def stop(self, *, wait: bool = True) -> None:
        """End the helper; nothing happens when it is gone already.

        wait: until it has gone and its ports are free. The kernel takes 14 ms to take pasta's interface apart, which
        nobody needs to wait for where no ports are published; the caller's loop reaps the child then.
        """
        if self.pid > 0:
            try:
                # A helper keeps no state that it would have to save; pasta's handler of SIGTERM just exits
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            if wait:
                self._reap()
            self.pid = -1
        for fd in (self._ready, self._errors):
            if fd >= 0:
                os.close(fd)
        self._ready = self._errors = -1

    def _reap(self) -> None:
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # a loop that waits for any child has reaped it already
        self.pid = -1

    def _failure(self) -> HostLimit:
        """The error for a helper that has ended before it was ready, with what it said and a remedy."""
        words = self._words()
        self.stop()
        known = self._explain(words)
        if known is not None:
            return known
        hint = "--network=host or none needs no helper; see what works here: rootless doctor"
        try:
            os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
        except OSError as e:
            remedy = "ask the administrator for: modprobe tun; chmod 666 /dev/net/tun (--network=host needs none)"
            hint = f"/dev/net/tun: {e.strerror}: {remedy}"
        return HostLimit(
            f"{self.name} could not connect the container's network: {words or 'it ended without a word'}", hint=hint
        )

    def _words(self) -> str:
        chunks = b""
        try:
            while len(chunks) < _MAX_WORDS:
                chunk = os.read(self._errors, 4096)
                if not chunk:
                    break
                chunks += chunk
        except BlockingIOError:
            pass
        lines = chunks.decode("utf-8", "replace").splitlines()
        # pasta of 2023 complains of a missing system logger beside every message
        kept = [line.strip() for line in lines if line.strip() and "bytes to syslog" not in line]
        return "; ".join(kept[-4:])


def connection_facts(published: Sequence[Port]) -> NetworkFacts:
    """What state.json and `inspect` say of the network of a container behind a helper."""
    return NetworkFacts(addresses.CONTAINER, addresses.PREFIX, addresses.GATEWAY, ports=list(published))


def require_tun() -> None:
    """Raise HostLimit unless the caller may open /dev/net/tun, which every helper needs."""
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        why = "may not be opened" if os.path.exists("/dev/net/tun") else "does not exist"
        raise tun_error(f"it {why}")


def tun_error(words: str) -> HostLimit:
    """The error for a /dev/net/tun that `words` say is missing or closed to the caller."""
    return HostLimit(
        f'the network helper needs "/dev/net/tun": {words}',
        hint="as root: modprobe tun && chmod 666 /dev/net/tun; or use --network=host or --network=none",
    )


def spawn_helper(
    argv: Sequence[str], target: OpenNetwork, *, is_ready_on_stdout: bool = False, as_root: Sequence[str] = ()
) -> HelperProcess:
    """Start helper `argv` (absolute path) in the user namespace of `target`, which stays open and the caller's.

    The network namespace is fd 0 of the helper: an open file, because a helper that has dropped CAP_SYS_PTRACE may not
    open /proc/PID/ns of another process, and at 0, because newer pastas close what is above 2. The ready pipe is
    READY_FD, or stdout for a helper that prints nothing else there. as_root: options for a helper that is root in the
    user namespace (with keep-id we are another user there). To be called from a process with one thread. Raises
    HostLimit for our own network namespace.
    """
    # A container's process that has ended or failed could leave us with our own namespace here: the helper would then
    # reconfigure the network that the caller works in.
    if _is_ours(target.network, "net"):
        raise HostLimit("the network namespace that was to be connected is our own")
    namespace = -1 if _is_ours(target.user, "user") else target.user
    ready_read, ready_write = os.pipe()
    error_read, error_write = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        fds = namespace, target.network, ready_write, error_write
        _run((argv, as_root), fds, parent, is_ready_on_stdout=is_ready_on_stdout)
    os.close(ready_write)
    os.close(error_write)
    os.set_blocking(error_read, False)
    return HelperProcess(child, ready_read, error_read)


def _is_ours(fd: int, kind: str) -> bool:
    """Is this open namespace the one that this process is in?"""
    return os.path.samestat(os.fstat(fd), os.stat(f"/proc/self/ns/{kind}"))


def _run(
    words: tuple[Sequence[str], Sequence[str]],
    fds: tuple[int, int, int, int],
    parent: int,
    *,
    is_ready_on_stdout: bool,
) -> NoReturn:
    """The forked child: becomes the helper, and never returns.

    words: argv, and the options for root. fds: the user namespace to join, or -1 for ours; the network namespace; the
    write ends of the ready pipe and of the error pipe.
    """
    argv, as_root = words
    try:
        os.setsid()  # Ctrl-C at the terminal is for the container
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        # All of them are moved out of the way first: dup2(2) onto 0 to 3 would close one that happens to be there
        null, namespace, network, ready, errors = (_above(fd) for fd in (null, *fds))
        os.dup2(network, 0)
        os.dup2(ready if is_ready_on_stdout else null, 1)
        os.dup2(errors, 2)
        os.dup2(ready, READY_FD)
        # Nobody empties the pipe of a helper that works: once it is full, a blocking write would stop the container's
        # network for ever. Messages beyond its size are lost instead.
        os.set_blocking(2, False)
        if namespace >= 0:
            setns(namespace, CLONE_NEWUSER)
        process.close_range(READY_FD + 1)
        if os.geteuid() == 0:
            argv = [argv[0], *as_root, *argv[1:]]
        else:
            # With keep-id we are not root in the user namespace, and execve(2) leaves such a user no capabilities but
            # the ambient ones (capabilities(7)), without which the helper cannot configure the network.
            _, permitted, _ = process.capget()
            process.capset(permitted, permitted, permitted)
            for bit in range(64):
                if permitted >> bit & 1:
                    process.cap_ambient_raise(bit)
        # After setns and capset, which clear it, and before a look at the parent: one that has ended by now sends no
        # signal any more
        process.set_pdeathsig(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.chdir("/")
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(argv[0], list(argv), _ENVIRONMENT)  # noqa: S606 - absolute path, no shell wanted
    except BaseException as e:  # reported through the pipe: this is a child without a caller
        os.write(2, f"{argv[0]}: {e}".encode())
    finally:
        os._exit(127)


def _above(fd: int) -> int:
    """A copy of `fd` above the numbers that the helper's own fds get; -1 for -1."""
    if fd < 0:
        return fd
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, READY_FD + 7)
