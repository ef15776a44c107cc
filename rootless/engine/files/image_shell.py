"""The verb `image shell`: a command of the host runs on an image's tree, whose changes are thrown away."""

from __future__ import annotations

import json
import os

from rootless.errors import HostLimit
from rootless.paths import make_new_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.engine.context import Engine


def image_shell(engine: Engine, image: str, command: Sequence[str] = ()) -> int:
    """Run a command of the host in the tree of an image, and return its exit status.

    command: by default the caller's shell. It runs as root of a user namespace of the caller, and finds the tree's path
    in $ROOTLESS_IMAGE_ROOT. It is no container: all files of the host are visible. Raises ImageNotFound, HostLimit.
    """
    from rootless.engine.image_in_use import image_for
    from rootless.host import interpreter, userns
    from rootless.storage import drivers
    from rootless.storage.drivers.choice import choose_driver
    from rootless.storage.files.removal import remove_tree

    store = engine.store
    id_map = store.id_map
    # The lock is held as long as the shell runs, so that garbage collection leaves the layers alone
    with store.using():
        used = image_for(engine, image)
        lowerdirs = store.layers.lowerdirs(used.chain_ids, id_map)
        driver = choose_driver(
            engine.settings.storage_driver, store.containers.directory, id_map, engine.directories.cache
        )
        directory = store.containers.path(store.containers.new_id())
        try:
            make_new_private(directory)
            os.mkdir(f"{directory}/rootfs", 0o755)
        except OSError as e:
            raise HostLimit(f"cannot make '{directory}': {e.strerror}") from e
        try:
            plan = drivers.plan_root(driver, directory, lowerdirs, volatile=True)
            drivers.prepare_root(plan, id_map)
            target = f"{directory}/rootfs"
            words = list(command) or [os.environ.get("SHELL") or "/bin/sh"]
            content = json.dumps(plan.to_json())
            argv = interpreter.worker_command("rootless.storage.roots.tree_shell", content, target, *words)
            environment = {**os.environ, "ROOTLESS_IMAGE_ROOT": target}
            code = userns.run_in_new_namespace(id_map, argv, env=environment)
            drivers.unmount_root(plan)
        finally:
            remove_tree(directory, id_map)
    return code
