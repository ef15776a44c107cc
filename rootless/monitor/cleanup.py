"""What is done when a --rm container has ended: it is removed.

It decides nothing: the supervisor says when.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.monitor.launch_spec import LaunchSpec


def remove_container(spec: LaunchSpec, userns_fd: int | None = None) -> None:
    """Delete what launch.json's "remove" lists: {"name_file", "directory", "volumes"}.

    The name goes first: a container without one is garbage that `prune` finds if we are killed in between.
    userns_fd: a user namespace with the container's id map, where one is open; else one is made.
    """
    from rootless.storage.files.removal import remove_tree

    remove = spec.now().remove
    if remove is None:
        return
    if remove.name_file:
        try:
            os.unlink(remove.name_file)
        except FileNotFoundError:
            pass
    id_map = spec.plan.id_map
    for path in (remove.directory, *remove.volumes):
        if path and os.path.lexists(path):
            remove_tree(path, id_map, userns_fd=userns_fd)
