"""A tree of layers that a step reads beside its own: mounted in the step's mount namespace, gone with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rootless.records.rootfs import RootfsPlan

if TYPE_CHECKING:
    from rootless.storage.drivers import Mounter


class MountedTree:
    """tree: {"rootfs": driver plan, "target": directory to mount on}. Made outside of the namespace, mounted inside."""

    __slots__ = ("_mounter", "_plan", "target")

    def __init__(self, tree: dict[str, Any]) -> None:
        from rootless.storage import drivers

        self._plan = RootfsPlan.from_job(tree["rootfs"])
        self.target: str = tree["target"]
        self._mounter: Mounter = drivers.mounter(self._plan)

    def mount(self) -> None:
        """Inside: mount it. Raises RuntimeFailure."""
        self._mounter(self.target)

    def open(self) -> int:
        """Inside: mount it, and an O_PATH fd of its root."""
        self.mount()
        return os.open(self.target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Outside, afterwards: end what the driver left."""
        from rootless.storage import drivers

        self._mounter.close()
        drivers.unmount(self._plan)
