"""The process that carries out the steps of a build: runs commands, copies files, computes digests. One job at a time.

It stays outside of the user namespace, as a monitor does, and its children enter it; so it has one thread and forks.
Jobs and answers are `wire` messages on fd 3. When the build's process is gone, what runs is killed.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

from rootless.builder.worker import wire
from rootless.builder.worker.worker_session import WorkerSession
from rootless.errors import HostLimit, RootlessError
from rootless.host.answer import error_to_json

FD = 3


def main() -> int:
    """Serve jobs until the other end closes."""
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
            job, fds = wire.receive(connection)
            if job is None:
                break
            answer = _answer(session, job, fds)
            try:
                wire.send(connection, answer)
            except OSError:
                break
    finally:
        session.close()
    return 0


def _answer(session: WorkerSession, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
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
                pass  # handed on already


def _do(session: WorkerSession, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    if job["do"] == "run":
        from rootless.builder.worker import run_job

        return run_job.run(session, job, fds)
    if job["do"] in ("copy", "digest"):
        from rootless.builder.worker import copy_job

        return {"copy": copy_job.copy, "digest": copy_job.digest}[job["do"]](session, job, fds)
    from rootless.builder.worker import tree_jobs

    jobs = {"unpack": tree_jobs.unpack, "squash": tree_jobs.squash, "export": tree_jobs.export, "tar": tree_jobs.tar}
    return jobs[job["do"]](session, job, fds)


def _name() -> None:
    try:
        with open("/proc/self/comm", "w") as file:
            file.write("rootless-build")
    except OSError:
        pass  # only a name


if __name__ == "__main__":
    raise SystemExit(main())
