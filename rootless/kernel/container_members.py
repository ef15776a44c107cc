"""Finds and ends the processes of a container that no pid namespace holds, by its mount and user namespace.

Root directory, parent and session are no marks of a container, for a process changes them as it likes (chroot, double
fork, setsid). Its mount namespace it can leave only for one that its own user namespace, or one below that, owns:
setns(2) wants CAP_SYS_ADMIN in the user namespace that owns the target.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time

from rootless.kernel import procfs
from rootless.kernel.process import pidfd_open, pidfd_send_signal
from rootless.records.state import ContainerNamespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# ioctl_nsfs(2): _IO(0xb7, 2) and _IOR(0xb7, NUMBER, __u64)
_NS_GET_PARENT = 0xB702
_NS_GET_MNTNS_ID = 0x8008B705
_NS_GET_ID = 0x8008B70D
_SIGKILL, _SIGSTOP = 9, 19
_PATIENCE = 10.0  # seconds until what does not die is given up
_ROUNDS = 20  # of looking for processes that were born while the others were stopped
_DEPTH = 33  # of user namespaces: the kernel allows 32 below each other


def identify_namespaces(pid: int) -> ContainerNamespaces | None:
    """The namespaces of process `pid`; None when it has ended, or is (still) in the mount namespace of the caller.

    A process that is not dumpable hides its namespaces; they are then read from a child of it, which has the same.
    """
    seen = procfs.visible_process(pid)
    try:
        found = ContainerNamespaces(_identity(f"/proc/{seen}/ns/mnt"), _identity(f"/proc/{seen}/ns/user"))
        return None if found.mount == _identity("/proc/self/ns/mnt") else found
    except OSError:
        return None


def own_namespaces() -> ContainerNamespaces:
    """The namespaces that this process is in, read from /proc/self: to be called before a root of a container's own."""
    return ContainerNamespaces(_identity("/proc/self/ns/mnt"), _identity("/proc/self/ns/user"))


def _identity(path: str) -> tuple[int, int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fstat(fd).st_ino, _unique(fd)
    finally:
        os.close(fd)


def _unique(fd: int) -> int:
    """The identity of the namespace, a number that is never given again; 0 where the kernel has none.

    The inode of a namespace file is given to another namespace as soon as this one has ended.
    """
    for request in (_NS_GET_ID, _NS_GET_MNTNS_ID):
        answer = bytearray(8)
        try:
            fcntl.ioctl(fd, request, answer)
        except OSError:
            continue
        return int(struct.unpack("=Q", answer)[0])
    return 0


class Members:
    """The processes of one container, looked for in /proc at each question: none is remembered between two of them.

    spared: pids of our own processes which are in those namespaces and do not belong to the container, as the helper
    of its network, which is in the user namespace.
    """

    __slots__ = ("_known", "_outside", "_spared", "namespaces")

    def __init__(self, namespaces: ContainerNamespaces, spared: Iterable[int] = ()) -> None:
        self.namespaces = namespaces
        self._spared = {os.getpid(), *spared}
        self._outside = os.stat("/proc/self/ns/user").st_ino
        self._known: dict[int, bool] = {}

    def pids(self) -> list[int]:
        """Every process that belongs to it now, zombies excepted."""
        self._known = {}
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and self.has(int(name))]

    def has(self, pid: int) -> bool:
        """Whether process `pid` belongs to it."""
        if pid in self._spared:
            return False
        try:
            # The mount namespace is asked for first: a zombie has none any more (ENOENT), but still a user namespace.
            # In the other order a zombie that nobody reaps would count as alive, and `end` would wait for it in vain.
            mount = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if mount == self.namespaces.mount[0]:
                return self._is_same(f"/proc/{pid}/ns/mnt", self.namespaces.mount)
            if not self.namespaces.makes_user:
                return False
            user = os.stat(f"/proc/{pid}/ns/user").st_ino
            if user == self._outside:
                return False
            if user not in self._known:
                self._known[user] = self._is_below(f"/proc/{pid}/ns/user")
            return self._known[user]
        except OSError:
            return False  # it has ended, or is another user's

    @staticmethod
    def _is_same(path: str, wanted: tuple[int, int]) -> bool:
        return not wanted[1] or _identity(path) == wanted

    def _is_below(self, path: str) -> bool:
        """Whether the user namespace at `path` is the container's, or one that was made in it."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for _ in range(_DEPTH):
                if (os.fstat(fd).st_ino, _unique(fd)) == self.namespaces.user:
                    return True
                try:
                    parent = fcntl.ioctl(fd, _NS_GET_PARENT)
                except OSError:
                    return False  # EPERM (ioctl_nsfs(2)): the parent is above our own user namespace
                os.close(fd)
                fd = parent
            return False
        finally:
            os.close(fd)

    def end(self) -> list[int]:
        """Kill every process and wait for its end; the pids of those that did not die within _PATIENCE seconds.

        All are stopped before the first is killed. A process that saw the others die could go on forking, each death
        making room under a limit of processes, and no round would ever find the last one.
        """
        deadline = time.monotonic() + _PATIENCE
        empty = 0
        left: list[int] = []
        while empty < 2 and time.monotonic() < deadline:
            held = self._stop_all()
            empty = 0 if held else empty + 1
            for fd in held.values():
                _send(fd, _SIGKILL)
            left = [pid for pid, fd in held.items() if not _ends(fd, deadline)]
            for fd in held.values():
                os.close(fd)
        return left

    def _stop_all(self) -> dict[int, int]:
        """Pidfds of all processes, each of which got SIGSTOP."""
        held: dict[int, int] = {}
        for _ in range(_ROUNDS):
            fresh = {pid: fd for pid in self.pids() if pid not in held and (fd := self._hold(pid)) is not None}
            for fd in fresh.values():
                _send(fd, _SIGSTOP)
            held.update(fresh)
            if not fresh:
                break
        return held

    def _hold(self, pid: int) -> int | None:
        """A pidfd of `pid` if it belongs to the container, else None.

        The pidfd is opened before the look at the namespaces. Opened after it, the number could have become another
        process's in between, and that one would be killed.
        """
        try:
            fd = pidfd_open(pid)
        except OSError:
            return None
        if self.has(pid):
            return fd
        os.close(fd)
        return None


def _send(pidfd: int, number: int) -> None:
    try:
        pidfd_send_signal(pidfd, number)
    except OSError:
        pass  # it has ended by itself


def _ends(pidfd: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0, int((deadline - time.monotonic()) * 1000))))


def certain_namespaces(
    namespaces: ContainerNamespaces, is_ours: Callable[[int], bool], sees_ours: Callable[[int], bool]
) -> ContainerNamespaces | None:
    """The part of a container's noted namespaces that is still certain to be its own; None when none is.

    Where the kernel has no numbers that it never gives again, the container may have ended and another may have the
    inodes by now. is_ours: whether the directory that the fd stands for is the root of this container; sees_ours:
    whether the process of that pid has mounts of this container, asked for where its root cannot be looked at. One
    process with these namespaces that is seen to be in the container proves them for all.
    """
    if namespaces.is_unique:
        return namespaces
    known = ContainerNamespaces(namespaces.mount, namespaces.user)
    known.shares_processes = namespaces.shares_processes
    for pid in Members(known).pids():
        try:
            user = os.stat(f"/proc/{pid}/ns/user").st_ino
        except OSError:
            continue
        if _is_in(pid, is_ours) or sees_ours(pid):
            known.makes_user = namespaces.makes_user and user == namespaces.user[0]
            return known
    return known if known.mount[1] else None


def _is_in(pid: int, is_ours: Callable[[int], bool]) -> bool:
    try:
        top = _top_of(pid)
    except OSError:
        return False
    try:
        return is_ours(top)
    finally:
        os.close(top)


def _top_of(pid: int) -> int:
    """O_PATH fd of the root of the mount namespace of `pid`, wherever that process's own root directory is.

    `..` stops at the root directory of the process that asks. Ours is not on the way up from a directory of another
    mount namespace, so the walk ends at that namespace's topmost directory, where `..` is the directory itself.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(f"/proc/{pid}/root", flags)
    for _ in range(4096):
        try:
            above = os.open("..", flags, dir_fd=fd)
        except OSError:
            os.close(fd)
            raise
        here, there = os.fstat(fd), os.fstat(above)
        os.close(fd)
        fd = above
        if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            break
    return fd
