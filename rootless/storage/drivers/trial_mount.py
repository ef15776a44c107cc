"""Tries a storage driver by a real mount, and does to its files what containers do to files of a lower layer.

There is no other trial: `doctor`, `info`, `run` and `build` get its result from storage.drivers.choice.
"""

from __future__ import annotations

import os

from rootless.errors import HostLimit
from rootless.host import userns
from rootless.host.probes.result import Probe
from rootless.host.probes.trial import scratch_path
from rootless.paths import make_new_private
from rootless.records.rootfs import RootfsPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.id_map import IdMap
    from rootless.storage.drivers import Driver


def try_driver(driver: Driver, directory: str, id_map: IdMap) -> Probe:
    """Mount a layer and a writable directory below `directory`, as root of `id_map`, and change files of the layer.

    Raises RootlessError or OSError when the driver does not work.
    """
    from rootless.storage.files.removal import delete_tree

    base = scratch_path(directory)
    target = f"{base}/merged"
    make_new_private(base)  # as a container's directory is made: a parent that passes something on must not spoil it
    try:
        _make_lower(base)
        os.mkdir(target)
        plan = RootfsPlan(driver.name, base, [f"{base}/layer"])
        driver.complete(plan)
        driver.prepare(plan, id_map)
        mounter = driver.mounter(plan)

        def inside() -> bytes:
            mounter(target)
            exercise_tree(target)
            return b""

        try:
            userns.call_in_new_namespace(id_map, inside)
        finally:
            mounter.close()
            driver.unmount(plan)
    finally:
        # overlayfs leaves directories of mode 000, and with another map they belong to a subordinate id
        delete_tree(base, id_map)
    return Probe(driver.name, True, f"{driver.purpose}: mounted; files of a lower layer replaced and removed")


def _make_lower(base: str) -> None:
    for name in ("layer", "layer/emptied", "layer/replaced"):
        os.mkdir(f"{base}/{name}", 0o755)
    for name in ("removed", "changed", "emptied/a", "replaced/old"):
        with open(f"{base}/layer/{name}", "w", encoding="ascii") as file:
            file.write("old")


def exercise_tree(merged: str) -> None:
    """Change mounted files so that whiteouts, opaque marks and copying up are needed.

    Raises HostLimit when the tree does not show what was done.
    """
    os.unlink(f"{merged}/removed")
    with open(f"{merged}/changed", "a", encoding="ascii") as file:
        file.write(" and new")
    os.chmod(f"{merged}/changed", 0o640)
    os.unlink(f"{merged}/emptied/a")
    os.rmdir(f"{merged}/emptied")
    os.unlink(f"{merged}/replaced/old")
    os.rmdir(f"{merged}/replaced")
    # A directory in place of a whiteout has to be marked as opaque, or the file `old` of the layer shows again
    os.mkdir(f"{merged}/replaced")
    os.symlink("changed", f"{merged}/link")
    seen = {name: sorted(os.listdir(f"{merged}/{name}")) for name in (".", "replaced")}
    if seen != {".": ["changed", "link", "replaced"], "replaced": []}:
        raise HostLimit(f"removed files of a lower layer are still seen: {seen}")
    with open(f"{merged}/link", encoding="ascii") as file:
        if file.read() != "old and new":
            raise HostLimit("a changed file of a lower layer has other contents")
