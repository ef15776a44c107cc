"""RUN inside the worker: one container by the runtime, its output on a pipe, the mount points it needed taken away."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from rootless.builder.worker import mountpoints
from rootless.builder.worker.mountpoints import Noted
from rootless.builder.worker.step_jobs import RunAnswer
from rootless.builder.worker.worker_session import MountedTree
from rootless.errors import HostLimit, InvalidInput
from rootless.network.modes import recorded_mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.builder.worker.step_jobs import RunJob
    from rootless.builder.worker.worker_session import WorkerSession
    from rootless.network.helper import Helper
    from rootless.runtime.operations.base import Operation
    from rootless.runtime.seccomp.emulation import Emulation

_CLOCK_GRAIN = 20_000_000  # ns: times of files come from a coarser clock than time_ns
_MAX_NOTE = 60_000  # bytes; fits a pipe that nobody reads meanwhile


class _Surroundings(NamedTuple):
    """What a container finds made: namespaces by the configuration's words for them, stdio, the network's helper."""

    made: dict[str, int]
    stdio: tuple[int, int, int]
    helper: Helper | None


def run(session: WorkerSession, job: RunJob, fds: list[int]) -> RunAnswer:
    """Run the command of `job`. fds: where its output goes. Raises what kept the command from running."""
    from rootless.host import userns
    from rootless.storage import drivers

    spaces = session.namespaces(job.root.id_map)
    made = {"user": spaces.user}
    helper: Helper | None = None
    connecting = recorded_mode(job.network).helper
    if connecting is not None:
        made["network"], helper = spaces.network(connecting)
    plan = job.root.rootfs
    # of whole seconds, as tools write that copy a time by utime(2): adduser's /etc/passwd- would else be of now
    since = (time.time_ns() - _CLOCK_GRAIN) // 10**9 * 10**9
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    note_read, note_write = os.pipe2(os.O_CLOEXEC)
    trees = [MountedTree(tree) for tree in job.trees]
    mounter = drivers.mounter(plan)
    warnings: list[str] = []
    is_copy = drivers.find_driver(plan.driver).form.holds_whole_tree
    try:
        root_mount = _noting(mounter, trees, job.targets, note_write, with_listings=is_copy)
        output = fds.pop()  # closed there, as soon as the container has it
        surroundings = _Surroundings(made, (null, output, output), helper)
        code = _run(session, job, surroundings, root_mount, warnings.append)
    finally:
        mounter.close()
        os.close(null)
        os.close(note_write)
        with open(note_read, "rb") as file:
            noted = Noted.from_json(file.read())
        drivers.unmount(plan)
        for tree in trees:
            tree.close()

    def settle() -> bytes:
        mountpoints.tidy(plan.upper, plan.lowerdirs, noted.missing, is_whole=is_copy)
        mountpoints.restore_times(plan.upper, noted.listings)
        mountpoints.settle_times(plan.upper, since, job.timestamp, plan.lowerdirs)
        return b""

    if code == 0:
        userns.call_in(spaces.user, settle)
    return RunAnswer(code, warnings)


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
            missing = mountpoints.missing(root, targets)
            listings = mountpoints.listings(root, missing) if with_listings else {}
            content = Noted(missing, listings).to_json()
            if len(content) > _MAX_NOTE:
                content = Noted(missing, {}).to_json()
        finally:
            os.close(root)
        if len(content) > _MAX_NOTE:
            raise InvalidInput("a step has too many mounts")
        os.write(note, content)

    return mount


def _run(
    session: WorkerSession,
    job: RunJob,
    surroundings: _Surroundings,
    root_mount: Callable[[str], None],
    warn: Callable[[str], None],
) -> int:
    """Start the container, wait for its end; its exit code."""
    from rootless.runtime.process.command import ProcessOptions, ProcessStreams, SeccompFilters
    from rootless.runtime.process.launch import Launch, UserIds, create
    from rootless.runtime.spec.oci_config import OciConfig
    from rootless.runtime.spec.oci_state import Bundle

    emulation = _emulation(job)
    try:
        directory = job.root.directory
        bundle = Bundle(OciConfig.from_json(job.config), directory, os.path.basename(directory))
        launch = Launch(bundle, UserIds(job.root.id_map))
        launch.root_mount = root_mount
        launch.extra = _operations(job)
        launch.streams = ProcessStreams(surroundings.stdio)
        launch.filters = SeccompFilters(_filter(job.seccomp), emulation=emulation)
        launch.options = ProcessOptions(die_with_parent=True)
        launch.namespace_fds = surroundings.made
        launch.warn = warn
        process = create(launch)
    finally:
        if emulation is not None:
            emulation.supervisor.close()  # type: ignore[attr-defined]
        os.close(surroundings.stdio[1])  # the reader waits for the end of the container's copy only
    try:
        if surroundings.helper is not None:
            surroundings.helper.ready()
        process.start()
        session.wait(process.pidfd)
        return process.wait()
    finally:
        process.destroy()


def _operations(job: RunJob) -> list[Operation]:
    if not job.binds and not job.secrets:
        return []
    from rootless.builder.worker.step_mounts import SecretFile, TreeBind

    return [*map(TreeBind, job.binds), *map(SecretFile, job.secrets)]


def _filter(path: str | None) -> bytes | None:
    from rootless.runtime.seccomp.filter_cache import require_filter

    return None if path is None else require_filter(path, hint="build again")


def _emulation(job: RunJob) -> Emulation | None:
    """What answers the calls of an emulated root, where the id map has one id. Raises HostLimit."""
    asked = job.root_emulation
    if asked is None:
        return None
    from rootless.runtime.seccomp.emulation import read_emulation
    from rootless.storage.owners.emulator import supervisor

    try:
        found = supervisor(job.root.rootfs, asked, job.root.directory)
    except OSError as e:
        raise HostLimit(f"cannot prepare the emulation of root: {e.strerror}") from e
    return None if found is None else read_emulation(asked, found)
