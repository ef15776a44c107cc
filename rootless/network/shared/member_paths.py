"""Where the process that serves networks and its clients meet: below the runtime directory, one place for each boot.

The boot's id is part of the name: two hosts that share a home may share a runtime directory too (`--root`), and what
another boot has left means nothing in this one.
"""

from __future__ import annotations

import os

from rootless.kernel.procfs import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SOCKET, LOCK = "hub", "lock"


def shared_directory(runtime_dir: str) -> str:
    """The directory of the socket, the lock and the members' files."""
    return f"{runtime_dir}/networks-{boot_id().replace('-', '')[:16]}"


def member_file(directory: str, container_id: str) -> str:
    """The file of a container that is on networks now. directory: as `shared_directory` returns it."""
    return f"{directory}/{container_id}.json"


def leave(file: str, held: Sequence[int]) -> None:
    """Leave all networks. file: the container's; held: the descriptors by which its monitor has kept it on them."""
    try:
        os.unlink(file)
    except OSError:
        pass
    for fd in held:
        os.close(fd)
