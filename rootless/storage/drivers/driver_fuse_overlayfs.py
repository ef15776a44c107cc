"""fuse-overlayfs: overlay in user space, for hosts whose kernel cannot (before 5.11, or a file system it refuses).

Its daemon must live outside of the container's pid namespace, or it would be killed before it has written everything,
and outside of the container's mount namespace, or it would keep that alive. So a helper (fuse_starter, a process of its
own, since `sh` uses threads) waits beside the launch; from inside, the mounter sends it the user namespace; the helper
enters that, starts the daemon in a mount namespace of its own, and sends back the mount as a file descriptor, which the
mounter attaches to the container's tree. When the container's mount namespace ends, the kernel drops the last mount and
the daemon ends by itself; `unmount` waits for that and kills what is left. Needs open_tree (Linux 5.2).
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

RECORD = "fuse.json"  # {"pid", "start"} of the daemon, in the container's directory
ANSWER = 65536
START_TIMEOUT = 30.0
END_TIMEOUT = 10.0


def _require_program() -> str:
    from rootless.host.facts import find_helper
    from rootless.host.remedies import package_remedy

    program = find_helper("fuse-overlayfs")
    if program is None:
        raise HostLimit("fuse-overlayfs is not installed", hint=package_remedy("fuse-overlayfs"))
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        # the node may be there without the module
        is_absent = e.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO)
        line = "modprobe fuse" if is_absent else "chmod 0666 /dev/fuse"
        raise HostLimit(f"cannot open '/dev/fuse': {e.strerror}", hint=f"ask the administrator for: {line}") from e
    return program


class FuseMounter:
    """Mounts one plan with the helper that was started for it."""

    __slots__ = ("_pid", "_plan", "_socket")

    def __init__(self, plan: RootfsPlan) -> None:
        from rootless.host.interpreter import worker_command

        self._plan = plan
        # a stream: the plan of an image with hundreds of layers is longer than a packet may be
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        argv = worker_command("rootless.storage.drivers.fuse_starter")
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"}
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3), (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        self._pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
        theirs.close()
        content = json.dumps(plan.to_json()).encode()
        self._socket.sendall(struct.pack("!I", len(content)) + content)

    def __call__(self, target: str) -> None:
        """Mount on directory `target`. Raises RuntimeFailure with fuse-overlayfs' own words."""
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
        """End the helper; the daemon that it may have started goes on."""
        self._socket.close()
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # somebody reaps all children, or this is the forked copy inside the container


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
        # The number may be another process by now: the start time decides, after the pidfd holds it fast
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
    form = ChangeForm(has_named_whiteouts=True, keeps_parent_times=False)

    def complete(self, plan: RootfsPlan) -> None:
        """Add `work` and the helper. Raises HostLimit: no program, no /dev/fuse."""
        plan.work = f"{plan.directory}/work"
        plan.program = _require_program()
        # The helper needs the package sh, and the monitor, which starts it, knows no installed packages (`python -S`)
        plan.site_packages = [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages")]

    def prepare(self, plan: RootfsPlan, id_map: IdMap) -> None:
        """Make `upper`, `work` and the helper's mount point. Raises HostLimit."""
        make_directories(plan, id_map, "work", "fuse")

    def mounter(self, plan: RootfsPlan) -> FuseMounter:
        """What mounts the plan; starts the helper."""
        return FuseMounter(plan)

    def unmount(self, plan: RootfsPlan) -> None:
        """Wait until the daemon has written everything and ended; kill it when it does not. Raises HostLimit."""
        _end_daemon(f"{plan.directory}/{RECORD}")

    def probe(self, directory: str, id_map: IdMap) -> Probe:
        """Start one for real. Raises HostLimit (no program, /dev/fuse or user namespace), RuntimeFailure, OSError."""
        from rootless.storage.drivers.trial_mount import try_driver

        return try_driver(self, directory, id_map)


DRIVER: Driver = FuseOverlayfsDriver()
