"""A container whose map lacks the caller's own ids: set up in a user namespace that has them, run in an inner one.

Root of such a map may not pass through the caller's private directories, where the root file system and most sources of
mounts are. So all namespaces and mounts are made in the outer namespace, by that of its ids which is root inside, with
all capabilities; the command's process enters the inner one just before it takes on its identity. What belongs to the
outer namespace (mounts, network, host name) is then out of its reach even with capabilities.
"""

from __future__ import annotations

import fcntl
import os

from rootless.errors import RuntimeFailure
from rootless.kernel import process as kernel
from rootless.kernel.mounts import fs_magic
from rootless.kernel.namespaces import CLONE_NEWUSER, setns, unshare
from rootless.kernel.procfs import write_proc
from rootless.records.id_map import extents_between
from rootless.runtime.spec.oci_config import OciMount
from rootless.runtime.spec.process_config import OciUser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.records.id_map import Extent, IdMap
    from rootless.runtime.spec.oci_config import OciConfig

_PIPEFS_MAGIC = 0x50495045
_NS_GET_PARENT = 0xB702
_FIRST_PORT = "sys/net/ipv4/ip_unprivileged_port_start"


class Nested:
    """The inner map in terms of the outer one. outer: the map that the launcher writes; inner: the container's.

    Raises RuntimeFailure when an id of the container is none of the outer map.
    """

    __slots__ = ("_gids", "_proc", "_uids", "low_ports")

    def __init__(self, outer: IdMap, inner: IdMap) -> None:
        self._uids = extents_between(inner.uids, outer.uids)
        self._gids = extents_between(inner.gids, outer.gids)
        self._proc = -1
        self.low_ports = False

    def uid(self, inside: int) -> int:
        """The outer id of a user of the container. Raises RuntimeFailure when it has none."""
        return _through(self._uids, inside)

    def gid(self, inside: int) -> int:
        """The outer id of a group of the container. Raises RuntimeFailure when it has none."""
        return _through(self._gids, inside)

    def rewritten(self, config: OciConfig) -> OciConfig:
        """The configuration with the owners of its mounts and terminal as the outer namespace counts them."""
        changed = config.copy()
        changed.mounts = [self._rewritten_mount(mount) for mount in config.mounts]
        process = config.first_process()
        changed.process = process.copy()
        # plans of mounts and devices look at the user's uid alone
        changed.process.user = OciUser(self.uid(process.user.uid), process.user.gid)
        return changed

    def _rewritten_mount(self, mount: OciMount) -> OciMount:
        words = [self._word(word) for word in mount.options]
        changed = OciMount(mount.destination, mount.fstype, mount.source, words)
        changed.uids, changed.gids = mount.uids, mount.gids
        return changed

    def _word(self, word: str) -> str:
        name, separator, value = word.partition("=")
        if not separator or name not in ("uid", "gid") or not (value.isascii() and value.isdigit()):
            return word
        return f"{name}={self.uid(int(value)) if name == 'uid' else self.gid(int(value))}"

    def become_root(self) -> None:
        """Be the outer id that is the container's root (or lowest id), with all capabilities, and stay visible."""
        uid, gid = self.uid(min(e.container for e in self._uids)), self.gid(min(e.container for e in self._gids))
        kernel.set_keepcaps(True)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        kernel.set_keepcaps(False)
        _, permitted, inheritable = kernel.capget()
        kernel.capset(permitted, permitted, inheritable)
        kernel.set_dumpable(True)

    def prepare(self) -> None:
        """Take what is needed later from the host's /proc, which pivot_root takes away."""
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def give_streams(self, uid: int) -> None:
        """Give the pipes of fds 0-2 to a user of the container, who could not open them again."""
        owner = self.uid(uid)
        for fd in (0, 1, 2):
            try:
                if fs_magic(fd) == _PIPEFS_MAGIC:
                    os.fchown(fd, owner, -1)
            except OSError:
                pass  # closed, or somebody else's: it can be used as it is

    def enter(self) -> None:
        """Move this process, which has one thread, into the inner namespace. A child outside of it writes the map."""
        if self.low_ports:
            # CAP_NET_BIND_SERVICE of the inner namespace does not count for a network namespace that belongs to the
            # outer one (user_namespaces(7)): so all ports of that network, which is the container's own, are opened
            try:
                write_proc(self._proc, _FIRST_PORT, b"0")
            except OSError:
                pass
        own = os.readlink("self", dir_fd=self._proc)
        ready, go = os.pipe()
        kernel.set_dumpable(True)
        child = os.fork()
        if child == 0:
            try:
                os.close(go)
                if os.read(ready, 1):
                    for name, extents in (("uid_map", self._uids), ("gid_map", self._gids)):
                        lines = "".join(f"{e.container} {e.host} {e.size}\n" for e in extents)
                        write_proc(self._proc, f"{own}/{name}", lines.encode())
                    os._exit(0)
            finally:
                os._exit(1)
        os.close(ready)
        try:
            unshare(CLONE_NEWUSER)
            os.write(go, b"!")
        finally:
            os.close(go)
            _, status = os.waitpid(child, 0)
            os.close(self._proc)
        if status:
            raise RuntimeFailure("cannot write the id map of the inner user namespace")
        os.setresgid(*[min(e.container for e in self._gids)] * 3)
        os.setresuid(*[min(e.container for e in self._uids)] * 3)


def is_without_us(userns: int, pid: int) -> bool:
    """Has the container of `pid`, whose user namespace is open, none of our own ids?"""
    try:
        with open(f"/proc/{pid}/uid_map") as f:
            extents = [tuple(map(int, line.split())) for line in f]
        if os.stat(f"/proc/{pid}/ns/user").st_ino != os.fstat(userns).st_ino:
            return False
    except OSError:
        return False
    return not any(host <= os.geteuid() < host + size for _, host, size in extents)


def give_streams_from_outside(userns: int, pid: int, uid: int, streams: Sequence[int]) -> None:
    """As `Nested.give_streams`, for a process that is about to join the container of `pid` as its user `uid`.

    userns: the open user namespace of the container. A forked child does the work.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        setns(fcntl.ioctl(userns, _NS_GET_PARENT), CLONE_NEWUSER)
        with open(f"/proc/{pid}/uid_map") as f:
            extents = [tuple(map(int, line.split())) for line in f]
        owner = next(host + uid - first for first, host, size in extents if first <= uid < first + size)
        for fd in streams:
            if fs_magic(fd) == _PIPEFS_MAGIC:
                os.fchown(fd, owner, -1)
    except (OSError, StopIteration):
        pass  # they can be used as they are, and not be opened again
    finally:
        os._exit(0)


def _through(extents: Sequence[Extent], number: int) -> int:
    for e in extents:
        if e.container <= number < e.container + e.size:
            return e.host + number - e.container
    raise RuntimeFailure(f"id {number} is not in the container's id map")
