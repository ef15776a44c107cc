"""Idmapped mounts (Linux 5.12): a mount whose files show other ids. It makes the user namespace that carries the map.

The kernel gives them to whoever rules the file system: for an ordinary user those that the container itself has mounted
(tmpfs, Linux 6.3), and not a directory of the host.
"""

from __future__ import annotations

import errno
import os

from rootless.errors import InvalidInput, RuntimeFailure
from rootless.kernel import mounts
from rootless.kernel.namespaces import CLONE_NEWUSER, unshare
from rootless.records.id_map import Extent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.runtime.spec.oci_config import LinuxConfig, OciMount


class IdMapped:
    """The map of one mount. name: the property, for errors.

    uids, gids: the content of uid_map and gid_map, in the container's ids; recursive: of the mounts below it too.
    """

    __slots__ = ("gids", "name", "recursive", "uids")

    def __init__(self, name: str, mount: OciMount, linux: LinuxConfig) -> None:
        self.name = name
        self.recursive = "ridmap" in mount.options
        self.uids = _lines(f"{name}.uidMappings", mount.uids, linux.uids)
        self.gids = _lines(f"{name}.gidMappings", mount.gids, linux.gids)

    def apply(self, mount: int) -> None:
        """Map the mount of the fd, which must be mounted nowhere yet. Raises RuntimeFailure naming the property."""
        try:
            namespace = self._namespace()
        except OSError as e:
            raise RuntimeFailure(f"config property '{self.name}': cannot make its id map: {e.strerror}") from e
        try:
            mounts.mount_setattr(mount, userns_fd=namespace, recursive=self.recursive)
        except OSError as e:
            hint = None
            if e.errno == errno.EPERM:
                hint = (
                    "the kernel lets only root map the ids of the host's file systems; a tmpfs of the container can be"
                )
            elif e.errno in (errno.EINVAL, errno.ENOSYS):
                hint = "this file system, or this kernel, knows no idmapped mounts"
            raise RuntimeFailure(
                f"config property '{self.name}': cannot make an idmapped mount: {e.strerror}", hint=hint
            ) from e
        finally:
            os.close(namespace)

    def _namespace(self) -> int:
        """Fd of a new user namespace with this map: a child makes it, we write the map and keep the namespace."""
        told, tell = os.pipe()
        go_on, let_go = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(let_go)
                unshare(CLONE_NEWUSER)
                # our number in the procfs that is mounted, which belongs to the pid namespace outside
                os.write(tell, os.readlink("/proc/self").encode())
                os.read(go_on, 1)
            finally:
                os._exit(0)
        try:
            os.close(tell)
            number = os.read(told, 32).decode()
            if not number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            for file, lines in (("uid_map", self.uids), ("gid_map", self.gids)):
                fd = os.open(f"/proc/{number}/{file}", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, lines.encode())
                finally:
                    os.close(fd)
            return os.open(f"/proc/{number}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            for fd in (told, go_on, let_go):
                os.close(fd)
            os.waitpid(child, 0)


def _lines(name: str, wanted: Sequence[Extent], container: Sequence[Extent]) -> str:
    """The map for a child of the container's user namespace: host ids become what the container calls them."""
    lines = []
    for extent in wanted:
        first, size = extent.host, extent.size
        for own in container or [Extent(0, 0, 0xFFFFFFFF)]:
            if own.host <= first and first + size <= own.host + own.size:
                lines.append(f"{extent.container} {first - own.host + own.container} {size}\n")
                break
        else:
            raise InvalidInput(
                f"config property '{name}': host ids {first} to {first + size - 1} are not among the container's"
            )
    return "".join(lines)
