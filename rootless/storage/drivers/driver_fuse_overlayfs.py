"""The fuse-overlayfs driver: an overlay in user space, for kernels before 5.11 and file systems that overlayfs refuses.

fuse-overlayfs is a daemon. In the container's pid namespace it would be killed before it has written everything; in the
container's mount namespace it would keep that alive. So it runs outside of both. A helper process, fuse_starter, is
started before the container's namespaces are made (a process of its own, since the package `sh` uses threads). From
inside, the mounter sends the container's user namespace to the helper. The helper enters it, starts the daemon in
another mount namespace, and sends the mount back as a file descriptor, which the mounter attaches in the container.
When the container's mount namespace ends, the kernel drops the last mount, and the daemon ends by itself; `unmount`
waits for that, and kills a daemon that stays. All this needs open_tree(2), Linux 5.2.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import struct
import sys

from rootless.errors import HostLimit, RootlessError, RuntimeFailure
from rootless.kernel import mounts
from rootless.records.rootfs import RootfsPlan
from rootless.storage.drivers import ChangeForm
from rootless.storage.drivers.writable import make_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.host.probes.result import Probe
    from rootless.records.id_map import IdMap
    from rootless.storage.drivers import Driver

RECORD = "fuse.json"  # in the container's directory: pid and start time of the daemon
ANSWER = 65536  # bytes of the helper's answer at most
START_TIMEOUT = 30.0  # seconds
END_TIMEOUT = 10.0  # seconds that the daemon gets to end by itself, then after SIGTERM, then after SIGKILL


def _require_program() -> str:
    from rootless.host.facts import find_helper
    from rootless.host.remedies import package_remedy

    program = find_helper("fuse-overlayfs")
    if program is None:
        raise HostLimit("fuse-overlayfs is not installed", hint=package_remedy("fuse-overlayfs"))
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        # /dev/fuse may be there although the kernel's module is not loaded
        is_absent = e.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO)
        line = "modprobe fuse" if is_absent else "chmod 0666 /dev/fuse"
        raise HostLimit(f"cannot open '/dev/fuse': {e.strerror}", hint=f"ask the administrator for: {line}") from e
    return program


class FuseMounter:
    """The Mounter: it mounts one plan with the help of the process that it has started."""

    __slots__ = ("_pid", "_plan", "_socket")

    def __init__(self, plan: RootfsPlan) -> None:
        from rootless.host.interpreter import worker_command

        self._plan = plan
        # A stream and no packets: the plan of an image with hundreds of layers is longer than a packet may be
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        argv = worker_command("rootless.storage.drivers.fuse_starter")
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"}
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3), (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        self._pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
        theirs.close()
        content = json.dumps(plan.to_json()).encode()
        self._socket.sendall(struct.pack("!I", len(content)) + content)

    def __call__(self, target: str) -> None:
        """Mount on directory `target`. Raises RuntimeFailure with the message of fuse-overlayfs."""
        namespace = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            socket.send_fds(self._socket, [b"mount"], [namespace])
            self._socket.settimeout(START_TIMEOUT)
            content, fds, _, _ = socket.recv_fds(self._socket, ANSWER, 1)
        except OSError as e:
            raise RuntimeFailure(f"the helper that starts fuse-overlayfs does not answer: {e.strerror or e}") from e
        finally:
            os.close(namespace)
        if not fds:
            text = content.decode("utf-8", "replace") or "its helper ended"
            raise RuntimeFailure(f"cannot mount with fuse-overlayfs: {text}", hint="see `rootless doctor`")
        try:
            mounts.move_mount_to(fds[0], mounts.AT_FDCWD, target)
        except OSError as e:
            raise RuntimeFailure(f"cannot attach fuse-overlayfs on '{target}': {e.strerror}") from e
        finally:
            os.close(fds[0])

    def close(self) -> None:
        """Let the helper end; a daemon that it has started goes on."""
        self._socket.close()
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # the process reaps all its children elsewhere, or this is its forked copy inside the container


def _end_daemon(path: str) -> None:
    from rootless.kernel.process import pidfd_open, pidfd_send_signal
    from rootless.kernel.procfs import start_time
    from rootless.records.fields import Fields
    from rootless.records.json_file import read_record

    try:
        fields = Fields(read_record(path), path)
        pid, start = fields.integer("pid"), fields.integer("start")
        fd = pidfd_open(pid)
    except (RootlessError, ProcessLookupError):
        return
    try:
        # The pid may belong to another process by now. The pidfd holds on to one process, and its start time says
        # whether that is the daemon; the other order would leave a moment in which the pid could change hands.
        if start_time(pid) != start:
            return
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                pidfd_send_signal(fd, number)
            if select.select([fd], [], [], END_TIMEOUT)[0]:
                break
    except OSError as e:
        if e.errno not in (errno.ESRCH, errno.ENOENT):
            raise HostLimit(f"cannot end fuse-overlayfs: {e.strerror}") from e
    finally:
        os.close(fd)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


class FuseOverlayfsDriver:
    """The driver of hosts whose kernel mounts no overlayfs for a user."""

    __slots__ = ()
    name = program = package = "fuse-overlayfs"
    rank = 2
    purpose = "an overlay in user space"
    loss = "opening and removing many files takes longer"
    shows_owners, reads_views = True, False
    form = ChangeForm(has_named_whiteouts=True, keeps_parent_times=False)

    def complete(self, plan: RootfsPlan) -> None:
        """Add `work` and what the helper needs. Raises HostLimit when the program or /dev/fuse is missing."""
        plan.work = f"{plan.directory}/work"
        plan.program = _require_program()
        # The helper imports the package `sh`. The monitor, which starts it, runs without installed packages (`python
        # -S`) and could not say where they are.
        plan.site_packages = [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages")]

    def prepare(self, plan: RootfsPlan, id_map: IdMap) -> None:
        """Make `upper`, `work` and the helper's mount point. Raises HostLimit."""
        make_directories(plan, id_map, "work", "fuse")

    def mounter(self, plan: RootfsPlan) -> FuseMounter:
        """What mounts the plan. The helper is started."""
        return FuseMounter(plan)

    def unmount(self, plan: RootfsPlan) -> None:
        """Wait until the daemon has written everything and has ended, and kill one that stays. Raises HostLimit."""
        _end_daemon(f"{plan.directory}/{RECORD}")

    def probe(self, directory: str, id_map: IdMap) -> Probe:
        """Mount a small tree. Raises HostLimit (no program, /dev/fuse or user namespace), RuntimeFailure, OSError."""
        from rootless.storage.drivers.trial_mount import try_driver

        return try_driver(self, directory, id_map)


DRIVER: Driver = FuseOverlayfsDriver()
