"""Entry point of the monitor process: detaches itself, serves fd 3 and the socket until the container is gone.

The engine starts it as a fresh interpreter (rootless.engine.container.attach_client.spawn_monitor). When the
container has run for a while, and nobody is attached, the process executes itself anew and takes its children,
descriptors and locks along: the second image has loaded a fifth of the modules, and that is what an idle
container costs.
"""

from __future__ import annotations

import _socket
import os
import sys

from rootless.monitor.loop import SIGCHLD, SIGHUP, SIGINT, SIGTERM, Loop, block_signals, unblock_signals
from rootless.monitor.supervise import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.monitor.cgroup import Holder
    from rootless.monitor.handover import Handover
    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.monitor.prepared import PreparedContainer
    from rootless.monitor.supervise import ContainerRun

ENGINE_FD = 3
_HANDLED = (SIGCHLD, SIGTERM, SIGINT, SIGHUP)


class _Launcher:
    """Launches each run of the container; the first one may use what was prepared."""

    __slots__ = ("_holder", "_prepared")

    def __init__(self, prepared: PreparedContainer | None, holder: Holder | None) -> None:
        self._prepared = prepared
        self._holder = holder

    def __call__(self, spec: LaunchSpec, stdio: tuple[int, int, int] | None) -> ContainerRun:
        prepared, self._prepared = self._prepared, None
        if self._holder is None:
            from rootless.monitor.cgroup import Holder

            self._holder = Holder()
        if spec.plan.runtime:
            from rootless.monitor import foreign

            if prepared is not None:
                prepared.close()
            return foreign.launch(spec, stdio, self._holder)
        from rootless.monitor import native

        return native.launch(spec, stdio, prepared, self._holder)

    def hand_over(self) -> str:
        """The scope that this process is in, for the launcher of its next image."""
        return self._holder.scope if self._holder is not None else ""


def _detach() -> None:
    """Leave the caller's session, directory, umask and descriptors.

    A lock that a shell holds by an open descriptor would be held as long as the container runs.
    """
    from rootless.kernel.process import close_range, set_child_subreaper

    if ENGINE_FD > 3:
        close_range(3, ENGINE_FD - 1)
    close_range(ENGINE_FD + 1)
    try:
        os.setsid()
    except PermissionError:
        pass  # already a session leader
    os.chdir("/")
    os.umask(0o077)
    set_child_subreaper()


def _supervisor(prepared: PreparedContainer | None, holder: Holder | None) -> Supervisor:
    loop = Loop()
    supervisor = Supervisor(loop, _Launcher(prepared, holder))
    loop.on_signal(SIGCHLD, supervisor.reap)
    loop.on_signal(SIGTERM, supervisor.stop)
    loop.on_signal(SIGINT, supervisor.stop)
    loop.on_signal(SIGHUP, lambda: None)  # ignoring it would be inherited by the container
    try:
        with open("/proc/self/comm", "w") as file:
            file.write("rootless-mon")
    except OSError:
        pass  # only a name
    return supervisor


def _begin_anew(handover: Handover) -> None:
    """Execute this process's second image. A signal that comes meanwhile waits; returns only when exec fails."""
    import marshal

    from rootless.host.interpreter import worker_command

    if handover.scope and handover.run.helpers:
        from rootless.monitor.cgroup import gather

        gather(handover.scope, handover.run.helpers)
    memory = os.memfd_create("monitor", 0)
    os.write(memory, marshal.dumps(handover.to_json()))
    os.lseek(memory, 0, os.SEEK_SET)
    argv = worker_command("rootless.monitor.main", "resume", str(memory))
    for fd in handover.descriptors():
        os.set_inheritable(fd, True)
    block_signals(_HANDLED)
    try:
        os.execv(argv[0], argv)  # noqa: S606 - no shell is the point
    except OSError:
        unblock_signals(_HANDLED)  # a Python that was upgraded in this second: we go on as we are
        os.close(memory)
        for fd in handover.descriptors():
            os.set_inheritable(fd, False)


def _resume(supervisor: Supervisor, memory: int) -> None:
    """Take over from the first image, which has left what it knew in the file `memory`."""
    import marshal

    from rootless.monitor.adopted import AdoptedRun
    from rootless.monitor.handover import Handover
    from rootless.monitor.launch_spec import LaunchSpec

    with open(memory, "rb") as file:
        content = file.read()
    handover = Handover.from_json(marshal.loads(content))  # noqa: S302 - we wrote it, into memory that has no name
    for fd in handover.descriptors():
        os.set_inheritable(fd, False)
    if handover.scope:
        from rootless.monitor.cgroup import Holder

        supervisor.launcher = _Launcher(None, Holder(handover.scope))
    spec = LaunchSpec(handover.directory, handover.plan)
    supervisor.resume(handover, AdoptedRun(spec, handover.run), spec)
    unblock_signals(_HANDLED)


def main() -> int:
    """Serve one container. Errors of our own go to monitor.log, after the container was ended.

    Arguments: `resume FD` in the second image; `prepare [network]` when there is time to make the usual namespaces
    (and to connect them with the default network).
    """
    arguments = sys.argv[1:]
    resumes = arguments[:1] == ["resume"]
    prepared = holder = None
    if not resumes:
        os.set_inheritable(ENGINE_FD, False)
        _detach()
        if arguments[:1] == ["prepare"]:
            from rootless.monitor.cgroup import Holder
            from rootless.monitor.prepared import prepare

            holder = Holder()
            holder.begin()  # first: systemd works on it while we do the rest
            prepared = prepare(connected=arguments[1:2] == ["network"])
    supervisor = _supervisor(prepared, holder)
    try:
        supervisor.settle = _begin_anew
        if resumes:
            _resume(supervisor, int(arguments[1]))
        else:
            supervisor.clients.add(_socket.socket(fileno=ENGINE_FD))
            from rootless.monitor import native

            native.preload(with_cgroup=holder is None or holder.may_have_group)  # while the engine plans
        while not supervisor.done:
            supervisor.loop.turn()
    except Exception:
        from rootless.monitor.failure import report

        report(supervisor)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
