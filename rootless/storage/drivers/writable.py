"""Makes the directories of a container that its driver writes to. They belong to root of the container."""

from __future__ import annotations

import os

from rootless.errors import HostLimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.id_map import IdMap
    from rootless.records.rootfs import RootfsPlan


def make_directories(plan: RootfsPlan, id_map: IdMap, *private: str) -> None:
    """Make `upper`, which the container sees as /, and `private` directories beside it.

    `upper` gets the mode and the owner of the topmost layer's top directory: the container sees those of `upper`. For
    an image without layers, an empty directory is made as its layer. Raises HostLimit.
    """
    container_dir, top_directory = plan.directory, plan.lowerdirs[0]
    try:
        if top_directory == empty_layer(container_dir):
            os.mkdir(top_directory, 0o755)
            os.chmod(top_directory, 0o755)  # noqa: S103 - the container's root directory, whatever the umask
        top = os.stat(top_directory)
        os.mkdir(plan.upper, 0o700)
        for name in private:
            os.mkdir(f"{container_dir}/{name}", 0o700)
        root = (id_map.to_host_uid(id_map.first_uid()), id_map.to_host_gid(id_map.first_gid()))
        own = (os.geteuid(), os.getegid())
        if root == own and (top.st_uid, top.st_gid) == own:
            os.chmod(plan.upper, top.st_mode & 0o7777)
        else:
            _give(container_dir, private, root, top)
    except OSError as e:
        raise HostLimit(f"cannot make '{e.filename or container_dir}': {e.strerror}") from e


def empty_layer(container_dir: str) -> str:
    """The empty directory that is the layer of an image without layers: no driver can mount without one."""
    return f"{container_dir}/lower"


def is_reachable(id_map: IdMap) -> bool:
    """Whether root of the map may enter the user's private directories; with `--userns=nomap` it may not."""
    return id_map.to_container_uid(os.geteuid()) is not None and id_map.to_container_gid(os.getegid()) is not None


def _give(
    container_dir: str, private: tuple[str, ...], root: tuple[int | None, int | None], top: os.stat_result
) -> None:
    """Give the directories to the container's root where that is a subordinate id (`--userns=keep-id`, `--uidmap`).

    root: its ids on the host; top: the status of the topmost layer's directory. Only a process in a namespace that maps
    all of the user's ids may give files to them: one with the default map.
    """
    from rootless.host import subid, userns

    mine = subid.default_id_map()

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

    userns.call_in_new_namespace(mine, change)
