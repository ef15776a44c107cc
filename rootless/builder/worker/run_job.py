"""RUN inside the worker: the runtime runs one container, whose output goes to a pipe.

The mount points that had to be made for it are taken away again afterwards, so that they do not come into the layer.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from rootless.builder.worker import mountpoints
from rootless.builder.worker.mountpoints import RootNotes
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

_CLOCK_GRAIN = 20_000_000  # ns: the kernel gives files the time of its last tick, which is behind time_ns
_MAX_NOTE = 60_000  # bytes: nobody reads the pipe until the container has ended, and a pipe holds 64 KiB (pipe(7))


class _Surroundings(NamedTuple):
    """What a container gets ready-made.

    made: descriptors of namespaces, by the OCI configuration's names of their types; stdio: descriptors of its stdin,
    stdout and stderr; helper: the process that connects the network, None where the network needs none.
    """

    made: dict[str, int]
    stdio: tuple[int, int, int]
    helper: Helper | None


def run(session: WorkerSession, job: RunJob, fds: list[int]) -> RunAnswer:
    """Run the command of `job` and wait for its end. fds: one descriptor, to which its output goes.

    Raises what kept the command from running (RuntimeFailure and its kin, HostLimit, InvalidInput).
    """
    from rootless.host import userns
    from rootless.storage import drivers

    spaces = session.namespaces(job.root.id_map)
    made = {"user": spaces.user}
    helper: Helper | None = None
    connecting = recorded_mode(job.network).helper
    if connecting is not None:
        made["network"], helper = spaces.network(connecting)
    plan = job.root.rootfs
    # Whole seconds, because tools that copy a file's time by utime(2) cut it to the second. adduser does so with its
    # /etc/passwd-: to the nanosecond that file would be older than the step, keep its time, and make each build's layer
    # another one
    since = (time.time_ns() - _CLOCK_GRAIN) // 10**9 * 10**9
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    note_read, note_write = os.pipe2(os.O_CLOEXEC)
    trees = [MountedTree(tree) for tree in job.trees]
    mounter = drivers.make_mounter(plan)
    warnings: list[str] = []
    is_copy = drivers.find_driver(plan.driver).form.holds_whole_tree
    try:
        root_mount = _noting(mounter, trees, job.targets, note_write, with_listings=is_copy)
        output = fds.pop()  # `_run` closes it, as soon as the container has its own
        surroundings = _Surroundings(made, (null, output, output), helper)
        code = _run(session, job, surroundings, root_mount, warnings.append)
    finally:
        mounter.close()
        os.close(null)
        os.close(note_write)
        with open(note_read, "rb") as file:
            noted = RootNotes.from_json(file.read())
        drivers.unmount_root(plan)
        for tree in trees:
            tree.close()

    def settle() -> bytes:
        mountpoints.remove_targets(plan.upper, plan.lowerdirs, noted.missing, is_whole=is_copy)
        mountpoints.restore_times(plan.upper, noted.listings)
        if job.timestamp is not None:
            mountpoints.settle_times(plan.upper, since, job.timestamp, plan.lowerdirs)
        return b""

    if code == 0:
        userns.call_in_namespace(spaces.user, settle)
    return RunAnswer(code, warnings)


def _noting(
    mounter: Callable[[str], None],
    trees: Sequence[MountedTree],
    targets: list[str],
    note: int,
    *,
    with_listings: bool,
) -> Callable[[str], None]:
    """The function that mounts the root and then writes to the pipe `note` what of `targets` the root lacks.

    It runs in the container's first process, before that makes the mount points: afterwards nobody could tell the made
    ones from the image's. with_listings: also note what the directories around them hold.
    """

    def mount(target: str) -> None:
        mounter(target)
        for tree in trees:
            tree.mount()
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            missing = mountpoints.missing_targets(root, targets)
            listings = mountpoints.directory_listings(root, missing) if with_listings else {}
            content = RootNotes(missing, listings).to_json()
            if len(content) > _MAX_NOTE:
                content = RootNotes(missing, {}).to_json()
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
    """Start the container and wait for its end. Returns its exit code; warn: gets what was weaker than asked for."""
    from rootless.runtime.process.command import ProcessOptions, ProcessStreams, SeccompFilters
    from rootless.runtime.process.launch import Launch, UserIds, create
    from rootless.runtime.spec.oci_config import OciConfig
    from rootless.runtime.spec.oci_state import Bundle

    emulation = None
    try:
        emulation = _emulation(job)
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
        os.close(surroundings.stdio[1])  # with a copy open here, the reader would never see the end of the output
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
    """What answers the system calls of an emulated root, where the id map has one id; None else. Raises HostLimit."""
    asked = job.root_emulation
    if asked is None:
        return None
    from rootless.runtime.seccomp.emulation import read_emulation
    from rootless.storage.owners.emulator import make_supervisor

    try:
        found = make_supervisor(job.root.rootfs, asked, job.root.directory)
    except OSError as e:
        raise HostLimit(f"cannot prepare the emulation of root: {e.strerror}") from e
    return None if found is None else read_emulation(asked, found)
