"""RUN inside the worker: one container by the runtime, its output on a pipe, the mount points it needed taken away."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from rootless.builder.worker import mountpoints
from rootless.builder.worker.worker_session import MountedTree
from rootless.errors import HostLimit, InvalidInput
from rootless.network.modes import recorded_mode
from rootless.records.id_map import IdMap
from rootless.records.rootfs import RootfsPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.builder.worker.worker_session import WorkerSession
    from rootless.network.helper import Helper
    from rootless.runtime.operations import Operation
    from rootless.runtime.seccomp.emulation import Emulation

_CLOCK_GRAIN = 20_000_000  # ns: times of files come from a coarser clock than time_ns
_MAX_NOTE = 60_000  # bytes; fits a pipe that nobody reads meanwhile


def run(session: WorkerSession, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Run job["config"] on the tree of job["rootfs"]; {"exit_code", "warnings"}. fds: where its output goes.

    Raises what kept the command from running.
    """
    from rootless.host import userns
    from rootless.storage import drivers

    spaces = session.namespaces(IdMap.from_json(job["id_map"]))
    made = {"user": spaces.user}
    helper: Helper | None = None
    connecting = recorded_mode(job["network"]).helper
    if connecting is not None:
        made["network"], helper = spaces.network(connecting)
    plan = RootfsPlan.from_job(job["rootfs"])
    # of whole seconds, as tools write that copy a time by utime(2): adduser's /etc/passwd- would else be of now
    since = (time.time_ns() - _CLOCK_GRAIN) // 10**9 * 10**9
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    note_read, note_write = os.pipe2(os.O_CLOEXEC)
    trees = [MountedTree(tree) for tree in job["trees"]]
    mounter = drivers.mounter(plan)
    warnings: list[str] = []
    is_copy = drivers.find_driver(plan.driver).form.holds_whole_tree
    try:
        root_mount = _noting(mounter, trees, job["targets"], note_write, with_listings=is_copy)
        output = fds.pop()  # closed there, as soon as the container has it
        code = _run(session, job, (null, output, output), made, helper, root_mount, warnings)
    finally:
        mounter.close()
        os.close(null)
        os.close(note_write)
        with open(note_read, "rb") as file:
            notes, before = json.loads(file.read() or b"[[],{}]")
        drivers.unmount(plan)
        for tree in trees:
            tree.close()

    def settle() -> bytes:
        missing = [(here, names) for here, names in notes]
        mountpoints.tidy(plan.upper, plan.lowerdirs, missing, is_whole=is_copy)
        mountpoints.restore_times(plan.upper, before)
        mountpoints.settle_times(plan.upper, since, job["timestamp"], plan.lowerdirs)
        return b""

    if code == 0:
        userns.call_in(spaces.user, settle)
    return {"exit_code": code, "warnings": warnings}


def _noting(
    mounter: Callable[[str], None],
    trees: Sequence[MountedTree],
    targets: list[str],
    note: int,
    *,
    with_listings: bool,
) -> Callable[[str], None]:
    """Mounts the root, then notes what of `targets` it lacks; this runs in the container's first process."""

    def mount(target: str) -> None:
        mounter(target)
        for tree in trees:
            tree.mount()
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            notes = mountpoints.missing(root, targets)
            before = mountpoints.listings(root, notes) if with_listings else {}
            content = json.dumps([notes, before]).encode()
            if len(content) > _MAX_NOTE:
                content = json.dumps([notes, {}]).encode()
        finally:
            os.close(root)
        if len(content) > _MAX_NOTE:
            raise InvalidInput("a step has too many mounts")
        os.write(note, content)

    return mount


def _run(
    session: WorkerSession,
    job: dict[str, Any],
    stdio: tuple[int, int, int],
    made: dict[str, int],
    helper: Helper | None,
    root_mount: Callable[[str], None],
    warnings: list[str],
) -> int:
    from rootless.runtime.process.command import ProcessOptions, ProcessStreams, SeccompFilters
    from rootless.runtime.process.launch import Launch, UserIds, create
    from rootless.runtime.spec.oci_config import OciConfig
    from rootless.runtime.spec.oci_state import Bundle

    emulation = _emulation(job)
    try:
        bundle = Bundle(OciConfig.from_json(job["config"]), job["directory"], os.path.basename(job["directory"]))
        launch = Launch(bundle, UserIds(IdMap.from_json(job["id_map"])))
        launch.root_mount = root_mount
        launch.extra = _operations(job)
        launch.streams = ProcessStreams(stdio)
        launch.filters = SeccompFilters(_filter(job["seccomp"]), emulation=emulation)
        launch.options = ProcessOptions(die_with_parent=True)
        launch.namespace_fds = made
        launch.warn = warnings.append
        process = create(launch)
    finally:
        if emulation is not None:
            emulation.supervisor.close()  # type: ignore[attr-defined]
        os.close(stdio[1])  # the reader waits for the end of the container's copy only
    try:
        if helper is not None:
            helper.ready()
        process.start()
        session.wait(process.pidfd)
        return process.wait()
    finally:
        process.destroy()


def _operations(job: dict[str, Any]) -> list[Operation]:
    if not job["binds"] and not job["secrets"]:
        return []
    from rootless.builder.worker.step_mounts import SecretFile, TreeBind

    binds = [TreeBind(**bind) for bind in job["binds"]]
    return [*binds, *(SecretFile(**secret) for secret in job["secrets"])]


def _filter(path: str | None) -> bytes | None:
    from rootless.runtime.seccomp.filter_cache import require_filter

    return None if path is None else require_filter(path, hint="build again")


def _emulation(job: dict[str, Any]) -> Emulation | None:
    """What answers the calls of an emulated root, where the id map has one id."""
    asked = job["root_emulation"]
    if asked is None:
        return None
    from rootless.runtime.seccomp.emulation import read_emulation
    from rootless.storage.owners.emulator import supervisor

    try:
        found = supervisor(RootfsPlan.from_job(job["rootfs"]), asked, job["directory"])
    except OSError as e:
        raise HostLimit(f"cannot prepare the emulation of root: {e.strerror}") from e
    return None if found is None else read_emulation(asked, found)
