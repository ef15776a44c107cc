"""The directories of a container that its driver writes to. They belong to whoever is root in the container."""

from __future__ import annotations

import os

from rootless.errors import HostLimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.id_map import IdMap


def make_directories(container_dir: str, lowerdirs: list[str], id_map: IdMap, *private: str) -> list[str]:
    """Make `upper`, which shows as the container's /, and `private` ones beside it; returns the lowerdirs to use.

    `upper` gets mode and owner of the topmost layer's root: overlayfs shows those of the topmost directory. An image
    without layers gets an empty one. Raises HostLimit.
    """
    try:
        if not lowerdirs:
            lowerdirs = [f"{container_dir}/lower"]
            os.mkdir(lowerdirs[0], 0o755)
        top = os.stat(lowerdirs[0])
        upper = f"{container_dir}/upper"
        os.mkdir(upper, 0o700)
        for name in private:
            os.mkdir(f"{container_dir}/{name}", 0o700)
        root = (id_map.to_host_uid(id_map.first_uid()), id_map.to_host_gid(id_map.first_gid()))
        own = (os.geteuid(), os.getegid())
        if root == own and (top.st_uid, top.st_gid) == own:
            os.chmod(upper, top.st_mode & 0o7777)
        else:
            _give(container_dir, private, root, top)
    except OSError as e:
        raise HostLimit(f"cannot make '{e.filename or container_dir}': {e.strerror}") from e
    return lowerdirs


def is_reachable(id_map: IdMap) -> bool:
    """Whether root of that map may pass through the user's private directories (with `nomap` he may not)."""
    return id_map.to_container_uid(os.geteuid()) is not None and id_map.to_container_gid(os.getegid()) is not None


def _give(
    container_dir: str, private: tuple[str, ...], root: tuple[int | None, int | None], top: os.stat_result
) -> None:
    """Another id of the user's is root in the container (--userns keep-id, --uidmap): chown where all are mapped."""
    from rootless.host import userns

    mine = userns.default_id_map()

    def change() -> bytes:
        def chown(name: str, uid: int | None, gid: int | None) -> None:
            inside = mine.to_container_uid(uid or 0), mine.to_container_gid(gid or 0)
            if inside[0] is None or inside[1] is None:
                raise HostLimit(f"the id map uses ids {uid}:{gid}, which are not yours")
            os.chown(f"{container_dir}/{name}", inside[0], inside[1])

        for name in private:
            chown(name, *root)
        owned = mine.to_container_uid(top.st_uid) is not None and mine.to_container_gid(top.st_gid) is not None
        chown("upper", *((top.st_uid, top.st_gid) if owned else root))
        os.chmod(f"{container_dir}/upper", top.st_mode & 0o7777)
        return b""

    userns.call(mine, change)
