"""Trees as a whole: a directory as a base, all new layers as one (--squash), a tree as files or a tar (--output)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rootless.builder.context.contexts import Context, item

if TYPE_CHECKING:
    from rootless.builder.build_state import BuildState
    from rootless.builder.session import BuildSession
    from rootless.builder.tracker import Step


def from_directory(session: BuildSession, context: Context, state: BuildState, step: Step) -> BuildState:
    """A state of one layer with the files of a named context."""
    from rootless.builder.steps.copy_step import CopyTarget, Plan, place_files
    from rootless.builder.steps.taking import Taken

    taken = Taken()
    try:
        digest = context.digest(["/"], (), session.known(context), wildcards=False)
        taken.facts.append(["context", digest.hexdigest])
        taken.newest = digest.newest
        taken.items.append(item(0, ["/"], "/", ignore=context.ignore, wildcards=False))
        taken.fds.append(context.open())
        plan = Plan(None, "", "/", False, False, max(state.moment, digest.newest))
        return place_files(session, state, taken, plan, CopyTarget("COPY / /", "", step), 0)
    finally:
        taken.close()


def squash(session: BuildSession, base: int, state: BuildState) -> BuildState:
    """The layers above the first `base` ones become one."""
    new = state.layers[base:]
    if len(new) < 2:
        return state
    directory = session.make_directory("rootfs")
    below = session.store.layers.lowerdirs([layer.chain_id for layer in state.layers[:base]], session.id_map)
    rootfs = session.plan_of(below, directory)
    layers = session.lowerdirs(state)[: len(new)]
    job = {"do": "squash", "id_map": session.id_map.to_json(), "rootfs": rootfs.to_json(), "layers": layers[::-1]}
    session.on_worker(lambda worker: worker.call(job))
    made = session.commit(rootfs)
    kept = state.layers[:base]
    history = [
        {**entry, "empty_layer": True} if position >= _history_of(state, base) else entry
        for position, entry in enumerate(state.history)
    ]
    if made is None:
        return state._replace(layers=kept, history=tuple(history))
    history.append({"created": history[-1]["created"], "comment": f"merge {len(new)} layers"})
    return state._replace(layers=(*kept, made[0]), history=tuple(history))


def _history_of(state: BuildState, layers: int) -> int:
    """How many entries of the history belong to the first `layers` layers."""
    seen = 0
    for position, entry in enumerate(state.history):
        if seen == layers:
            return position
        seen += not entry.get("empty_layer")
    return len(state.history)


def export_files(session: BuildSession, state: BuildState, directory: str) -> None:
    """The files of the image below `directory`, all yours."""
    fds: list[int] = []
    os.makedirs(directory, exist_ok=True)
    job: dict[str, Any] = {
        "do": "export",
        "id_map": session.id_map.to_json(),
        "trees": [session.tree(session.lowerdirs(state))],
        "directory": os.path.realpath(directory),
    }
    session.on_worker(lambda worker: worker.call(job, fds))


def export_tar(session: BuildSession, state: BuildState, fd: int) -> None:
    """The files of the image as a tar, written to `fd`."""
    job = {"do": "tar", "id_map": session.id_map.to_json(), "trees": [session.tree(session.lowerdirs(state))]}
    session.on_worker(lambda worker: worker.call(job, [fd]))
