"""Gives a cgroup to the container's own user, where the runtime specification says so. It makes no cgroup."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.runtime.cgroups.group import Group, Group1


def is_wanted(config: dict[str, Any]) -> bool:
    """runtime-spec, cgroup ownership: only with a cgroup namespace of its own and a writable mount of the tree."""
    spaces = (config.get("linux") or {}).get("namespaces") or []
    return any(n["type"] == "cgroup" and not n.get("path") for n in spaces) and any(
        mount.get("type") in ("cgroup", "cgroup2") and "ro" not in (mount.get("options") or ())
        for mount in config.get("mounts") or []
    )


def delegate(group: Group | Group1, config: dict[str, Any], userns_fd: int | None) -> None:
    """Directory and the kernel's list of files become the container user's; never those of version 1.

    userns_fd: the container's user namespace: only there may this user give something to another id.
    """
    if group.version != 2 or userns_fd is None or not is_wanted(config):
        return
    from rootless.host.userns import call_in

    user = (config.get("process") or {}).get("user") or {}
    uid, gid = int(user.get("uid") or 0), int(user.get("gid") or 0)

    def give() -> bytes:
        if os.stat(group.path).st_uid != uid:
            group.delegate(uid, gid)
        return b""

    call_in(userns_fd, give)
