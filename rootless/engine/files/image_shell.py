"""The verb `image shell`: a command of the host on an image's tree, which is thrown away with all changes."""

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
    """Run a command of the host (default: the caller's shell) as root of his namespace in the image's tree; its exit
    status. Changes are dropped. The tree's path is in ROOTLESS_IMAGE_ROOT."""
    from rootless.engine.image_in_use import image_for
    from rootless.host import interpreter, userns
    from rootless.storage import drivers
    from rootless.storage.drivers.choice import choose
    from rootless.storage.files.removal import remove_tree

    store = engine.store
    id_map = store.id_map
    # Held as long as the shell runs: nothing collects the layers below it
    with store.using():
        used = image_for(engine, image)
        lowerdirs = store.layers.lowerdirs(used.chain_ids, id_map)
        driver = choose(engine.settings.storage_driver, store.containers.directory, id_map, engine.directories.cache)
        directory = store.containers.path(store.containers.new_id())
        try:
            make_new_private(directory)
            os.mkdir(f"{directory}/rootfs", 0o755)
        except OSError as e:
            raise HostLimit(f"cannot make '{directory}': {e.strerror}") from e
        try:
            plan = drivers.plan(driver, directory, lowerdirs, volatile=True)
            drivers.prepare(plan, id_map)
            target = f"{directory}/rootfs"
            words = list(command) or [os.environ.get("SHELL") or "/bin/sh"]
            content = json.dumps(plan.to_json())
            argv = interpreter.worker_command("rootless.storage.roots.tree_shell", content, target, *words)
            environment = {**os.environ, "ROOTLESS_IMAGE_ROOT": target}
            code = userns.run(id_map, argv, env=environment)
            drivers.unmount(plan)
        finally:
            remove_tree(directory, id_map)
    return code
