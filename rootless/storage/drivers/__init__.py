"""Storage drivers: they make one root file system of layers and a writable directory. All have the same protocol.

This folder is the table of drivers: each module driver_NAME.py has a DRIVER, so that a new driver needs its module and
its test only. The steps in the life of a container, in order:

    choice.choose_driver(name, directory, id_map, cache)    the named driver, or for "auto" the best that works
    plan_root(driver, container_dir, lowerdirs, volatile=) → plan   when a container is planned; nothing is made
    prepare_root(plan, id_map)      when a container is created: makes its directories
    make_mounter(plan) → Mounter    before the container's namespaces are made; fuse-overlayfs starts its helper here
    mounter(target)                 mounts, inside the container's user and mount namespace (a Mounter is callable)
    mounter.close()                 outside of the namespaces, after the mount or in its place, in any case
    unmount_root(plan)              outside of the namespaces, after the container has ended

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
        """Mounts one plan, once."""

        def __call__(self, target: str) -> None:
            """Mount the root filesystem on directory `target`, inside the container's user and mount namespace."""

        def close(self) -> None:
            """End what `mounter` has started outside of the namespaces, but not the mount."""

    class Driver(Protocol):
        """A storage driver. The rest of the tool asks for these properties, and never compares a driver's name.

        rank: "auto" chooses the driver of the lowest rank that works; purpose, loss: `doctor` says by these what the
        driver is for and what a user loses with it ("" for nothing); program, package: the program of the host that it
        needs and the Debian package that has it ("" for none); form: how its writable directory tells what a container
        has changed; shows_owners: whether it can show a container other owners of files than those on disk
        (RootfsPlan.owners); reads_views: whether it can mount views of layers (RootfsPlan.content), where the kernel
        does too.
        """

        name: str
        rank: int
        purpose: str
        loss: str
        program: str
        package: str
        form: ChangeForm
        shows_owners: bool
        reads_views: bool

        def complete(self, plan: RootfsPlan) -> None:
            """Add what this driver needs to a plan that has layers and `upper`. Nothing is made. Raises HostLimit."""

        def prepare(self, plan: RootfsPlan, id_map: IdMap) -> None:
            """Make the writable directories of a plan; they belong to root of `id_map`. Raises HostLimit."""

        def mounter(self, plan: RootfsPlan) -> Mounter:
            """What mounts the plan. A driver with a helper process starts it here."""

        def unmount(self, plan: RootfsPlan) -> None:
            """End what the mount has left outside of the container's namespaces. Raises HostLimit."""

        def probe(self, directory: str, id_map: IdMap) -> Probe:
            """Try the driver below `directory`, in a user namespace of `id_map`. Raises RootlessError, OSError."""


class ChangeForm:
    """How a driver's writable directory tells what a container has changed. The defaults are those of overlayfs.

    holds_whole_tree: whether the directory is a copy of the whole image, and not only its changes; has_named_whiteouts:
    whether `.wh.` names in a layer are whiteouts too, which the kernel does not know; keeps_parent_times: whether a
    directory keeps its time when a file below it is copied up.
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


def driver_names() -> list[str]:
    """The names of all drivers in alphabetical order. No driver is imported for it."""
    found: set[str] = set()
    for directory in __path__:
        found.update(
            file.partition(".")[0].removeprefix(_PREFIX).replace("_", "-")
            for file in os.listdir(directory)
            if file.startswith(_PREFIX)
        )
    return sorted(found)


def list_choices() -> str:
    """The values of `--storage-driver` as help and hints list them: "auto, copy, fuse-overlayfs or overlay"."""
    *others, last = driver_names()
    return f"{', '.join(['auto', *others])} or {last}"


def find_driver(name: str) -> Driver:
    """The driver called `name`. Raises UsageError for an unknown name."""
    if name not in driver_names():
        raise UsageError(f"unknown storage driver '{name}'", hint=f"choose {list_choices()}")
    from importlib import import_module

    driver: Driver = import_module(f"{__name__}.{_PREFIX}{name.replace('-', '_')}").DRIVER
    return driver


def all_drivers() -> list[Driver]:
    """All drivers, the best first."""
    return sorted(map(find_driver, driver_names()), key=lambda driver: driver.rank)


def plan_root(driver: str, container_dir: str, lowerdirs: Sequence[str], *, volatile: bool = False) -> RootfsPlan:
    """What is to be mounted for a container. Nothing is made.

    driver: the name that `choice.choose_driver` gave; lowerdirs: the layers' trees, topmost first (Layers.lowerdirs);
    volatile: whether the container's changes may be lost when the host crashes (`--rm`). Where the container
    sees other owners than those of the layers, the caller sets `owners` or `content` of the plan. Raises HostLimit.
    """
    from rootless.records.rootfs import RootfsPlan
    from rootless.storage.drivers.writable import empty_layer

    planned = RootfsPlan(driver, container_dir, lowerdirs or [empty_layer(container_dir)], volatile=volatile)
    find_driver(driver).complete(planned)
    return planned


def prepare_root(planned: RootfsPlan, id_map: IdMap) -> None:
    """Make the writable directories of a plan, for root of the container's map. The copy driver also fills them.

    Raises HostLimit.
    """
    find_driver(planned.driver).prepare(planned, id_map)


def make_mounter(plan: RootfsPlan) -> Mounter:
    """The Mounter of a plan. It is made before the container's namespaces are, and called inside of them."""
    return find_driver(plan.driver).mounter(plan)


def mount_root(plan: RootfsPlan, target: str) -> None:
    """Mount the plan on `target` at once.

    The caller must be in the user and mount namespace already. It must not be in a pid namespace that ends before the
    mount: its end would kill the daemon of fuse-overlayfs.
    """
    made = make_mounter(plan)
    try:
        made(target)
    finally:
        made.close()


def unmount_root(plan: RootfsPlan) -> None:
    """End what the mount has left outside of the container's namespaces: only fuse-overlayfs' daemon can be left."""
    find_driver(plan.driver).unmount(plan)
