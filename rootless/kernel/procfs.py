"""Readers of /proc, and writes to it that are proven to reach procfs. It decides nothing from what it reads."""

from __future__ import annotations

import errno
import os

PROC_SUPER_MAGIC = 0x9FA0


class ProcessStat:
    """The fields of /proc/PID/stat that we use (proc(5)), from its text. start_time: clock ticks since boot."""

    __slots__ = ("command", "parent", "pid", "process_group", "session", "start_time", "state", "tty")

    def __init__(self, text: str) -> None:
        # The name of a command may hold spaces and parentheses, which the kernel does not escape. Fields are counted
        # from the last parenthesis, or a process could choose its own parent and start time by its name.
        head, _, tail = text.rpartition(")")
        pid, _, self.command = head.partition(" (")
        fields = tail.split()
        self.pid = int(pid)
        self.state = fields[0]
        self.parent, self.process_group, self.session, self.tty = map(int, fields[1:5])
        self.start_time = int(fields[19])


class MountInfo:
    """One line of /proc/PID/mountinfo, names unescaped. propagation: the optional fields (`shared:1`, `master:2`)."""

    __slots__ = ("device", "fstype", "identity", "options", "parent", "propagation", "root", "source", "target")

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        self.identity = int(fields[0])
        self.parent = int(fields[1])
        self.device = fields[2]
        self.root = _unescape(fields[3])
        self.target = _unescape(fields[4])
        self.options = fields[5].split(",")
        self.propagation = fields[6:]
        tail = right.split(" ")
        self.fstype = tail[0]
        self.source = _unescape(tail[1])
        self.options += tail[2].split(",") if len(tail) > 2 else []


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as f:
        return f.read()


def read_stat(pid: int) -> ProcessStat:
    """/proc/PID/stat; FileNotFoundError or ProcessLookupError when there is no such process."""
    return ProcessStat(_read(f"/proc/{pid}/stat"))


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot: with the pid and the boot id its identity."""
    return read_stat(pid).start_time


def child_pids(pid: int) -> list[int]:
    """Direct children; by /proc/PID/task/*/children, or by a scan of /proc where the kernel lacks that."""
    try:
        result: list[int] = []
        for task in os.listdir(f"/proc/{pid}/task"):
            result += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
        return sorted(result)
    except FileNotFoundError:
        os.stat(f"/proc/{pid}")
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if read_stat(int(name)).parent == pid:
                    found.append(int(name))
            except OSError:
                pass  # it ended meanwhile
    return sorted(found)


def visible_process(pid: int) -> int:
    """A process that shows the root and the namespaces of `pid`: itself, or a child of it where it hides its own.

    Our own reaper of `run --init` is not dumpable, so /proc/PID/root and ns of it are closed to us (ptrace(2)). Its
    children, which have executed the image's program, are open. Nothing is asked of the root directory itself: a FUSE
    file system of another user namespace would refuse that of any process.
    """
    try:
        os.readlink(f"/proc/{pid}/root")
    except PermissionError:
        for child in child_pids(pid):
            try:
                os.readlink(f"/proc/{child}/root")
            except OSError:
                continue
            return child
    except OSError:
        pass  # it has ended: who uses the number meets that again
    return pid


def boot_id() -> str:
    """A UUID that is new at each boot."""
    return _read("/proc/sys/kernel/random/boot_id").strip()


def status_field(pid: int | str, name: str) -> str:
    """Value of one line of /proc/PID/status, such as `CapEff` or `NoNewPrivs`; KeyError when there is none."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    raise KeyError(name)


def mountinfo(pid: int | str = "self") -> list[MountInfo]:
    """The mounts that process `pid` sees, in the kernel's order."""
    return [MountInfo(line) for line in _read(f"/proc/{pid}/mountinfo").splitlines()]


def is_procfs(fd: int) -> bool:
    """Is the file of `fd` on a proc filesystem?"""
    from rootless.kernel.mounts import fs_magic

    return fs_magic(fd) == PROC_SUPER_MAGIC


def write_proc(procroot_fd: int, path: str, data: bytes) -> None:
    """Write `data` in one call to `path` below the proc filesystem whose root is `procroot_fd`.

    CVE-2025-52881, CVE-2019-16884: a mount placed over /proc redirects such writes (labels, sysctls) to other files,
    so no link and no other mount is crossed, and what is opened must be procfs. Raises OSError EXDEV otherwise.
    """
    from rootless.kernel.files import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, openat2, walk_beneath

    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = openat2(procroot_fd, path, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)
    except OSError as e:
        if e.errno != errno.ENOSYS:
            raise
        fd = walk_beneath(procroot_fd, path, flags)
    try:
        same = os.fstat(fd).st_dev == os.fstat(procroot_fd).st_dev
        if not same or not is_procfs(fd):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
        written = os.write(fd, data)
        if written != len(data):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
    finally:
        os.close(fd)
