"""The copy driver: it copies the whole image for each container, on hosts that have neither overlayfs nor FUSE.

On file systems that can share blocks (btrfs, XFS, ZFS) a copy takes little room, on others that of the whole image.
"""

from __future__ import annotations

import os

from rootless.errors import HostLimit, RuntimeFailure
from rootless.kernel import mounts
from rootless.records.rootfs import RootfsPlan
from rootless.storage.drivers import ChangeForm
from rootless.storage.drivers.writable import is_reachable, make_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.host.probes.result import Probe
    from rootless.records.id_map import IdMap
    from rootless.storage.drivers import Driver


class CopiedRoot:
    """The Mounter: it binds the copied tree."""

    __slots__ = ("_plan",)

    def __init__(self, plan: RootfsPlan) -> None:
        self._plan = plan

    def __call__(self, target: str) -> None:
        """Bind on directory `target`. Raises RuntimeFailure."""
        try:
            mounts.mount(self._plan.upper, target, None, mounts.MS_BIND)
        except OSError as e:
            raise RuntimeFailure(f"cannot bind '{self._plan.upper}' on '{target}': {e.strerror}") from e

    def close(self) -> None:
        """Do nothing: there is nothing outside of the namespaces."""


class CopyDriver:
    """The driver of hosts without overlayfs and FUSE."""

    __slots__ = ()
    name = "copy"
    rank = 3
    purpose = "a copy of the image for each container"
    loss = "creating a container copies its whole image, and where files cannot share blocks takes that much room"
    program = package = ""
    shows_owners = reads_views = False
    form = ChangeForm(holds_whole_tree=True, has_named_whiteouts=True)

    def complete(self, plan: RootfsPlan) -> None:
        """Add nothing: the copy needs no other directory than `upper`."""

    def prepare(self, plan: RootfsPlan, id_map: IdMap) -> None:
        """Copy all layers into `upper`, the bottom one first; whiteouts take effect. Raises HostLimit (no room)."""
        from rootless.host import subid, userns
        from rootless.storage.files.tree_copy import PATH_DIRECTORY, Copier, copy_tree

        make_directories(plan, id_map)
        upper = plan.upper

        def flatten() -> bytes:
            os.umask(0)
            target = os.open(upper, PATH_DIRECTORY)
            for directory in reversed(plan.lowerdirs):
                source = os.open(directory, PATH_DIRECTORY)
                copy_tree(source, target, Copier(), upper)
                os.close(source)
            return b""

        try:
            # The layers have owners by the container's map already. Root of a map without the user's own ids
            # (`--userns=nomap`) may not enter the store, so the default map, which has all ids, does the work.
            userns.call_in_new_namespace(id_map if is_reachable(id_map) else subid.default_id_map(), flatten)
        except OSError as e:
            raise HostLimit(
                f"cannot copy the image into '{upper}': {e.strerror}",
                hint="free some space, or use the overlay or fuse-overlayfs storage driver",
            ) from e
        # The copy has set the attributes of its top last. Only a file that the container has changed since can have a
        # later change time, which no user can set: `diff` and `commit` rely on that.
        plan.copied = os.stat(upper).st_ctime_ns

    def mounter(self, plan: RootfsPlan) -> CopiedRoot:
        """What mounts the plan."""
        return CopiedRoot(plan)

    def unmount(self, plan: RootfsPlan) -> None:
        """Do nothing: the kernel drops the mount with its namespace."""

    def probe(self, directory: str, id_map: IdMap) -> Probe:
        """Copy and bind a small tree, in a user and mount namespace. Raises HostLimit, OSError."""
        from rootless.storage.drivers.trial_mount import try_driver

        return try_driver(self, directory, id_map)


DRIVER: Driver = CopyDriver()
