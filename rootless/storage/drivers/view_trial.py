"""Tries whether a driver can mount views of layers here: overlayfs can in a user namespace, from Linux 6.16 on."""

from __future__ import annotations

import json
import os

from rootless.errors import InvalidInput, RootlessError
from rootless.paths import make_new_private
from rootless.records.fields import Fields, parse_json
from rootless.records.rootfs import RootfsPlan
from rootless.storage.drivers import find_driver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.id_map import IdMap

_TEXT = b"content of the layer"


def can_mount_views(driver: str, directory: str, id_map: IdMap, cache: str) -> bool:
    """Whether the driver called `driver` mounts views of layers below `directory`, in a user namespace of `id_map`.

    It is tried once. The result is kept in the directory `cache`, with all that it depends on.
    """
    from rootless.host.facts import kernel_version
    from rootless.storage.drivers.choice import describe_dependencies

    if not find_driver(driver).reads_views or kernel_version() < (6, 16):
        return False
    key = f"{driver} {describe_dependencies(directory, id_map, ())}"
    kept = f"{cache}/layer-views.json"
    try:
        with open(kept, encoding="utf-8") as file:
            fields = Fields(parse_json(file.read()), kept)
        if fields.text("key") == key:
            return fields.flag("works")
    except (OSError, ValueError, InvalidInput):
        pass  # nothing is known yet
    try:
        works = _try(driver, directory, id_map)
    except (RootlessError, OSError):
        works = False
    _keep(kept, {"key": key, "works": works})
    return works


def _keep(path: str, found: dict[str, object]) -> None:
    from rootless.paths import atomic_write, make_private

    try:
        make_private(os.path.dirname(path))
        atomic_write(path, json.dumps(found).encode(), durable=False)
    except OSError:
        pass  # where the cache cannot be written, the next command tries again


def _try(driver_name: str, directory: str, id_map: IdMap) -> bool:
    from rootless.host import userns
    from rootless.host.probes.trial import scratch_path
    from rootless.storage.files.layer_views import ViewCopier
    from rootless.storage.files.removal import delete_tree
    from rootless.storage.files.tree_copy import PATH_DIRECTORY, copy_tree

    driver, base = find_driver(driver_name), scratch_path(directory)
    target = f"{base}/merged"
    make_new_private(base)
    try:
        for name in ("layers", "layers/one", "view", "merged"):
            os.mkdir(f"{base}/{name}", 0o755)
        for name in ("read", "changed"):
            with open(f"{base}/layers/one/{name}", "wb") as file:
                file.write(_TEXT)
        source, view = (os.open(f"{base}/{name}", PATH_DIRECTORY) for name in ("layers/one", "view"))
        try:
            copier = ViewCopier("/one", owner=lambda uid, gid: (uid, gid), capability_root=0)
            copy_tree(source, view, copier, f"{base}/view")
        finally:
            os.close(source)
            os.close(view)
        plan = RootfsPlan(driver_name, base, [f"{base}/view"])
        plan.content = f"{base}/layers"
        driver.complete(plan)
        driver.prepare(plan, id_map)
        mounter = driver.mounter(plan)

        def inside() -> bytes:
            mounter(target)
            with open(f"{target}/changed", "ab") as changed:
                changed.write(b"!")
            os.chmod(f"{target}/read", 0o640)
            with open(f"{target}/read", "rb") as read, open(f"{target}/changed", "rb") as again:
                return read.read() + again.read()

        try:
            return userns.call_in_new_namespace(id_map, inside) == _TEXT + _TEXT + b"!"
        finally:
            mounter.close()
            driver.unmount(plan)
    finally:
        delete_tree(base, id_map)
