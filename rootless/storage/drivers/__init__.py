"""How layers and a writable directory become one root filesystem: one protocol, and one table of the drivers.

The table is this folder: each module driver_NAME.py has a DRIVER. So a new driver is its module and its test.

    choice.choose(name, directory, id_map, cache)   which driver: the name, or for "auto" the best that really works
    plan(driver, container_dir, lowerdirs, volatile=) → plan    when a container is planned; it makes nothing
    prepare(plan, id_map)       makes the directories, when a container is created
    mounter(plan) → Mounter     outside and before the container's namespaces; fuse-overlayfs starts its helper here
    mounter(target)             inside the container's user and mount namespace (a Mounter is callable)
    mounter.close()             outside, always, after the mount or instead of it
    unmount(plan)               outside, after the container ended

A plan is a records.rootfs.RootfsPlan: launch.json holds it as "rootfs".
"""

from __future__ import annotations

import os

from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from rootless.host.probes.result import Probe
    from rootless.records.id_map import IdMap
    from rootless.records.rootfs import RootfsPlan

    class Mounter(Protocol):
        """Carries out one plan, once."""

        def __call__(self, target: str) -> None:
            """Mount the root filesystem on directory `target`, inside the container's user and mount namespace."""

        def close(self) -> None:
            """Give back what `mounter` took; the mount stays."""

    class Driver(Protocol):
        """A storage driver: what the rest of the tool may ask about it instead of its name.

        rank: "auto" takes the working driver of the lowest; purpose, loss: what `doctor` says it is for, and what is
        lost with it ("" = nothing); program: the host program that it needs ("" = none), and Debian's package of it;
        form: how its writable directory tells what a container has changed.
        """

        name: str
        rank: int
        purpose: str
        loss: str
        program: str
        package: str
        form: ChangeForm

        def complete(self, plan: RootfsPlan) -> None:
            """Add what this driver needs to a plan of layers and `upper`; nothing is made. Raises HostLimit."""

        def prepare(self, plan: RootfsPlan, id_map: IdMap) -> None:
            """Make the writable directories of a plan, for root of that map. Raises HostLimit."""

        def mounter(self, plan: RootfsPlan) -> Mounter:
            """What mounts the plan. A driver with a helper process starts it here."""

        def unmount(self, plan: RootfsPlan) -> None:
            """End what the mount left outside of the container's namespaces. Raises HostLimit."""

        def probe(self, directory: str, id_map: IdMap) -> Probe:
            """Try the driver below `directory`, in a user namespace of `id_map`. Raises RootlessError, OSError."""


class ChangeForm:
    """How a writable directory tells what a container has changed. By default as the kernel's overlayfs does.

    holds_whole_tree: the directory is a copy of all of the image, not only the changes. has_named_whiteouts: `.wh.`
    names in a layer are whiteouts too, which the kernel does not know. keeps_parent_times: a directory keeps its time
    when a file below it is copied up.
    """

    __slots__ = ("has_named_whiteouts", "holds_whole_tree", "keeps_parent_times")

    def __init__(
        self,
        *,
        holds_whole_tree: bool = False,
        has_named_whiteouts: bool = False,
        keeps_parent_times: bool = True,
    ) -> None:
        self.holds_whole_tree = holds_whole_tree
        self.has_named_whiteouts = has_named_whiteouts
        self.keeps_parent_times = keeps_parent_times


USUAL = "overlay"
"""The driver of most hosts: a monitor loads it before it knows which one is wanted."""
_PREFIX = "driver_"


def names() -> list[str]:
    """The names of all drivers in alphabetical order, without loading any."""
    found: set[str] = set()
    for directory in __path__:
        found.update(
            file.partition(".")[0].removeprefix(_PREFIX).replace("_", "-")
            for file in os.listdir(directory)
            if file.startswith(_PREFIX)
        )
    return sorted(found)


def list_choices() -> str:
    """What --storage-driver takes, as help and hints name it: "auto, copy, fuse-overlayfs or overlay"."""
    *others, last = names()
    return f"{', '.join(['auto', *others])} or {last}"


def find_driver(name: str) -> Driver:
    """Driver `name`. Raises UsageError for an unknown name."""
    if name not in names():
        raise UsageError(f"unknown storage driver '{name}'", hint=f"choose {list_choices()}")
    from importlib import import_module

    driver: Driver = import_module(f"{__name__}.{_PREFIX}{name.replace('-', '_')}").DRIVER
    return driver


def all_drivers() -> list[Driver]:
    """The table: all drivers, the best first."""
    return sorted(map(find_driver, names()), key=lambda driver: driver.rank)


def plan(driver: str, container_dir: str, lowerdirs: Sequence[str], *, volatile: bool = False) -> RootfsPlan:
    """What is to be mounted for a container. It makes nothing.

    driver: a name (from `choice.choose`); lowerdirs: topmost first (LayerStore.lowerdirs); volatile: the container's
    changes need not survive a crash of the host (`--rm`). Raises HostLimit for what the driver lacks.
    """
    from rootless.records.rootfs import RootfsPlan
    from rootless.storage.drivers.writable import empty_layer

    planned = RootfsPlan(driver, container_dir, lowerdirs or [empty_layer(container_dir)], volatile=volatile)
    find_driver(driver).complete(planned)
    return planned


def prepare(planned: RootfsPlan, id_map: IdMap) -> None:
    """Make the writable directories of a plan, by the ids of the container's map; `copy` fills them.

    Raises HostLimit.
    """
    find_driver(planned.driver).prepare(planned, id_map)


def mounter(plan: RootfsPlan) -> Mounter:
    """What will mount the plan: made before the container's namespaces exist, called inside of them."""
    return find_driver(plan.driver).mounter(plan)


def mount(plan: RootfsPlan, target: str) -> None:
    """Mount the plan on `target` at once.

    For callers who are in the user and mount namespace already, and in no pid namespace that ends before the mount.
    """
    made = mounter(plan)
    try:
        made(target)
    finally:
        made.close()


def unmount(plan: RootfsPlan) -> None:
    """End what the mount left outside of the container's namespaces (only fuse-overlayfs' daemon ever does)."""
    find_driver(plan.driver).unmount(plan)
