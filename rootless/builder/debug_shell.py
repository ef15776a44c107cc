"""`--debug-shell`: a shell in a container on the state before the failed step; the state is kept as long as that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootless.builder import outputs
from rootless.builder.store_state import store_state
from rootless.engine import verbs
from rootless.errors import RootlessError

if TYPE_CHECKING:
    from rootless.builder.build_state import BuildState
    from rootless.engine.context import Engine


def enter(engine: Engine, state: BuildState) -> None:
    """Run the state's shell there, interactively; it and its container are gone afterwards."""
    from rootless.engine.types import AttachOptions, ContainerOptions

    with engine.store.using():
        descriptor = store_state(engine, state)
        outputs.name_in(engine.store, descriptor, ())
    image_id = engine.store.index.load(descriptor.digest).config_digest
    shell = state.shell[0]
    try:
        options = ContainerOptions(image=image_id, entrypoint=shell, interactive=True, tty=True, rm=True, user="0")
        verbs.run_container(engine, options, AttachOptions())
    finally:
        try:
            verbs.remove_image(engine, image_id)
        except RootlessError as e:
            engine.warn(f"the image of the state stays: {e.message}")
