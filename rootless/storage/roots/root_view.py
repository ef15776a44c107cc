"""Opens the root file system of a container, running or not, from a process in its user namespace. It copies nothing.

The root of a running container is reached through /proc, with everything that is mounted in it. The tree of a stopped
container is mounted in this process' namespaces, with its volumes. The container decides where links in it lead, so
every path below the root must be resolved with `open_in_root`: else a link could lead to files of the host. Once a root
is open, this process is killed when the one that has started it ends.
"""

from __future__ import annotations

import os
import socket
import stat

from rootless.errors import HostLimit, InvalidState
from rootless.host.seeding import seed_volume
from rootless.host.userns import enter_new_namespace, join_namespace
from rootless.kernel import mounts
from rootless.kernel.files import make_file_in_root, mkdirs_in_root, open_in_root
from rootless.kernel.namespaces import CLONE_NEWNS, setns
from rootless.kernel.process import end_with_parent
from rootless.kernel.procfs import start_time
from rootless.storage import drivers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.storage.roots.transfer_job import TransferJob

_PATH = os.O_PATH | os.O_CLOEXEC
_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_running(pid: int, started: int, *, bare: bool) -> int:
    """The root (an fd) of the running container whose first process is `pid`.

    started: the start time of that process, since its pid may belong to another process by now; bare: whether to leave
    out what is mounted below the root. Raises InvalidState when the container has ended, HostLimit.
    """
    parent = os.getppid()
    try:
        user, mount, root = (os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in
                             ("ns/user", "ns/mnt", "ns/pid"))  # fmt: skip
        os.close(root)
        if start_time(pid) != started:
            raise InvalidState("the container has ended")
        join_namespace(user)
        end_with_parent(parent)
        return _bare_root(mount) if bare else os.open(f"/proc/{pid}/root", _READ_DIRECTORY)
    except OSError as e:
        raise HostLimit(f"cannot look into the container: {e.strerror}") from e


def _bare_root(namespace: int) -> int:
    """A copy of the mount at the root of a mount namespace, without what is mounted below it (an fd).

    A forked child enters the namespace and sends the copy back. This process stays outside: inside, Python would import
    modules from the container's files.
    """
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            setns(namespace, CLONE_NEWNS)
            fd = mounts.open_tree(mounts.AT_FDCWD, "/", mounts.OPEN_TREE_CLONE)
            socket.send_fds(theirs, [b"+"], [fd])
        finally:
            os._exit(0)
    theirs.close()
    with mine:
        _, fds, _, _ = socket.recv_fds(mine, 16, 1)
    os.waitpid(child, 0)
    if not fds:
        raise HostLimit("cannot look below the container's mounts (Linux 5.2 has what that needs)")
    try:
        return os.open(".", _READ_DIRECTORY, dir_fd=fds[0])
    finally:
        os.close(fds[0])


def open_stopped(job: TransferJob) -> int:
    """Mount the tree of a container that does not run, and its volumes, in new namespaces; returns the root (an fd).

    After this process has ended, the caller must call `drivers.unmount_root(job.plan)`. Raises RuntimeFailure,
    HostLimit.
    """
    parent = os.getppid()
    target = f"{job.plan.directory}/rootfs"
    mounter = drivers.make_mounter(job.plan)
    try:
        enter_new_namespace(job.id_map)
        end_with_parent(parent)
        os.umask(0)
        mounter(target)
    finally:
        mounter.close()
    root = os.open(target, _READ_DIRECTORY)
    try:
        for volume, place in job.seeds:
            _fill(root, volume, place)
        for bind in job.binds:
            _bind(root, bind.source, bind.target, read_only=bind.read_only)
        if job.read_only:
            mounts.mount_setattr(root, set=mounts.MOUNT_ATTR_RDONLY)
    except OSError as e:
        raise HostLimit(f"cannot mount what the container has: {e.filename or ''}: {e.strerror}") from e
    return root


def _fill(root: int, volume: str, target: str) -> None:
    """Fill a new volume with the image's files, as a start of the container would; `seed_volume` lets only one of
    several processes do it."""
    try:
        image = open_in_root(root, target, _READ_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        seed_volume(volume, image)
    finally:
        os.close(image)


def _bind(root: int, source: str, target: str, *, read_only: bool) -> None:
    try:
        # The source is opened once and mounted by this fd: another container that shares a directory above it could
        # make the name lead elsewhere between a look and the mount
        origin = os.open(source, _PATH)
    except OSError:
        return  # the source is gone from the host; a start of the container would fail and say so
    try:
        _bind_opened(root, origin, target, read_only=read_only)
    finally:
        os.close(origin)


def _bind_opened(root: int, origin: int, target: str, *, read_only: bool) -> None:
    is_directory = stat.S_ISDIR(os.fstat(origin).st_mode)
    try:
        fd = open_in_root(root, target, _PATH)
    except FileNotFoundError:
        fd = mkdirs_in_root(root, target, 0o755) if is_directory else make_file_in_root(root, target, 0o644, 0o755)
    try:
        mounts.mount(f"/proc/self/fd/{origin}", f"/proc/self/fd/{fd}", None, mounts.MS_BIND | mounts.MS_REC)
    finally:
        os.close(fd)
    if read_only:
        mounted = open_in_root(root, target, _PATH)
        try:
            mounts.mount_setattr(mounted, set=mounts.MOUNT_ATTR_RDONLY, recursive=True)
        finally:
            os.close(mounted)
