"""prctl, capabilities, keyring, seccomp filter, pidfds, scheduling and fd ranges of this process.

Which of them to use is decided elsewhere; no filter is compiled here.
"""

from __future__ import annotations

import ctypes
import os
import struct

from rootless.kernel.libc import check_result, libc, syscall, syscall_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 1, 4, 8
_PR_SET_NAME = 15
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 36, 38, 47
_PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
_PIDFD_SEND_SIGNAL, _PIDFD_OPEN, _CLOSE_RANGE = 424, 434, 436
_CLOSE_RANGE_CLOEXEC = 4
_MOST_FDS = 1 << 20  # the kernel's default limit of a process's open files (fs.nr_open)
_CAPABILITY_VERSION_3 = 0x20080522
_JOIN_SESSION_KEYRING = 1
_SET_MODE_FILTER = 1
FILTER_FLAG_NEW_LISTENER = 8
FILTER_FLAG_WAIT_KILLABLE_RECV = 32
_INSTRUCTION = 8  # sizeof(struct sock_filter)


libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
libc.personality.argtypes = (ctypes.c_ulong,)


def _prctl(what: str, option: int, *args: int) -> int:
    words = (*args, 0, 0, 0, 0)[:4]
    return check_result(libc.prctl(option, *words), what, *args)


def set_no_new_privs() -> None:
    """PR_SET_NO_NEW_PRIVS: no exec from here on gains privileges."""
    _prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)


def set_pdeathsig(signal: int) -> None:
    """Ask for `signal` when the parent ends (0: for none).

    PR_SET_PDEATHSIG(2const): "parent" is the thread that forked, so a thread that ends while its process lives kills
    too. A child made by fork(2), a program with privileges of its own and a change of the effective ids start without
    it. A parent that has ended before the call sends nothing: who asks looks for it afterwards.
    """
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal)


def end_with_parent(parent: int, signal: int = 9) -> None:
    """Have the kernel send `signal` to this process when the thread that started it ends, and end now if that has
    happened before: `parent` is what getppid() said at the beginning. To be repeated after a change of ids."""
    set_pdeathsig(signal)
    if os.getppid() != parent:
        os._exit(1)


def set_dumpable(value: bool) -> None:
    """PR_SET_DUMPABLE: whether others of this user may trace this process and look into it (ptrace(2)).

    The /proc files of a process that is not dumpable belong to root, so that no helper of this user can write its id
    maps. A change of the effective ids makes a process undumpable.
    """
    _prctl("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, int(value))


def set_child_subreaper(value: bool = True) -> None:
    """Adopt orphaned descendants in place of the init process, so that this process can wait for them."""
    _prctl("PR_SET_CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, int(value))


def replace_command_line(name: bytes) -> None:
    """Show `name` instead of this process's arguments and environment, which whoever sees the process can read.

    /proc/PID/cmdline and environ are read from the process's own memory, and its forks have a copy of that; execve(2)
    makes it anew. Nothing happens where /proc does not tell the addresses (proc(5), /proc/PID/stat).
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return
    arguments, arguments_end, environment, environment_end = map(int, fields[45:49])
    for start, end, text in ((arguments, arguments_end, name), (environment, environment_end, b"")):
        if 0 < start < end:
            ctypes.memset(start, 0, end - start)
            ctypes.memmove(start, text, min(len(text), end - start - 1))


def set_name(name: bytes) -> None:
    """PR_SET_NAME: what ps calls this thread, at most 15 bytes."""
    text = ctypes.create_string_buffer(name[:15])
    _prctl("PR_SET_NAME", _PR_SET_NAME, ctypes.addressof(text))


def set_keepcaps(value: bool) -> None:
    """Keep the permitted capabilities when all user ids change from 0; execve(2) clears the flag (capabilities(7))."""
    _prctl("PR_SET_KEEPCAPS", _PR_SET_KEEPCAPS, int(value))


def cap_bound_read(capability: int) -> bool:
    """Is the capability in the bounding set? EINVAL above the kernel's last one."""
    return _prctl("PR_CAPBSET_READ", _PR_CAPBSET_READ, capability) == 1


def cap_bound_drop(capability: int) -> None:
    """Drop one capability from the bounding set. EINVAL above the kernel's last one."""
    _prctl("PR_CAPBSET_DROP", _PR_CAPBSET_DROP, capability)


def cap_ambient_clear() -> None:
    """Empty the ambient set."""
    _prctl("PR_CAP_AMBIENT_CLEAR_ALL", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def cap_ambient_raise(capability: int) -> None:
    """Put one capability into the ambient set. EPERM unless it is permitted and inheritable already."""
    _prctl("PR_CAP_AMBIENT_RAISE", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def capget(pid: int = 0) -> tuple[int, int, int]:
    """(effective, permitted, inheritable) as 64-bit masks."""
    buffer = ctypes.create_string_buffer(24)
    check_result(libc.capget(struct.pack("=Ii", _CAPABILITY_VERSION_3, pid), buffer), "capget", pid)
    low = struct.unpack_from("=III", buffer, 0)
    high = struct.unpack_from("=III", buffer, 12)
    return low[0] | high[0] << 32, low[1] | high[1] << 32, low[2] | high[2] << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's three sets, given as 64-bit masks."""
    sets = (effective, permitted, inheritable)
    words = [s & 0xFFFFFFFF for s in sets] + [s >> 32 for s in sets]
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    check_result(libc.capset(header, struct.pack("=6I", *words)), "capset", *(hex(s) for s in sets))


def join_session_keyring(name: str | None) -> int:
    """Join (or make) session keyring `name`, an anonymous new one for None; return its serial number.

    EDQUOT: the user has too many keys; ENOSYS or EPERM: keys are forbidden here.
    """
    return syscall(syscall_number("keyctl"), _JOIN_SESSION_KEYRING, None if name is None else name.encode(), 0, 0, 0)


def load_filter(bpf: bytes, flags: int = 0) -> int | None:
    """Load BPF program `bpf` (struct sock_filter each) on this thread; the listener fd with FILTER_FLAG_NEW_LISTENER.

    seccomp(2): the thread needs no_new_privs or CAP_SYS_ADMIN in its user namespace (else EACCES), since a filter could
    make a setuid program believe that it has dropped its rights. No filter can be taken off again.
    """
    program = ctypes.create_string_buffer(bpf, len(bpf))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; } with native alignment
    header = struct.pack("@HP", len(bpf) // _INSTRUCTION, ctypes.addressof(program))
    result = syscall(syscall_number("seccomp"), _SET_MODE_FILTER, flags, header)
    return result if flags & FILTER_FLAG_NEW_LISTENER else None


def close_range(first: int, last: int = 0xFFFFFFFF, *, cloexec: bool = False) -> None:
    """Close fds first..last (both included), or mark them close-on-exec. Linux 5.9 and 5.11; else one by one."""
    import errno

    try:
        syscall(_CLOSE_RANGE, first, last, _CLOSE_RANGE_CLOEXEC if cloexec else 0)
    except OSError as e:
        if e.errno not in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
            raise
        _close_range_slowly(first, last, cloexec)


def close_others(kept: Iterable[int]) -> None:
    """Close every fd that is not in `kept`, so that no file that was inherited unseen reaches another program."""
    first = 0
    for fd in sorted(set(kept)):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def _close_range_slowly(first: int, last: int, cloexec: bool) -> None:
    if not cloexec:
        # The fds are not read from /proc/self/fd: after a container was joined, /proc is what the container has
        # mounted there, and a listing of its making would leave fds of the host open for its program.
        os.closerange(first, min(last + 1, _MOST_FDS))
        return
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if first <= fd <= last:
            try:
                os.set_inheritable(fd, False)
            except OSError:
                pass  # the fd of the listing itself, closed by now


def pidfd_open(pid: int) -> int:
    """pidfd_open(2), Linux 5.3. Close-on-exec."""
    return syscall(_PIDFD_OPEN, pid, 0)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2): to the very process, never to one that got its number later."""
    syscall(_PIDFD_SEND_SIGNAL, pidfd, signal, None, 0)


def personality(value: int) -> int:
    """personality(2): set the execution domain, return the former one."""
    return check_result(libc.personality(value), "personality", value)


def ioprio_set(which: int, who: int, priority: int) -> None:
    """Set the I/O priority of what `which` and `who` name (ioprio_set(2)). Raises OSError."""
    syscall(syscall_number("ioprio_set"), which, who, priority)


def set_mempolicy(mode: int, nodes: set[int]) -> None:
    """The NUMA policy of this thread's memory: MPOL_* with its flags, and the nodes it is about."""
    longs = bytearray(128)
    for node in nodes:
        longs[node // 8] |= 1 << node % 8
    # The kernel reads one bit less than this length says (set_mempolicy(2), BUGS); the mask has bits to spare.
    syscall(syscall_number("set_mempolicy"), mode, bytes(longs) if nodes else None, 8 * len(longs) if nodes else 0)


class SchedulingAttributes:
    """struct sched_attr of its first version. policy: SCHED_*; runtime, deadline, period: nanoseconds."""

    __slots__ = ("deadline", "flags", "nice", "period", "policy", "priority", "runtime")

    def __init__(self, policy: int) -> None:
        self.policy = policy
        self.flags = self.nice = self.priority = self.runtime = self.deadline = self.period = 0


def sched_setattr(pid: int, wanted: SchedulingAttributes) -> None:
    """sched_setattr(2) on process `pid`, 0 for this one."""
    times = (wanted.runtime, wanted.deadline, wanted.period)
    attributes = struct.pack("=IIQiIQQQ", 48, wanted.policy, wanted.flags, wanted.nice, wanted.priority, *times)
    syscall(syscall_number("sched_setattr"), pid, attributes, 0)


def fork() -> int:
    """os.fork; here so that a recorder can stand in for all of the kernel room."""
    return os.fork()
