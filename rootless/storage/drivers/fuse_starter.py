"""The process that starts fuse-overlayfs for one container (see driver_fuse_overlayfs). It serves one request and ends.

From fd 3 it reads the plan, and then the request "mount" with a descriptor of the container's user namespace. It
answers with a descriptor of the mount, or with the text of an error.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys

from rootless.errors import RootlessError
from rootless.host.userns import join_namespace
from rootless.kernel import mounts
from rootless.kernel.namespaces import CLONE_NEWNS, unshare
from rootless.kernel.process import set_child_subreaper
from rootless.kernel.procfs import child_pids, start_time
from rootless.records.id_map import Extent
from rootless.records.json_file import write_record
from rootless.records.rootfs import RootfsPlan
from rootless.storage.drivers.shown_owners import within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


def main() -> int:
    """Entry point of `worker_command("rootless.storage.drivers.fuse_starter")`."""
    channel = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    plan = RootfsPlan.from_job(json.loads(_exactly(channel, struct.unpack("!I", _exactly(channel, 4))[0])))
    sys.path += plan.site_packages
    import sh  # the start of the container goes on in parallel, so that this costs it no time

    request, fds, _, _ = socket.recv_fds(channel, 16, 1)
    if not request or not fds:
        return 0  # the container's start has failed before its root file system was due
    try:
        mount = _start(sh, plan, fds[0])
    except RootlessError as e:
        channel.send(e.message.encode("utf-8", "replace"))
    except sh.ErrorReturnCode as e:
        channel.send(e.stderr.strip() or f"exit status {e.exit_code}".encode())
    except OSError as e:
        channel.send(f"{e.filename or 'system call'}: {e.strerror}".encode("utf-8", "replace"))
    else:
        socket.send_fds(channel, [b"+"], [mount])
    sys.stdout.flush()
    # Not sys.exit: it would wait for the threads by which sh reads the output of the daemon, which lives on
    os._exit(0)


def _exactly(channel: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        piece = channel.recv(size - len(content))
        if not piece:
            os._exit(0)
        content += piece
    return content


def _start(sh: ModuleType, plan: RootfsPlan, namespace: int) -> int:
    """Enter the user namespace `namespace`, let the daemon mount, and return the mount as a detached copy (an fd).

    What was mounted on the way is unmounted again. The copy is then the only one, and when the container, in which it
    is attached, has ended, the daemon ends.
    """
    # A process may not join the user namespace that it is in: this one may have been started inside of it (setns(2))
    if os.fstat(namespace).st_ino != os.stat("/proc/self/ns/user").st_ino:
        join_namespace(namespace)
    unshare(CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    # fuse-overlayfs becomes a daemon by ending its first process. As a subreaper (PR_SET_CHILD_SUBREAPER) this process
    # becomes the parent of the daemon, and finds its pid among its children.
    set_child_subreaper()
    point = f"{plan.directory}/fuse"
    # Names that are short and have no special characters: fuse-overlayfs splits its options at ":" and ","
    mounts.mount("tmpfs", point, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=0700")
    os.chdir(point)
    for position, directory in enumerate(plan.lowerdirs):
        os.symlink(directory, str(position))
    os.symlink(plan.upper, "u")
    os.symlink(plan.work, "w")
    os.mkdir("m")
    lower = ":".join(str(position) for position in range(len(plan.lowerdirs)))
    options = f"lowerdir={lower},upperdir=u,workdir=w{',volatile' if plan.volatile else ''}"
    if plan.owners is not None:
        options += f",uidmapping={_mapping(plan.owners.uids, 'uid_map')}"
        options += f",gidmapping={_mapping(plan.owners.gids, 'gid_map')}"
    sh.Command(plan.program)("-o", options, f"{point}/m", _env={"PATH": os.defpath}, _close_fds=True)
    daemons = child_pids(os.getpid())
    if daemons:
        record = {"pid": daemons[0], "start": start_time(daemons[0])}
        write_record(f"{plan.directory}/fuse.json", record, durable=False)
    copy = mounts.open_tree(mounts.AT_FDCWD, f"{point}/m", mounts.OPEN_TREE_CLONE)
    mounts.umount(f"{point}/m", mounts.MNT_DETACH)
    os.chdir("/")
    mounts.umount(point, mounts.MNT_DETACH)
    return copy


def _mapping(shown: Sequence[tuple[int, int, int]], file: str) -> str:
    """The value of fuse-overlayfs' option `uidmapping` or `gidmapping`: ID:SHOWN_ID:COUNT for each range, joined by
    ":". ID is what stat(2) tells the daemon of a file on disk, SHOWN_ID what the daemon tells the kernel.

    shown: the same with the host's ids; file: `uid_map` or `gid_map`. Both ids are those of the daemon's user
    namespace, which is also the one that the mount belongs to: so the kernel reads SHOWN_ID by the same map.
    """
    with open(f"/proc/self/{file}", encoding="ascii") as lines:
        extents = [Extent(*map(int, line.split())) for line in lines]
    return ":".join(f"{a}:{b}:{size}" for a, b, size in within(shown, extents))
