"""The verb `explain`: what a `run` would do, without doing it. A container is made as `create` does, read, and undone.

It starts nothing, pulls nothing, and gives no file another owner.
"""

from __future__ import annotations

from rootless.engine import image_in_use
from rootless.engine.container import create
from rootless.engine.plan import mount_sources
from rootless.engine.plan.explanation import explanation
from rootless.engine.report_types import Explanation
from rootless.engine.types import ContainerOptions
from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine


def explain_container(engine: Engine, options: ContainerOptions) -> Explanation:
    """What `run` would do, in words and as the files it would write; nothing of it stays.

    Raises what `create` would raise; ImageNotFound when a pull would come first.
    """
    _refuse_owner_change(options)
    store = engine.store
    with store.using():
        image = image_in_use.image_for(engine, options.image, pull="never", platform=options.platform)
        container_id = store.containers.new_id()
        made = mount_sources.Made()
        try:
            directory = create._make(engine, options, image, container_id, made)
            return explanation(directory)
        finally:
            create._undo(engine, container_id, made)


def _refuse_owner_change(options: ContainerOptions) -> None:
    changes = [text for text in options.volume if "U" in text.split(":")[-1].split(",")]
    changes += [
        text for text in options.mount if any(word.partition("=")[0] in ("U", "chown") for word in text.split(","))
    ]
    if changes:
        raise UsageError(f"mount '{changes[0]}' would change owners already when it is planned", hint="leave out its U")
