"""The end of a --rm container: its name, its directory and its anonymous volumes go. It decides nothing."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.monitor.spec import LaunchSpec


def remove_container(spec: LaunchSpec, userns_fd: int | None = None) -> None:
    """Delete what launch.json's "remove" lists: {"name_file", "directory", "volumes"}.

    The name goes first: a container without one is garbage that `prune` finds if we are killed in between.
    userns_fd: a user namespace with the container's id map, where one is open; else one is made.
    """
    from rootless.host.idmap import IdMap
    from rootless.storage.removal import remove_tree

    remove = _as_of_now(spec)
    if name := remove.get("name_file"):
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass
    id_map = IdMap.from_json(spec.id_map)
    for path in (remove.get("directory"), *(remove.get("volumes") or ())):
        if path and os.path.lexists(path):
            remove_tree(path, id_map, userns_fd=userns_fd)


def _as_of_now(spec: LaunchSpec) -> dict[str, Any]:
    """What to remove: of launch.json as it is now, for the container may have been renamed while it ran."""
    import json

    try:
        with open(f"{spec.directory}/launch.json", "rb") as file:
            found = json.load(file).get("remove")
    except (OSError, ValueError, AttributeError):
        found = None
    return found if isinstance(found, dict) else spec.remove or {}
