"""COPY, ADD and WORKDIR: their cache keys, and the jobs for a worker. What the sources are is `taking`'s part."""

from __future__ import annotations

import posixpath
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from rootless.builder.dockerfile.instructions import Add, Copy
from rootless.builder.dockerfile.modes import parse_chmod
from rootless.builder.session.build_state import step_key
from rootless.builder.steps.config_steps import working_directory
from rootless.builder.steps.taking import Taken, take
from rootless.errors import UsageError

if TYPE_CHECKING:
    from rootless.builder.dockerfile.instructions import Workdir
    from rootless.builder.session.build_session import BuildSession
    from rootless.builder.session.build_state import BuildState, Layer
    from rootless.builder.session.tracker import StepSite
    from rootless.builder.steps.run_mounts import Finder

_GRAIN = 20_000_000  # ns by which a file's clock may be behind ours


class Plan(NamedTuple):
    """How the files of one step arrive. is_owned: they keep their owners (files of a stage); moment: of the step."""

    owner: tuple[int, int] | None
    chmod: str
    destination: str
    is_link: bool
    is_owned: bool
    moment: int


def copy(
    session: BuildSession, state: BuildState, instruction: Copy | Add, finder: Finder, site: StepSite
) -> BuildState:
    """The state after COPY or ADD. Raises NotFound, UsageError, InvalidInput."""
    destination = _destination(state, instruction.destination)
    if len(instruction.sources) + len(instruction.heredocs) > 1 and not destination.endswith("/"):
        raise UsageError(
            f"when more than one file is copied, the destination '{instruction.destination}' must end with a '/'"
        )
    owner = _owner(session, state, instruction.chown)
    if instruction.chmod:
        parse_chmod(instruction.chmod)
    began = time.time_ns() - _GRAIN
    taken = take(session, instruction, finder, destination, state, site.step)
    try:
        moment = max(state.moment, taken.newest)
        plan = Plan(owner, instruction.chmod, destination, instruction.is_link, bool(taken.trees), moment)
        return place_files(session, state, taken, plan, site, began)
    finally:
        taken.close()


def place_files(
    session: BuildSession, state: BuildState, taken: Taken, plan: Plan, site: StepSite, began: int
) -> BuildState:
    """The state with what was taken. began: ns; files that change later are put into no cache."""
    keys = [_key(session, state, plan, taken.facts)]
    record = session.find(keys[0], state, site.stage, site.step)
    if record is None and taken.trees:
        # the stage that is copied from is another one, but perhaps not the files that are copied
        keys.append(_key(session, state, plan, [_content(session, taken), taken.other_facts]))
        record = session.find(keys[1], state, site.stage, site.step)
        if record is not None:
            session.cache.put(record._replace(key=keys[0]))
    if record is not None:
        site.step.cached()
        return session.after(state, record, site.created_by)
    layer, size, changed = _place(session, state, taken, plan)
    site.step.done()
    if changed >= began:
        # somebody writes to the context meanwhile: what was copied may not be what the key is of
        return state.grown(site.created_by, layer, plan.moment if session.latest is None else session.latest)
    for each in keys:
        record = session.remember(each, state, layer, moment=plan.moment, size=size, text=site.created_by)
    assert record is not None
    return session.after(state, record, site.created_by)


def _key(session: BuildSession, state: BuildState, plan: Plan, facts: list[Any]) -> str:
    return step_key(
        "copy",
        state.chain,
        owner=plan.owner,
        chmod=plan.chmod,
        destination=plan.destination,
        link=plan.is_link,
        files=facts,
        latest=session.latest,
    )


def _content(session: BuildSession, taken: Taken) -> str:
    job = {
        "do": "digest",
        "id_map": session.id_map.to_json(),
        "trees": [session.tree(lowerdirs) for lowerdirs in taken.trees],
        "items": taken.items_of_trees,
    }
    return str(session.on_worker(lambda worker: worker.call(job, taken.fds))["digest"])


def _place(session: BuildSession, state: BuildState, taken: Taken, plan: Plan) -> tuple[Layer | None, int, int]:
    """(layer, bytes, latest change of a file that was read)."""
    directory = session.make_directory("rootfs")
    rootfs = session.plan(state, directory)
    job = {
        "do": "copy",
        "directory": directory,
        "into": rootfs.upper if plan.is_link else None,
        "id_map": session.id_map.to_json(),
        "rootfs": rootfs.to_json(),
        "trees": [session.tree(lowerdirs) for lowerdirs in taken.trees],
        "owner": plan.owner,
        "chmod": plan.chmod,
        "owned": plan.is_owned,
        "timestamp": plan.moment if session.latest is None else session.latest,
        "latest": session.latest,
        "items": taken.items,
    }
    result = session.on_worker(lambda worker: worker.call(job, taken.fds))
    if result["skipped"]:
        session.engine.warn(f"{result['skipped']} device nodes were left out: an ordinary user can make none")
    made = session.commit(rootfs)
    session.done_with(directory)
    layer, size = made if made is not None else (None, 0)
    return layer, size, result["changed"] if taken.is_changeable else 0


def _destination(state: BuildState, text: str) -> str:
    """Absolute; a slash at the end stays, for it means a directory."""
    joined = posixpath.join("/", state.workdir, text)
    is_directory = text.endswith(("/", "/.", "/..")) or text in (".", "..")
    clean = "/" + posixpath.normpath(joined).lstrip("/")
    return clean + "/" if is_directory and clean != "/" else clean


def _owner(session: BuildSession, state: BuildState, chown: str) -> tuple[int, int] | None:
    """--chown USER[:GROUP], names looked up in the image; a number alone is the group too. Raises UsageError."""
    if not chown:
        return None
    user, colon, group = chown.partition(":")
    from rootless.engine.plan.identity import account_of
    from rootless.engine.plan.users import parse_id

    account = account_of(chown, session.lowerdirs(state))
    if not colon and parse_id(user) is not None:
        return account.uid, account.uid
    if colon and not group:
        raise UsageError(f"--chown: '{chown}' has no group behind the colon")
    return account.uid, account.gid


def _user(session: BuildSession, state: BuildState, user: str) -> tuple[int, int]:
    from rootless.engine.plan.identity import account_of

    account = account_of(user, session.lowerdirs(state))
    return account.uid, account.gid


def workdir(session: BuildSession, state: BuildState, instruction: Workdir, site: StepSite) -> BuildState:
    """The state after WORKDIR, whose directory is made when it is missing."""
    path = working_directory(state, instruction.path)
    if any(ord(character) < 32 for character in path):
        raise UsageError("WORKDIR has a control character")
    user = str(state.config.get("User") or "")
    cache_key = step_key("workdir", state.chain, path=path, user=user, latest=session.latest)
    record = session.find(cache_key, state, site.stage, site.step)
    if record is None:
        taken = Taken()
        taken.items.append({"kind": "directory", "path": path})
        # BuildKit and buildah both give it to the USER in force
        owner = _user(session, state, user) if user else None
        plan = Plan(owner, "", path, False, False, state.moment)
        layer, size, _ = _place(session, state, taken, plan)
        record = session.remember(cache_key, state, layer, moment=state.moment, size=size, text=site.created_by)
        site.step.done()
    else:
        site.step.cached()
    after = session.after(state, record, site.created_by)
    return after._replace(config={**after.config, "WorkingDir": path})
