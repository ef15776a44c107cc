"""How layers and a writable directory become one root filesystem: one interface over three drivers.

    choose(name, directory, id_map)  which driver: the name, or for "auto" the best that really works there
    prepare(driver, container_dir, lowerdirs, id_map, volatile=) → plan    when a container is created
    mounter(plan) → Mounter     outside and before the container's namespaces; fuse-overlayfs starts its helper here
    mounter(target)             inside the container's user and mount namespace (a Mounter is callable)
    mounter.close()             outside, always, after the mount or instead of it
    unmount(plan)               outside, after the container ended

A plan is a records.rootfs.RootfsPlan: launch.json holds it as "rootfs".
"""

from __future__ import annotations

import os

from rootless.errors import HostLimit, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from rootless.records.id_map import IdMap
    from rootless.records.rootfs import RootfsPlan

    class Mounter(Protocol):
        """Carries out one plan, once."""

        def __call__(self, target: str) -> None:
            """Mount the root filesystem on directory `target`, inside the container's user and mount namespace."""

        def close(self) -> None:
            """Give back what `mounter` took; the mount stays."""


class Driver:
    """One row of the table of drivers: what the rest of the tool may ask about a driver instead of its name.

    module: what has its prepare, mounter, unmount and probe. holds_whole_tree: `upper` is a copy of all of the image,
    not only the changes. has_named_whiteouts: `.wh.` names in a layer are whiteouts too, which the kernel does not
    know. keeps_parent_times: a directory keeps its time when a file below it is copied up.
    """

    __slots__ = ("has_named_whiteouts", "holds_whole_tree", "keeps_parent_times", "module", "name")

    def __init__(
        self, name: str, module: str, *, holds_whole_tree: bool, has_named_whiteouts: bool, keeps_parent_times: bool
    ) -> None:
        self.name = name
        self.module = module
        self.holds_whole_tree = holds_whole_tree
        self.has_named_whiteouts = has_named_whiteouts
        self.keeps_parent_times = keeps_parent_times


# the best first: "auto" takes the first that works
DRIVERS = (
    Driver("overlay", "overlay", holds_whole_tree=False, has_named_whiteouts=False, keeps_parent_times=True),
    Driver(
        "fuse-overlayfs", "fuse_overlayfs", holds_whole_tree=False, has_named_whiteouts=True, keeps_parent_times=False
    ),
    Driver("copy", "copy", holds_whole_tree=True, has_named_whiteouts=True, keeps_parent_times=True),
)
NAMES = tuple(driver.name for driver in DRIVERS)
CHOICES = f"auto, {', '.join(NAMES[:-1])} or {NAMES[-1]}"


def find_driver(name: str) -> Driver:
    """The row of driver `name`. Raises UsageError for an unknown name."""
    for driver in DRIVERS:
        if driver.name == name:
            return driver
    raise UsageError(f"unknown storage driver '{name}'", hint=f"choose auto, {', '.join(NAMES)}")


def driver_module(name: str) -> Any:
    """The module of a driver: prepare, mounter, unmount, probe. Raises UsageError for an unknown name."""
    from importlib import import_module

    return import_module(f"rootless.storage.drivers.{find_driver(name).module}")


def prepare(
    driver: str, container_dir: str, lowerdirs: list[str], id_map: IdMap, *, volatile: bool = False
) -> RootfsPlan:
    """Make the writable directories of a container and return its plan.

    driver: one of NAMES (from `choose`); lowerdirs: topmost first (Layers.lowerdirs); volatile: the container's changes
    need not survive a crash of the host (`--rm`). Raises HostLimit.
    """
    plan: RootfsPlan = driver_module(driver).prepare(container_dir, lowerdirs, id_map, volatile=volatile)
    return plan


def mounter(plan: RootfsPlan) -> Mounter:
    """What will mount the plan: made before the container's namespaces exist, called inside of them."""
    result: Mounter = driver_module(plan.driver).mounter(plan)
    return result


def mount(plan: RootfsPlan, target: str) -> None:
    """Mount the plan on `target` at once, for callers who are in the user and mount namespace already, and in no pid
    namespace that ends before the mount does."""
    made = mounter(plan)
    try:
        made(target)
    finally:
        made.close()


def unmount(plan: RootfsPlan) -> None:
    """End what the mount left outside of the container's namespaces (only fuse-overlayfs' daemon ever does)."""
    driver_module(plan.driver).unmount(plan)


def choose(name: str, directory: str, id_map: IdMap, cache: str) -> str:
    """The driver to use below `directory`: `name` itself when it works there, for "auto" the first of NAMES that works.

    cache: directory in which the answer is kept with all that it depends on, so that a repair is seen at once. Raises
    UsageError for an unknown name, HostLimit with the reason when the named driver does not work here.
    """
    import json

    from rootless.kernel.procfs import boot_id
    from rootless.paths import atomic_write
    from rootless.storage.drivers.writable import is_reachable

    if name != "auto":
        driver_module(name)
    if not is_reachable(id_map):
        # The probe works below `directory`, which root of this map cannot reach; what it asks of the host is the same
        from rootless.host.userns import default_id_map

        id_map = default_id_map()
    key = f"{boot_id()} {os.stat(directory).st_dev} {id_map.key()} {_describe_host()}"
    path = f"{cache}/storage-driver.json"
    known: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if found["key"] == key:
            known = found["reasons"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    asked = NAMES if name == "auto" else (name,)
    for candidate in asked:
        if candidate not in known:
            known[candidate] = driver_module(candidate).probe(directory, id_map)
            try:
                os.makedirs(cache, mode=0o700, exist_ok=True)
                content = {"key": key, "reasons": known}
                atomic_write(path, json.dumps(content).encode(), durable=False)
            except OSError:
                pass  # a cache on a read-only home only costs the probe again
        if not known[candidate]:
            return candidate
    reasons = "; ".join(f"{candidate}: {known[candidate]}" for candidate in asked)
    raise HostLimit(f"storage driver '{name}' does not work in '{directory}': {reasons}", hint="see `rootless doctor`")


def _describe_host() -> str:
    """What the administrator may change to mend (or break) a driver, as one text: the programs, the subordinate ids,
    /dev/fuse, and the limits on user namespaces.

    A program's change time counts beside its modification time, for chmod and setcap change only the former.
    """
    from rootless.host.facts import find_helper, sysctl

    described = [os.readlink("/proc/self/ns/user"), os.environ.get("PATH", "")]
    programs = [find_helper(name) for name in ("newuidmap", "newgidmap", "fuse-overlayfs")]
    for path in (*programs, "/etc/subuid", "/etc/subgid", "/etc/nsswitch.conf", "/dev/fuse"):
        try:
            status = os.stat(path or "")
        except OSError:
            described.append("-")
            continue
        described.append(f"{path}:{status.st_dev}:{status.st_ino}:{status.st_mode}:{status.st_uid}:{status.st_gid}")
        if path != "/dev/fuse":  # a device's times may change with its use
            described.append(f"{status.st_mtime_ns}:{status.st_ctime_ns}")
    limits = ("user/max_user_namespaces", "kernel/unprivileged_userns_clone",
              "kernel/apparmor_restrict_unprivileged_userns")  # fmt: skip
    described.extend(sysctl(name) or "-" for name in limits)
    return " ".join(described)
