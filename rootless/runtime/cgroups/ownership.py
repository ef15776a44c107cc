"""Gives a cgroup to the container's own user, where the runtime specification says so. It makes no cgroup."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.runtime.cgroups.group import Group, Group1
    from rootless.runtime.spec.oci_config import OciConfig


def is_wanted(config: OciConfig) -> bool:
    """config-linux.md, "Cgroup ownership": only with a cgroup namespace of its own and a writable mount of the tree."""
    return config.linux.makes("cgroup") and any(
        mount.fstype in ("cgroup", "cgroup2") and "ro" not in mount.options for mount in config.mounts
    )


def delegate(group: Group | Group1, config: OciConfig, userns_fd: int | None) -> None:
    """Directory and the kernel's list of files become the container user's; never those of version 1.

    userns_fd: the container's user namespace: only there may this user give something to another id.
    """
    if group.version != 2 or userns_fd is None or not is_wanted(config):
        return
    from rootless.host.userns import call_in_namespace

    user = config.first_process().user
    uid, gid = user.uid, user.gid

    def give() -> bytes:
        if os.stat(group.path).st_uid != uid:
            group.delegate(uid, gid)
        return b""

    call_in_namespace(userns_fd, give)
