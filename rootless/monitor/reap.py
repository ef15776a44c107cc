"""Cleans up after a monitor that was killed: its helpers end, and the state says what became of the container.

The engine calls `clean_up_after_monitor` for a container whose state says that it runs while nobody holds monitor.lock.
The lock, and no pid, says whether a monitor lives: the kernel drops it with the process, however that ends. Nothing is
started here.
"""

from __future__ import annotations

import fcntl
import os
import signal

from rootless.kernel import procfs
from rootless.kernel.process import pidfd_open, pidfd_send_signal
from rootless.monitor import state
from rootless.records.state import LIVE, ContainerState, timestamp_ns

DEAD_EXIT_CODE = 137  # 128 + SIGKILL, with which a container ends whose monitor was killed


def is_supervised(directory: str) -> bool:
    """Whether a monitor holds the lock of the container in `directory`."""
    try:
        fd = os.open(f"{directory}/monitor.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def find_monitor(directory: str) -> int:
    """Pid of the monitor of the container in `directory`, as the kernel's table of locks has it; 0 without one.

    state.json cannot be asked: until a new monitor has launched the container, the file still names the one before.
    """
    try:
        inode = os.stat(f"{directory}/monitor.lock").st_ino
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            locks = [line.split() for line in file]
    except OSError:
        return 0
    # proc_locks(5): "1: FLOCK  ADVISORY  WRITE 1234 08:02:5678 0 EOF". A process that waits for the lock has "->"
    # before FLOCK. The device is not compared: btrfs and overlayfs show one number here and another in stat(2)
    for words in locks:
        if len(words) > 5 and words[1] == "FLOCK" and words[3] == "WRITE" and words[5].endswith(f":{inode}"):
            return int(words[4]) if _has_open(int(words[4]), f"{directory}/monitor.lock") else 0
    return 0


def _has_open(pid: int, path: str) -> bool:
    """Whether process `pid` has the file open; False also where /proc hides its descriptors.

    Inodes of two file systems may have the same number: the holder of a lock on another file would be taken for the
    monitor otherwise.
    """
    try:
        wanted = os.stat(path)
        return any(
            os.path.samestat(wanted, os.stat(f"/proc/{pid}/fd/{name}"))
            for name in os.listdir(f"/proc/{pid}/fd")
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith("/")
        )
    except OSError:
        return False


def clean_up_after_monitor(directory: str) -> ContainerState | None:
    """Put right what a dead monitor left of the container in `directory`.

    Returns the container's state now, None when there was nothing to put right. The container's first process and the
    recorded helpers are killed if they are still the same processes (boot id and start time), and the state becomes
    "exited" with code 137. A container that a monitor guards, or that is another host's, is left alone. Where the state
    cannot be written, on a full disk, the returned state holds all the same: to read or to remove must not need room.
    The lock is held all along, so that no monitor starts the container meanwhile and has its processes killed.
    """
    try:
        fd = os.open(f"{directory}/monitor.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        facts = state.read_state(directory)
        if facts is None or facts.status not in LIVE or facts.host != os.uname().nodename:
            return None
        if facts.boot_id == procfs.boot_id():
            _kill_same(facts.pid, facts.pid_start)
            for pid, start in facts.helpers:
                _kill_same(pid, start)
            _end_cgroup(facts.cgroup)
            if facts.namespaces is not None:
                from rootless.monitor.leftovers import end_leftovers

                end_leftovers(directory, facts, is_certain=False)
        facts.finished_at = timestamp_ns()
        state.mark_ended(facts, "exited", DEAD_EXIT_CODE, "monitor died")
        try:
            state.write_state(directory, facts)
        except OSError:
            pass  # the next call finds the same state, and tries again
    finally:
        os.close(fd)
    return facts


def _end_cgroup(known: dict[str, object] | None) -> None:
    """Kill what is left in the container's cgroup, and remove the cgroup. known: what the state says of it."""
    if not known:
        return
    from rootless.errors import RootlessError
    from rootless.runtime.cgroups.group import restore

    group = restore(known)
    if group is None:
        return
    try:
        group.kill()
        group.remove()
    except (RootlessError, OSError):
        pass  # `system prune` finds a cgroup that stays


def _kill_same(pid: int, start_time: int) -> None:
    """Send SIGKILL to process `pid` if it began at `start_time` (clock ticks since boot).

    The pidfd is taken before the start time is read: a number that becomes another process's between the two has
    another start time, and one that does so afterwards is not what the pidfd means.
    """
    if pid <= 1 or not start_time:
        return
    try:
        pidfd = pidfd_open(pid)
    except OSError:
        return
    try:
        if procfs.start_time(pid) == start_time:
            pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        pass  # the process has ended by itself
    finally:
        os.close(pidfd)
