"""RUN inside the worker: one container by the runtime, its output on a pipe, the mount points it needed taken away."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from rootless.build import mountpoints
from rootless.build.namespaces import HELPERS
from rootless.errors import HostLimit, InvalidInput
from rootless.host.idmap import IdMap

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.build.worker import Session
    from rootless.network.helper import Helper
    from rootless.runtime.operations import Operation

_CLOCK_GRAIN = 20_000_000  # ns: times of files come from a coarser clock than time_ns


def run(session: Session, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Run job["config"] on the tree of job["rootfs"]; {"exit_code"}. fds: where its output goes.

    Raises what kept the command from running.
    """
    from rootless.host import userns
    from rootless.storage import drivers

    id_map = IdMap.from_json(job["id_map"])
    spaces = session.namespaces(id_map)
    made = {"user": spaces.user}
    helper: Helper | None = None
    if job["network"] in HELPERS:
        made["network"], helper = spaces.network(job["network"])
    plan = job["rootfs"]
    since = time.time_ns() - _CLOCK_GRAIN
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    note_read, note_write = os.pipe2(os.O_CLOEXEC)
    mounter = drivers.mounter(plan)
    try:
        root_mount = _noting(mounter, job["targets"], note_write)
        code = _run(session, job, (null, fds[0], fds[0]), made, helper, root_mount)
    finally:
        mounter.close()
        os.close(null)
        os.close(note_write)
        with open(note_read, "rb") as file:
            notes = json.loads(file.read() or b"[]")
        drivers.unmount(plan)

    def settle() -> bytes:
        lowers = plan["lowerdirs"]
        mountpoints.tidy(plan["upper"], lowers, [(here, names) for here, names in notes])
        mountpoints.settle_times(plan["upper"], since, job["timestamp"])
        return b""

    if code == 0:
        userns.call_in(spaces.user, settle)
    return {"exit_code": code}


def _noting(mounter: Callable[[str], None], targets: list[str], note: int) -> Callable[[str], None]:
    """Mounts the root, then notes what of `targets` it lacks; this runs in the container's first process."""

    def mount(target: str) -> None:
        mounter(target)
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            content = json.dumps(mountpoints.missing(root, targets)).encode()
        finally:
            os.close(root)
        if len(content) > 60000:
            raise InvalidInput("a step has too many mounts")
        os.write(note, content)  # fits the pipe

    return mount


def _run(
    session: Session,
    job: dict[str, Any],
    stdio: tuple[int, int, int],
    made: dict[str, int],
    helper: Helper | None,
    root_mount: Callable[[str], None],
) -> int:
    from rootless.runtime.launch import Launch, create

    warnings: list[str] = []
    process = create(
        Launch(
            config=job["config"],
            bundle=job["directory"],
            id_map=IdMap.from_json(job["id_map"]),
            container_id=os.path.basename(job["directory"]),
            root_mount=root_mount,
            extra=_secrets(job),
            stdio=stdio,
            seccomp_bpf=_filter(job["seccomp"]),
            die_with_parent=True,
            made=made,
            warn=warnings.append,
        )
    )
    try:
        if helper is not None:
            helper.ready()
        process.start()
        session.wait(process.pidfd)
        return process.wait()
    finally:
        process.destroy()


def _secrets(job: dict[str, Any]) -> list[Operation]:
    from rootless.build.secrets import SecretFile

    return [SecretFile(**each) for each in job["secrets"]]


def _filter(path: str | None) -> bytes | None:
    if path is None:
        return None
    from rootless.runtime.seccomp import read_filter

    try:
        return read_filter(path)
    except OSError as e:
        raise HostLimit(f"cannot read the seccomp filter '{path}': {e.strerror}", hint="build again") from e
