"""Finds and ends the processes of a container that no pid namespace holds, by its mount and user namespace.

Not by their root directory, parent or session: those a process changes as it likes (chroot, double fork, setsid). It
leaves the mount namespace only for one that is owned by its user namespace or by one below that.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time

from rootless.kernel import procfs
from rootless.kernel.process import pidfd_open, pidfd_send_signal
from rootless.records.container_namespaces import ContainerNamespaces

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


def identify(pid: int) -> ContainerNamespaces | None:
    """The namespaces of process `pid`, which need not be dumpable where a child of it is; None when it has ended."""
    seen = procfs.transparent(pid)
    try:
        found = ContainerNamespaces(_identity(f"/proc/{seen}/ns/mnt"), _identity(f"/proc/{seen}/ns/user"))
        return None if found.mount == _identity("/proc/self/ns/mnt") else found
    except OSError:
        return None


def own_namespaces() -> ContainerNamespaces:
    """The namespaces that this process is in; procfs must be the host's still."""
    return ContainerNamespaces(_identity("/proc/self/ns/mnt"), _identity("/proc/self/ns/user"))


def _identity(path: str) -> tuple[int, int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fstat(fd).st_ino, _unique(fd)
    finally:
        os.close(fd)


def _unique(fd: int) -> int:
    """The number of the namespace that is never given again; 0 where the kernel has none."""
    for request in (_NS_GET_ID, _NS_GET_MNTNS_ID):
        answer = bytearray(8)
        try:
            fcntl.ioctl(fd, request, answer)
        except OSError:
            continue
        return int(struct.unpack("=Q", answer)[0])
    return 0


class Members:
    """The processes of one container, found by its namespaces as often as it is asked.

    spared: pids of processes of ours that live there: the network's helper is in the user namespace.
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
            # first: of a zombie this fails
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
                    return False  # EPERM: the one above is not below ours
                os.close(fd)
                fd = parent
            return False
        finally:
            os.close(fd)

    def end(self) -> list[int]:
        """Kill all and wait; the pids of those that do not die.

        All are stopped first: killed one by one, those that are left would fork into the room that a limit of
        processes has then.
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
        """A pidfd, taken before the look: so that the number cannot have become another's."""
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


def proven(namespaces: ContainerNamespaces, is_ours: Callable[[int], bool]) -> ContainerNamespaces | None:
    """What of the namespaces of a container whose processes may all have ended is still certain; None for nothing.

    Where the kernel has no numbers that it never gives again, another container may have the inodes by now. is_ours:
    whether the top directory that the fd stands for is the root of this container, or of another; one process that is
    seen to be in it is the proof for all.
    """
    if namespaces.is_unique:
        return namespaces
    known = ContainerNamespaces(namespaces.mount, namespaces.user)
    known.shares_processes = namespaces.shares_processes
    for pid in Members(known).pids():
        try:
            user = os.stat(f"/proc/{pid}/ns/user").st_ino
            top = _top_of(pid)
        except OSError:
            continue
        try:
            if is_ours(top):
                known.makes_user = namespaces.makes_user and user == namespaces.user[0]
                return known
        finally:
            os.close(top)
    return known if known.mount[1] else None


def _top_of(pid: int) -> int:
    """O_PATH fd of the root of the mount namespace of `pid`, wherever its own root directory is: our walk upwards ends
    at our own root only, which is not there."""
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
