"""Corrects the paths in a container's files after its store was moved.

launch.json, config.json and record.json hold absolute paths, because monitors, other runtimes and earlier versions read
them. When a store is moved (to another disk, or with a home that is mounted elsewhere), these files still say where the
container's directory was. Whoever reads them through `Containers` gets the paths as they are now, and a start writes
them into the files.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.records.container import ContainerRecord
    from rootless.records.launch import LaunchPlan

    Move = Callable[[str], str]

LOWERDIR = "lowerdir+="  # of an image that is mounted as an overlay: the option's value is a directory of a layer


def move_from(old: str, new: str) -> Move:
    """A function that returns the place below `new` of a path below `old`, and any other path as it is."""

    def move(path: str) -> str:
        return f"{new}{path[len(old) :]}" if path == old or path.startswith(f"{old}/") else path

    return move


def old_root_of_launch(launch: LaunchPlan) -> str:
    """The root that the store had when launch.json was written; "" when the file does not say it."""
    return _root(launch.log.path.removesuffix("/log"))


def old_root_of_record(record: ContainerRecord) -> str:
    """The root that the store had when record.json was written, by the directory with the container's /etc/hosts and
    other names files; "" when the record does not say it."""
    return _root(record.names_directory)


def _root(directory: str) -> str:
    """The root of the store in which a container has the directory `directory`; "" for any other directory."""
    parts = directory.rsplit("/", 2)
    return parts[0] if len(parts) == 3 and parts[1] == "containers" and parts[2] else ""


def move_launch(launch: LaunchPlan, move: Move) -> None:
    """Give the paths of launch.json their new places; those into the cache and the runtime directory stay."""
    launch.bundle = move(launch.bundle)
    launch.log.path = move(launch.log.path)
    if launch.rootfs is not None:
        rootfs = launch.rootfs
        rootfs.directory, rootfs.upper, rootfs.work = move(rootfs.directory), move(rootfs.upper), move(rootfs.work)
        rootfs.lowerdirs = [move(path) for path in rootfs.lowerdirs]
        rootfs.content = move(rootfs.content)
    for seed in launch.seed_volumes:
        seed.source = move(seed.source)
    if launch.events is not None:
        launch.events.log = move(launch.events.log)
    if launch.remove is not None:
        launch.remove.name_file, launch.remove.directory = move(launch.remove.name_file), move(launch.remove.directory)
        launch.remove.volumes = [move(path) for path in launch.remove.volumes]


def move_record(record: ContainerRecord, move: Move) -> None:
    """Give the paths of record.json their new places."""
    record.names_directory = move(record.names_directory)
    for mount in record.mounts:
        mount.source = move(mount.source)


def move_config(config: dict[str, object], move: Move) -> None:
    """Give the sources of config.json's mounts their new places."""
    mounts = config.get("mounts")
    for mount in mounts if isinstance(mounts, list) else ():
        if not isinstance(mount, dict):
            continue
        if isinstance(source := mount.get("source"), str):
            mount["source"] = move(source)
        if isinstance(options := mount.get("options"), list):
            mount["options"] = [_move_option(option, move) for option in options]


def _move_option(option: object, move: Move) -> object:
    if isinstance(option, str) and option.startswith(LOWERDIR):
        return LOWERDIR + move(option.removeprefix(LOWERDIR))
    return option
