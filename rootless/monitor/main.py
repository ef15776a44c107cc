"""Entry point of the monitor process: detaches itself, serves fd 3 and the socket until the container is gone.

Started as a fresh interpreter by the engine (rootless.engine.attach_client.spawn_monitor), with few imports.
"""

from __future__ import annotations

import os
import signal
import socket

from rootless.kernel.process import set_child_subreaper, set_name
from rootless.monitor import protocol, state
from rootless.monitor.logfile import timestamp
from rootless.monitor.loop import Loop
from rootless.monitor.supervise import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.monitor.spec import LaunchSpec
    from rootless.monitor.supervise import Run

ENGINE_FD = 3


def _launch(spec: LaunchSpec, stdio: tuple[int, int, int] | None) -> Run:
    if spec.runtime:
        from rootless.monitor import foreign

        return foreign.launch(spec, stdio)
    from rootless.monitor import native

    return native.launch(spec, stdio)


def _detach() -> None:
    """Leave the caller's session, terminal, directory and umask."""
    try:
        os.setsid()
    except PermissionError:
        pass  # already a session leader
    os.chdir("/")
    os.umask(0o077)
    set_child_subreaper()
    set_name("rootless-mon")


def _settle() -> None:
    """The container runs and may do so for months: give back what only starting it needed."""
    import gc

    from rootless.kernel.libc import libc

    gc.collect()
    try:
        libc.malloc_trim(0)
    except AttributeError:
        pass  # not glibc


def main() -> int:
    """Serve one container. Errors of our own go to monitor.log, after the container was ended."""
    connection = socket.socket(fileno=ENGINE_FD)
    os.set_inheritable(ENGINE_FD, False)
    _detach()
    loop = Loop()
    supervisor = Supervisor(loop, _launch)
    supervisor.settle = _settle
    loop.on_signal(signal.SIGCHLD, supervisor.reap)
    loop.on_signal(signal.SIGTERM, supervisor.stop)
    loop.on_signal(signal.SIGINT, supervisor.stop)
    loop.on_signal(signal.SIGHUP, lambda: None)  # SIG_IGN would be inherited by the container
    supervisor.clients.add(connection)
    try:
        # the engine plans meanwhile
        from rootless.monitor import native

        native.preload()
        while not supervisor.done:
            loop.turn()
    except Exception:
        import traceback

        text = traceback.format_exc()
        supervisor.kill()
        if supervisor.directory is not None:
            state.note(supervisor.directory, text)
            fields = state.read(supervisor.directory)
            if fields is not None:
                last = text.strip().splitlines()[-1]
                fields.update(status="exited", pid=0, exit_code=137, error=f"monitor failed: {last}")
                fields["finished_at"] = timestamp()
                state.write(supervisor.directory, fields)
        supervisor.clients.tell_all(
            protocol.message(
                protocol.ERROR,
                message="the container's monitor failed",
                hint="see monitor.log in the container's directory, and report it",
                exit_code=125,
            )
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
