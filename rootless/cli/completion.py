"""Names for shell completion: containers, images, volumes and networks of the caller's store.

Where the store fails there are no names: an error would be printed into the line that the user is typing.
"""

from __future__ import annotations

from rootless.engine import verbs
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Literal

    from rootless.engine.context import Engine

    Names = Literal[
        "containers", "running_containers", "stopped_containers", "paused_containers", "images", "volumes", "networks",
    ]  # fmt: skip

_STATES = {
    "running_containers": ("running", "paused", "restarting"),
    "stopped_containers": ("created", "exited"),
    "paused_containers": ("paused",),
}


def find_names(open_engine: Callable[[], Engine], kind: Names) -> list[str]:
    """The names of this kind, sorted, each once."""
    try:
        engine = open_engine()
        if kind == "images":
            return sorted(set(_image_names(engine)))
        if kind == "volumes":
            return sorted({volume.name for volume in verbs.list_volumes(engine)})
        if kind == "networks":
            return sorted({network.name for network in verbs.list_networks(engine)})
        filters = {"status": _STATES[kind]} if kind in _STATES else None
        return sorted({row.name for row in verbs.list_containers(engine, all=True, filters=filters)})
    except (RootlessError, OSError):
        return []


def _image_names(engine: Engine) -> Iterable[str]:
    for image in verbs.list_images(engine):
        if image.repository != "<none>":
            yield image.repository if image.tag == "latest" else f"{image.repository}:{image.tag}"
