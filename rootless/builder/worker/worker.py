"""The process that carries out the steps of a build: runs commands, copies files, computes digests. One job at a time.

The process stays outside of the user namespace, as a monitor does, and its children enter that: setns(2) and unshare(2)
refuse a user namespace to a process with several threads, and a process that has entered one cannot come back. So the
worker has one thread and forks. Jobs come on fd 3, and answers go back there. When the build's process is gone, what
runs is killed.
"""

from __future__ import annotations

import os
import signal
import socket

from rootless.builder.worker import job_channel, step_jobs
from rootless.builder.worker.worker_session import WorkerSession
from rootless.errors import HostLimit, RootlessError
from rootless.host.answer import error_to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.worker.file_jobs import FileJob
    from rootless.builder.worker.job_channel import AnyJob

FD = 3


def main() -> int:
    """Serve jobs until the build closes its end of the connection; return the exit code.

    Ctrl-C at the terminal is for the build, which ends its workers in order: a worker leads its own session and ignores
    SIGINT, so that the signal does not cut off a step before its mounts and helpers are undone.
    """
    os.set_inheritable(FD, False)
    try:
        os.setsid()
    except PermissionError:
        pass
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    _name()
    connection = socket.socket(fileno=FD)
    session = WorkerSession(connection)
    try:
        while True:
            job, fds = job_channel.receive_job(connection)
            if job is None:
                break
            answer = _answer(session, job, fds)
            try:
                job_channel.send_answer(connection, answer)
            except OSError:
                break
    finally:
        session.close()
    return 0


def _answer(session: WorkerSession, job: AnyJob, fds: list[int]) -> dict[str, object]:
    try:
        return {"result": _do(session, job, fds)}
    except RootlessError as e:
        return {"error": error_to_json(e)}
    except OSError as e:
        where = f" '{e.filename}'" if e.filename else ""
        return {"error": error_to_json(HostLimit(f"cannot carry out a step{where}: {e.strerror or e}"))}
    finally:
        for fd in fds:
            try:
                os.close(fd)
            except OSError:
                pass  # the job has handed it on or closed it


def _do(session: WorkerSession, job: AnyJob, fds: list[int]) -> dict[str, object]:
    """Carry out a job and return its answer. The module of a job is loaded with the first job of its kind."""
    if isinstance(job, step_jobs.RunJob):
        from rootless.builder.worker import run_job

        return run_job.run(session, job, fds).to_json()
    if not isinstance(job, step_jobs.UnpackContextJob | step_jobs.SquashJob | step_jobs.ExportJob):
        return _do_files(session, job, fds)
    from rootless.builder.worker import tree_jobs

    if isinstance(job, step_jobs.UnpackContextJob):
        tree_jobs.unpack(session, job, fds[0])
    elif isinstance(job, step_jobs.SquashJob):
        tree_jobs.squash(session, job)
    elif job.directory:
        tree_jobs.export(session, job)
    else:
        tree_jobs.export_tar(session, job, fds[0])
    return {}


def _do_files(session: WorkerSession, job: FileJob, fds: list[int]) -> dict[str, object]:
    from rootless.builder.worker import copy_job
    from rootless.builder.worker.file_jobs import CopyJob

    if isinstance(job, CopyJob):
        return copy_job.copy(session, job, fds).to_json()
    return {"digest": copy_job.digest(session, job, fds)}


def _name() -> None:
    try:
        with open("/proc/self/comm", "w") as file:
            file.write("rootless-build")
    except OSError:
        pass  # the name serves people who read `ps`; the worker runs without it as well


if __name__ == "__main__":
    raise SystemExit(main())
