"""How layers and a writable directory become one root filesystem: one interface over three drivers.

    choose(name, directory, id_map)  which driver: the name, or for "auto" the best that really works there
    prepare(driver, container_dir, lowerdirs, id_map, volatile=) → plan    when a container is created
    mounter(plan) → Mounter     outside and before the container's namespaces; fuse-overlayfs starts its helper here
    mounter(target)             inside the container's user and mount namespace (a Mounter is callable)
    mounter.close()             outside, always, after the mount or instead of it
    unmount(plan)               outside, after the container ended

A plan is the JSON object "rootfs" of launch.json: {"driver", "lowerdirs" (topmost first), "upper", "work", "volatile",
"options", "directory"}. Every path in it is the user's own, none comes from an image.
"""

from __future__ import annotations

import os

from rootless.errors import HostLimit, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from rootless.host.idmap import IdMap

    Plan = dict[str, Any]

    class Mounter(Protocol):
        """Carries out one plan, once."""

        def __call__(self, target: str) -> None:
            """Mount the root filesystem on directory `target`, inside the container's user and mount namespace."""

        def close(self) -> None:
            """Give back what `mounter` took; the mount stays."""


NAMES = ("overlay", "fuse-overlayfs", "copy")


def driver_module(name: str) -> Any:
    """The module of a driver: prepare, mounter, unmount, probe. Raises UsageError for an unknown name."""
    if name == "overlay":
        from rootless.storage.drivers import overlay

        return overlay
    if name == "fuse-overlayfs":
        from rootless.storage.drivers import fuse_overlayfs

        return fuse_overlayfs
    if name == "copy":
        from rootless.storage.drivers import copy

        return copy
    raise UsageError(f"unknown storage driver '{name}'", hint=f"choose auto, {', '.join(NAMES)}")


def prepare(driver: str, container_dir: str, lowerdirs: list[str], id_map: IdMap, *, volatile: bool = False) -> Plan:
    """Make the writable directories of a container and return its plan.

    driver: one of NAMES (from `choose`); lowerdirs: topmost first (Layers.lowerdirs); volatile: the container's changes
    need not survive a crash of the host (`--rm`). Raises HostLimit.
    """
    plan: Plan = driver_module(driver).prepare(container_dir, lowerdirs, id_map, volatile=volatile)
    return plan


def mounter(plan: Plan) -> Mounter:
    """What will mount the plan: made before the container's namespaces exist, called inside of them."""
    result: Mounter = driver_module(plan["driver"]).mounter(plan)
    return result


def mount(plan: Plan, target: str) -> None:
    """Mount the plan on `target` at once, for callers who are in the user and mount namespace already, and in no pid
    namespace that ends before the mount does."""
    made = mounter(plan)
    try:
        made(target)
    finally:
        made.close()


def unmount(plan: Plan) -> None:
    """End what the mount left outside of the container's namespaces (only fuse-overlayfs' daemon ever does)."""
    driver_module(plan["driver"]).unmount(plan)


def choose(name: str, directory: str, id_map: IdMap, cache: str) -> str:
    """The driver to use below `directory`: `name` itself when it works there, for "auto" the first of NAMES that works.

    cache: directory in which the answer is kept, by boot and filesystem. Raises UsageError for an unknown name,
    HostLimit with the reason when the named driver does not work here.
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
    key = f"{boot_id()} {os.stat(directory).st_dev} {id_map.key()} {os.environ.get('PATH', '')}"
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
