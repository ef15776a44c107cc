"""Names for shell completion: containers, images and volumes of the caller's store.

Where the store fails there are no names: an error would be printed into the line that the user is typing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from rootless.cli.declaration import Session
from rootless.engine import verbs
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _complete(names: Callable[[Engine], Iterable[str]]) -> Completer:
    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        session = Session()
        given = ctx.find_root().params
        session.root, session.storage_driver = given.get("root"), given.get("storage_driver")
        taken = ctx.params.get(parameter.name or "") or ()
        try:
            found = sorted(set(names(session.engine)))
        except (RootlessError, OSError):
            return []
        return [name for name in found if name.startswith(incomplete) and name not in taken]

    return complete


def _containers(*states: str) -> Completer:
    def names(engine: Engine) -> Iterable[str]:
        filters = {"status": states} if states else None
        return [row.name for row in verbs.list_containers(engine, all=True, filters=filters)]

    return _complete(names)


def _image_names(engine: Engine) -> Iterable[str]:
    for image in verbs.list_images(engine):
        if image.repository != "<none>":
            yield image.repository if image.tag == "latest" else f"{image.repository}:{image.tag}"


containers = _containers()
running_containers = _containers("running", "paused", "restarting")
stopped_containers = _containers("created", "exited")
paused_containers = _containers("paused")
images = _complete(_image_names)
volumes = _complete(lambda engine: [volume.name for volume in verbs.list_volumes(engine)])
