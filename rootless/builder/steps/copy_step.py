"""COPY, ADD and WORKDIR: their cache keys, and the jobs for a worker. `taking` finds out what the sources are."""

from __future__ import annotations

import posixpath
import time
from typing import NamedTuple

from rootless.builder.dockerfile.instructions import Add, Copy
from rootless.builder.dockerfile.modes import parse_chmod
from rootless.builder.session.build_session import StepResult
from rootless.builder.session.build_state import step_key
from rootless.builder.steps.config_steps import working_directory
from rootless.builder.steps.taking import TakenSources, take_sources
from rootless.builder.worker.file_jobs import CopyAnswer, CopyJob, DigestJob, NewDirectory
from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.dockerfile.instructions import Workdir
    from rootless.builder.session.build_session import BuildSession, StepRun
    from rootless.builder.session.build_state import BuildState
    from rootless.builder.steps.run_mounts import Finder

_GRAIN = 20_000_000  # ns: the kernel gives files the time of its last tick, which is behind time_ns


class Placement(NamedTuple):
    """How the files of one step arrive.

    destination: an absolute path, with a slash at its end where it means a directory; moment: the time of the step in
    seconds; chown: text of --chown, whose names are those of the tree's accounts, "" without; chmod: text of --chmod;
    is_link: --link; is_owned: files keep their owners, as those of a stage do; keeps_set_id: files that do not keep
    them have their set-id bits all the same.
    """

    destination: str
    moment: int
    chown: str = ""
    chmod: str = ""
    is_link: bool = False
    is_owned: bool = False
    keeps_set_id: bool = False


def copy(run: StepRun, instruction: Copy | Add, finder: Finder) -> BuildState:
    """The state after COPY or ADD. Raises NotFound, UsageError, InvalidInput."""
    state = run.state
    destination = _destination(state, instruction.destination)
    if len(instruction.sources) + len(instruction.heredocs) > 1 and not destination.endswith("/"):
        raise UsageError(
            f"when more than one file is copied, the destination '{instruction.destination}' must end with a '/'"
        )
    if instruction.chmod:
        parse_chmod(instruction.chmod)
    began = time.time_ns() - _GRAIN
    taken = take_sources(run, instruction, finder, destination)
    try:
        moment = max(state.moment, taken.newest)
        placement = Placement(
            destination, moment, instruction.chown, instruction.chmod, instruction.is_link, is_owned=bool(taken.trees)
        )
        return place_files(run, taken, placement, began)
    finally:
        taken.close()


def place_files(run: StepRun, taken: TakenSources, placement: Placement, began: int) -> BuildState:
    """The state after the files of `taken` were placed, from the cache where it has them. Raises as `copy` does.

    began: the time in ns before anything was read. Where a file changed after that, the layer is used and not cached:
    what was hashed may not be what was copied, and a key for other content would poison later builds.
    """
    session = run.session
    key = _key(run, placement, taken.facts)
    record = run.find(key)
    if record is None and taken.trees and run.knows(_key_without_content(run, placement, taken)):
        # The stage that is copied from has changed, but perhaps not the files that are copied. Their digest costs a
        # mount and a reading. So it is asked for only where the cheap key has failed, and where this step was carried
        # out before: else the copy itself makes the digest
        record = run.find(_key_of_content(run, placement, taken, _content(session, taken)))
        if record is not None:
            record = record._replace(key=key)
            session.cache.put(record)
    if record is not None:
        run.progress.cached()
        return run.after(record)
    result, answer = _place(run, taken, placement, _owner(session, run.state, placement.chown))
    run.progress.done()
    if taken.is_changeable and answer.changed >= began:
        # Somebody writes to the context meanwhile, and the key may be that of other content
        moment = placement.moment if session.latest is None else session.latest
        return run.state.grown(run.created_by, result.layer, moment)
    others = []
    if taken.trees:
        others = [
            _key_of_content(run, placement, taken, answer.digest),
            _key_without_content(run, placement, taken),
        ]
    return run.after(run.remember(key, result, others))


def _key_of_content(run: StepRun, placement: Placement, taken: TakenSources, digest: str) -> str:
    return _key(run, placement, [digest, taken.other_facts])


def _key_without_content(run: StepRun, placement: Placement, taken: TakenSources) -> str:
    """The key of a record that says only that this step was carried out before, with whatever content."""
    return _key(run, placement, ["any content", taken.other_facts])


def _key(run: StepRun, placement: Placement, facts: list[object]) -> str:
    return step_key(
        "copy",
        run.state.chain,
        # It goes up when the same words give other files: layers that earlier versions have made must not be found
        rules=3,
        chown=placement.chown,
        chmod=placement.chmod,
        destination=placement.destination,
        link=placement.is_link,
        files=facts,
        latest=run.session.latest,
    )


def _content(session: BuildSession, taken: TakenSources) -> str:
    trees = [session.tree(session.lowerdirs(state)) for state in taken.trees]
    job = DigestJob(session.id_map, trees, taken.items_of_trees)
    return session.on_worker(lambda worker: worker.call(job, taken.fds))


def _place(
    run: StepRun, taken: TakenSources, placement: Placement, owner: tuple[int, int] | None
) -> tuple[StepResult, CopyAnswer]:
    """Have a worker place the files, which belong to `owner`. Returns the result and the worker's answer."""
    session = run.session
    directory = session.make_directory("rootfs")
    rootfs = session.plan(run.state, directory)
    job = CopyJob(directory, session.id_map, taken.items)
    job.rootfs = rootfs
    # --link: the layer does not depend on the layers below it, and is made in an empty directory instead of on a mount
    job.into = rootfs.upper if placement.is_link else None
    job.trees = [session.tree(session.lowerdirs(state)) for state in taken.trees]
    job.owner = owner
    job.chmod = placement.chmod
    job.is_owned = placement.is_owned
    job.keeps_set_id = placement.keeps_set_id
    job.with_digest = bool(taken.trees)
    job.timestamp = placement.moment if session.latest is None else session.latest
    job.latest = session.latest
    answer = session.on_worker(lambda worker: worker.call(job, taken.fds))
    if answer.skipped:
        session.engine.warn(f"{answer.skipped} device nodes were left out: an ordinary user can make none")
    if answer.unmatched:
        session.engine.warn(f"nothing matches '{' '.join(answer.unmatched)[:300]}', so nothing of it is copied")
    made = session.commit(rootfs)
    session.done_with(directory)
    layer, size = made if made is not None else (None, 0)
    return StepResult(layer, size, placement.moment), answer


def _destination(state: BuildState, text: str) -> str:
    """The absolute path of a destination, of which "" is the working directory.

    A slash at its end stays, for it means that a directory is wanted.
    """
    joined = posixpath.join("/", state.workdir, text)
    is_directory = text.endswith(("/", "/.", "/..")) or text in ("", ".", "..")
    clean = "/" + posixpath.normpath(joined).lstrip("/")
    return clean + "/" if is_directory and clean != "/" else clean


def _owner(session: BuildSession, state: BuildState, chown: str) -> tuple[int, int] | None:
    """(uid, gid) of --chown USER[:GROUP], whose names are those of the image's accounts; None without --chown.

    A number without a group is the group's number too, as in BuildKit. Raises UsageError.
    """
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


def workdir(run: StepRun, instruction: Workdir) -> BuildState:
    """The state after WORKDIR, whose directory is made when it is missing. Raises UsageError."""
    session, state = run.session, run.state
    path = working_directory(state, instruction.path)
    if any(ord(character) < 32 for character in path):
        raise UsageError("WORKDIR has a control character")
    cache_key = step_key("workdir", state.chain, path=path, user=state.user, latest=session.latest)
    record = run.find(cache_key)
    if record is None:
        taken = TakenSources()
        taken.items.append(NewDirectory(path))
        # BuildKit and buildah both give the directory to the USER in force
        owner = _user(session, state, state.user) if state.user else None
        result, _ = _place(run, taken, Placement(path, state.moment), owner)
        record = run.remember(cache_key, result)
        run.progress.done()
    else:
        run.progress.cached()
    after = run.after(record)
    return after._replace(config={**after.config, "WorkingDir": path})
