"""Entry point of the monitor process, which detaches itself and serves fd 3 and its socket until the container ends.

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
    from rootless.monitor.container_run import ContainerRun
    from rootless.monitor.handover import Handover
    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.monitor.prepared import PreparedContainer

ENGINE_FD = 3
_HANDLED = (SIGCHLD, SIGTERM, SIGINT, SIGHUP)


class _Launcher:
    """Launches each run of the container; the first run may use the namespaces and the scope that were prepared."""

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
            return foreign.launch_container(spec, stdio, self._holder)
        from rootless.monitor import native

        return native.launch_container(spec, stdio, prepared, self._holder)

    def hand_over(self) -> str:
        """The directory of the systemd scope that this process is in, for the next image's launcher; "" without one."""
        return self._holder.scope if self._holder is not None else ""


def _detach() -> None:
    """Leave the caller's session, directory, umask and descriptors.

    The monitor lives as long as the container. A lock that the caller's shell holds by an open descriptor, a pipe whose
    reader waits for its end, and a file system that is to be unmounted would all be kept until then.
    """
    from rootless.kernel.process import close_range, set_child_subreaper

    if ENGINE_FD > 3:
        close_range(3, ENGINE_FD - 1)
    close_range(ENGINE_FD + 1)
    try:
        os.setsid()
    except PermissionError:
        pass  # setsid(2) refuses a process that leads a group already, which is as detached as we want to be
    os.chdir("/")
    os.umask(0o077)  # what the monitor makes, its socket above all, is for its user alone
    # Orphans below us become our children, and not init's: without that nobody could wait for the first process of a
    # container whose runtime (`--runtime crun`) forks it and exits. The mark outlives execve(2), not fork(2)
    set_child_subreaper()


def _supervisor(prepared: PreparedContainer | None, holder: Holder | None) -> Supervisor:
    loop = Loop()
    supervisor = Supervisor(loop, _Launcher(prepared, holder))
    loop.on_signal(SIGCHLD, supervisor.reap)
    loop.on_signal(SIGTERM, supervisor.stop)
    loop.on_signal(SIGINT, supervisor.stop)
    loop.on_signal(SIGHUP, lambda: None)  # SIG_IGN would survive execve(2) and reach the container; a handler does not
    try:
        with open("/proc/self/comm", "w") as file:
            file.write("rootless-mon")
    except OSError:
        pass  # the name serves people who read `ps`; the container runs without it as well
    return supervisor


def _begin_anew(handover: Handover) -> None:
    """Execute this process's second image; return only when execve(2) fails.

    execve resets every handler, and until the second image has installed its own a SIGTERM would kill the monitor, and
    a SIGCHLD would be lost. Both are blocked: the mask and what is pending survive execve, and `_resume` unblocks them.
    """
    import marshal

    from rootless.host.interpreter import worker_command

    if handover.scope and handover.run.helpers:
        from rootless.monitor.cgroup import attach_helpers

        attach_helpers(handover.scope, handover.run.helpers)
    memory = os.memfd_create("monitor", 0)  # without MFD_CLOEXEC, so that the second image finds it open
    os.write(memory, marshal.dumps(handover.to_json()))
    os.lseek(memory, 0, os.SEEK_SET)
    argv = worker_command("rootless.monitor.main", "resume", str(memory))
    for fd in handover.descriptors():
        os.set_inheritable(fd, True)
    block_signals(_HANDLED)
    try:
        os.execv(argv[0], argv)  # noqa: S606 - no shell is the point
    except OSError:
        unblock_signals(_HANDLED)  # the interpreter was replaced in this second: this image goes on
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
    handover = Handover.from_json(marshal.loads(content))  # noqa: S302 - this process wrote it, without a name
    for fd in handover.descriptors():
        os.set_inheritable(fd, False)
    if handover.scope:
        from rootless.monitor.cgroup import Holder

        supervisor.launcher = _Launcher(None, Holder(handover.scope))
    spec = LaunchSpec(handover.directory, handover.plan)
    supervisor.resume(handover, AdoptedRun(spec, handover.run), spec)
    unblock_signals(_HANDLED)


def main() -> int:
    """Serve one container; return the exit code of this process. An error of the monitor's own ends the container first
    and then goes to monitor.log: a container that nobody supervises has no log, no exit code and no end.

    Arguments: `resume FD` in the second image; `prepare [network]` when there is time to make the usual namespaces
    (and to connect them with the default network).
    """
    arguments = sys.argv[1:]
    resumes = arguments[:1] == ["resume"]
    prepared = holder = None
    if not resumes:
        os.set_inheritable(ENGINE_FD, False)  # a copy in a helper would keep the engine from seeing this end close
        _detach()
        if arguments[:1] == ["prepare"]:
            from rootless.monitor.cgroup import Holder
            from rootless.monitor.prepared import prepare_namespaces

            holder = Holder()
            holder.begin()  # before `prepare_namespaces`: systemd makes the scope while the namespaces are made
            prepared = prepare_namespaces(connected=arguments[1:2] == ["network"])
    supervisor = _supervisor(prepared, holder)
    try:
        supervisor.settle = _begin_anew
        if resumes:
            _resume(supervisor, int(arguments[1]))
        else:
            supervisor.clients.add(_socket.socket(fileno=ENGINE_FD))
            from rootless.monitor import native

            native.preload_modules(with_cgroup=holder is None or holder.may_have_group)  # the engine plans meanwhile
        while not supervisor.done:
            supervisor.loop.turn()
    except Exception:
        from rootless.monitor.failure import report_failure

        report_failure(supervisor)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
