"""The life of one container under its monitor: launch, run, end, restart or remove, and what clients are told.

The supervisor decides the order of these steps; how to launch, pump, probe and remove is elsewhere. Everything here
runs in one event loop, so nothing needs a lock and nothing may block.
"""

from __future__ import annotations

import fcntl
import os
import time

from rootless.errors import InvalidState, RootlessError
from rootless.monitor import protocol, state, stop_request
from rootless.monitor.clients import Client, Clients
from rootless.monitor.launch_spec import LaunchSpec, RestartPolicy, read_spec
from rootless.monitor.logfile import LogFile, NoLog, open_log
from rootless.monitor.loop import READ, SIGKILL, SIGNAL_NUMBERS, Loop, Timer, send_signal
from rootless.monitor.pump import Pump, make_pipes
from rootless.paths import ensure_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.monitor.container_run import ContainerRun, Launcher
    from rootless.monitor.handover import Handover
    from rootless.monitor.health import Health
    from rootless.monitor.memory import MemoryWatch
    from rootless.monitor.network_repair import NetworkRepair, NetworkWatch

# Seconds for the output of processes that outlive the first one. The kernel kills all of a pid namespace with its first
# process, so only a container in another's pid namespace has such processes
_GRACE = 0.5
_LOCK_ATTEMPTS = 10  # at the lock of a container, before another monitor is taken for its holder
_LOCK_PAUSE = 0.01  # seconds between two of them
_SETTLE = 1.0  # seconds after the start at which memory that only starting needs is given back
_SETTLE_AGAIN = 30.0  # seconds until the next attempt at that, where clients are attached


class Supervisor:
    """Serves one container from LAUNCH to its end; `done` says when the process may leave."""

    def __init__(self, loop: Loop, launcher: Launcher) -> None:
        self.loop = loop
        self.launcher = launcher
        self.clients = Clients(loop, self)
        self.done = False
        self.directory: str | None = None
        self.settle: Callable[[Handover], None] | None = None  # executes the process anew; returns when that failed
        self._spec: LaunchSpec | None = None
        self._state: state.State | None = None
        self._log: LogFile | NoLog = NoLog()
        self._lock = -1
        self._policy = RestartPolicy()
        self._run: ContainerRun | None = None
        self._closing_run: ContainerRun | None = None
        self._pump = Pump(self._output_ended)
        self._size = (0, 0)
        self._health: Health | None = None
        self._memory: MemoryWatch | None = None
        self._repair: NetworkRepair | None = None
        self._networks: NetworkWatch | None = None
        self._began = 0.0
        self._exit_code: int | None = None  # that of an ended run whose output is still being read
        self._stopping = False
        self._timer: Timer | None = None
        self._leaving = False

    # The methods that `Clients` calls

    def on_launch(self, client: Client, request: protocol.LaunchRequest) -> None:
        """Launch the container that the engine asks for with its first frame."""
        if self.directory is not None:
            return  # one monitor serves one container, whose lock and log a second LAUNCH would replace
        self.directory = request.directory
        if request.attach is not None:
            self.clients.attach(client, request.attach)
        try:
            self._begin(self.directory)
        except (RootlessError, OSError) as e:
            self.clients.tell_all(protocol.error_message(_as_ours(e, self.directory)))
            self._leave()
            return
        self._launch()

    def on_attached(self, client: Client) -> None:
        """Answer a client that attaches to a container which runs, or waits for its next start (pid 0)."""
        run = self._run
        self.clients.send(client, protocol.encode_message(protocol.StartNotice(run.pid if run else 0)))

    def on_stdin(self, typed: bytes) -> None:
        """Pass bytes that a client sends to the container's stdin, where that is open."""
        if self._pump.input is not None and self._spec is not None and self._spec.plan.open_stdin:
            self._pump.input.write(typed)

    def on_stdin_end(self, client: Client, *, has_left: bool) -> None:
        """Close the container's stdin when a client sends no more or has left, where docker's StdinOnce asks for that.

        A client that leaves a terminal has detached, and may come back: the container does not get EOF.
        """
        client.wants_stdin = False
        spec = self._spec
        if spec is not None and spec.plan.stdin_once and not (has_left and spec.plan.terminal):
            self._pump.end_input()

    def on_resize(self, rows: int, cols: int) -> None:
        """Give the container's terminal, and those of its later runs, the size of a client's terminal."""
        self._size = (rows, cols)
        self._pump.resize(rows, cols)

    def on_kill(self, number: int) -> None:
        """Send the container a signal that a client passes on; a number that is none is dropped."""
        if number in SIGNAL_NUMBERS:
            self._send_signal(number)

    def on_network(self, client: Client, request: protocol.NetworkRequest) -> None:
        """Put the container on a network with a name, or let it leave one, and answer the client."""
        try:
            if self._run is None or self._networks is None:
                raise InvalidState("the container is on no network with a name, or does not run")
            warnings = self._networks.change(request)
        except (RootlessError, OSError) as e:
            self.clients.send(client, protocol.error_message(_as_ours(e, self.directory or "")))
            return
        self.clients.send(client, protocol.encode_message(protocol.StartNotice(self._run.pid, warnings)))

    def on_drained(self) -> None:
        """Read the container again when a client has caught up or left; end when the last one has."""
        self._pump.resume()
        if self._leaving:
            self._leave()
        elif self.directory is None and not len(self.clients):
            self.done = True  # the engine went away before it had something to launch

    # The life of the container

    def _begin(self, directory: str) -> None:
        self._lock = _take_lock(directory)
        spec = self._spec = read_spec(directory)
        self._state = state.State(directory)
        self._log = open_log(spec.plan.log)
        self._policy = RestartPolicy(spec.plan.restart.name, spec.plan.restart.maximum_retry_count)
        ensure_private(spec.runtime_dir)
        self.clients.listen(spec.socket_path)

    def _launch(self) -> None:
        spec, tracked = self._facts()
        self._timer = None
        self._exit_code = None
        pump = self._pump = Pump(self._output_ended)
        pump.size = self._size
        ours: tuple[int, int, int] | None = None
        theirs: tuple[int, int, int] | None = None
        run = None
        try:
            if not spec.plan.terminal:
                ours, theirs = make_pipes(open_stdin=spec.plan.open_stdin)
            run = self.launcher(spec, theirs)
            if run.console_fd is not None:
                pump.use_terminal(self.loop, self.clients, self._log, run.console_fd)
            elif ours is not None:
                pump.use_pipes(self.loop, self.clients, self._log, ours)
                ours = None
            run.start()
        except RootlessError as e:
            if run is not None:
                run.close()
            pump.end()
            self._failed(e)
            return
        finally:
            # The container has its own copies by now: with one that stayed open here its output would have no end
            for fd in (*(ours or ()), *(theirs or ())):
                if fd >= 0:
                    os.close(fd)
        self._run = run
        self._began = time.monotonic()
        tracked.facts.namespaces = run.namespaces
        if spec.plan.health is not None and spec.plan.health.test:
            from rootless.monitor.health import Health

            self._health = Health(self.loop, spec, run.pid, lambda result: state.note_health(spec, tracked, result))
        tracked.started(run.pid, helpers=run.helpers(), network=run.network, group=run.group)
        self._memory = state.watch_memory(self.loop, spec, tracked, run.group)
        for attachment in run.network.attachments:
            state.record_network_event(spec, "connect", attachment)
        state.record_event(spec, "start")
        self.clients.tell_all(protocol.encode_message(protocol.StartNotice(run.pid, spec.warnings)))
        self.loop.watch(run.pidfd, READ, lambda _: self._ended())
        self._watch_networks(run, spec, tracked)
        if self.settle is not None:
            self.loop.later(_SETTLE, self._settle)

    def _settle(self) -> None:
        """Let this process begin anew, without the modules that only the start of the container needed."""
        handover = self._hand_over()
        if handover is not None and self.settle is not None:
            self.settle(handover)
        elif self._run is not None and len(self.clients):
            self.loop.later(_SETTLE_AGAIN, self._settle)

    def _hand_over(self) -> Handover | None:
        """Everything that `resume` needs. None while a client is attached, or bytes, timers, a health check or a repair
        of the network are pending: an execve would lose them."""
        spec, tracked = self._facts()
        run, streams = self._run, self._pump.hand_over()
        if run is None or streams is None or self._stopping or self._timer or self._health or len(self.clients):
            return None
        if (self._repair is not None and self._repair.is_busy) or (
            self._networks is not None and self._networks.is_busy
        ):
            return None
        run_handover = run.hand_over()
        if run_handover is None:
            return None
        from rootless.monitor.handover import Handover

        handover = Handover(spec.directory, spec.plan, tracked.facts)
        handover.restarts, handover.delay = self._policy.count, self._policy.delay
        handover.began = self._began
        handover.size = self._size
        handover.scope = self.launcher.hand_over()
        handover.lock = self._lock
        handover.listener = self.clients.listener_fd
        handover.streams = streams
        handover.run = run_handover
        return handover

    def resume(self, handover: Handover, run: ContainerRun, spec: LaunchSpec) -> None:
        """Go on where an earlier image of this process has stopped."""
        self.directory = spec.directory
        self._spec = spec
        self._state = state.State(spec.directory, handover.state)
        self._log = open_log(spec.plan.log)
        self._policy = RestartPolicy(spec.plan.restart.name, spec.plan.restart.maximum_retry_count)
        self._policy.resume(handover.restarts, handover.delay)
        self._began = handover.began
        self._size = handover.size
        self._lock = handover.lock
        self._run = run
        self._memory = state.watch_memory(self.loop, spec, self._state, run.group)
        self._pump.size = self._size
        self._pump.resume_from(self.loop, self.clients, self._log, handover.streams)
        self.clients.adopt_listener(spec.socket_path, handover.listener)
        self.loop.watch(run.pidfd, READ, lambda _: self._ended())
        self._watch_networks(run, spec, self._state)
        self.reap()  # SIGCHLD of several children is one signal: those that ended before this image are looked for

    def _failed(self, error: RootlessError) -> None:
        """Record a launch that did not reach execve. As in docker the container stays, with the error in its state."""
        spec, tracked = self._facts()
        first = self._policy.count == 0
        tracked.ended("created" if first else "exited", error.exit_code, error=error.message)
        try:
            if spec.plan.remove is not None:
                spec.remove_container()
        except RootlessError as e:
            state.add_note(spec.directory, f"cannot remove the container: {e}")
        self.clients.tell_all(protocol.error_message(error))
        self._leave()

    def reap(self) -> None:
        """Reap the children that have ended, among them orphans that the kernel gave to this subreaper.

        WNOWAIT only looks: the status of the container's first process is left for `run.wait`. Any other number is
        reaped, and dropped by all who know it before other code runs, so that nobody signals its next owner.
        """
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            if self._run is not None and pid == self._run.pid:
                self._ended()
                continue
            _, status = os.waitpid(pid, 0)
            if self._repair is not None:
                self._repair.forget(pid)
            if (run := self._run or self._closing_run) is not None:
                last_words = run.forget(pid)
                if last_words is not None and run is self._run:
                    self._network_lost(run, last_words)
            if self._health is not None:
                self._health.on_child(pid, os.waitstatus_to_exitcode(status))

    def _watch_networks(self, run: ContainerRun, spec: LaunchSpec, tracked: state.State) -> None:
        """Notice the end of the process that serves the networks of a container which is on some."""
        if run.connection >= 0:
            from rootless.monitor.network_repair import NetworkWatch

            self._networks = NetworkWatch(self.loop, spec, tracked, run, self._settle)

    def _network_lost(self, run: ContainerRun, last_words: str) -> None:
        """Start another network helper, for that of a running container has ended."""
        if self._repair is None:
            from rootless.monitor.network_repair import NetworkRepair

            spec, tracked = self._facts()
            self._repair = NetworkRepair(self.loop, spec, tracked, run, self._settle)
        self._repair.begin(last_words)

    def _ended(self) -> None:
        """End the run whose first process has ended, and read the output that is left in its pipes."""
        run, pump = self._run, self._pump
        if run is None:
            return
        self._run = None
        self.loop.forget(run.pidfd)
        self._cancel_timer()
        if self._repair is not None:
            self._repair.end()
            self._repair = None
        if self._networks is not None:
            self._networks.end()
            self._networks = None
        if self._health is not None:
            self._health.stop()
            self._health = None
        self._exit_code = run.wait()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        spec, tracked = self._facts()
        namespaces = tracked.facts.namespaces
        if namespaces is not None and namespaces.shares_processes:
            from rootless.monitor.leftovers import end_leftovers

            if run.group is not None:
                run.group.kill()
            tracked.facts.helpers = run.helpers()
            end_leftovers(spec.directory, tracked.facts, is_certain=True)
        self._closing_run = run
        pump.release()
        if pump.drain():
            self._finish()
        else:
            self._timer = self.loop.later(_GRACE, self._finish)

    def _output_ended(self) -> None:
        if self._exit_code is not None and all(output.fd < 0 for output in self._pump.outputs):
            # The call comes from the loop, because this one may come from a read of the stream that `_finish` closes
            self._cancel_timer()
            self._timer = self.loop.later(0, self._finish)

    def _finish(self) -> None:
        """Record the exit of a run whose output is read, clean up, and start again or leave.

        The exit code is written before the clean-up, which may take long or fail: a monitor that is killed meanwhile
        has told it. The lock is let go before clients hear EXIT, for one that hears it may start or remove at once.
        """
        spec, tracked = self._facts()
        self._cancel_timer()
        code, run = self._exit_code, self._closing_run
        if code is None or run is None:
            return
        self._exit_code = None
        self._pump.end()
        if self._log.lost:
            state.add_note(spec.directory, f"{self._log.lost} writes to the log failed")
            self._log.lost = 0
        stop_requested = self._stopping or stop_request.is_stop_requested(spec.directory)
        ran_for = time.monotonic() - self._began
        restart = spec.now().restart
        self._policy.change(restart.name, restart.maximum_retry_count)
        delay = self._policy.next_delay(code, ran_for, stop_requested=stop_requested)
        tracked.facts.restart_count = self._policy.count
        tracked.ended("exited" if delay is None else "restarting", code)
        self._closing_run = None
        state.record_event(spec, "die", exitCode=str(code), execDuration=str(int(ran_for)))
        removes = delay is None and spec.plan.remove is not None
        try:
            run.close(remove=removes)
        except RootlessError as e:
            state.add_note(spec.directory, f"cannot clean up: {e}")
        if removes:
            state.record_event(spec, "destroy")
        if delay is not None:
            spec.plan.seed_volumes = []  # as with docker, what a run has deleted from a volume does not come back
            self.clients.tell_all(protocol.encode_message(protocol.ExitNotice(code)))
            self._timer = self.loop.later(delay, self._launch)
            return
        self._release()
        self.clients.tell_all(protocol.encode_message(protocol.ExitNotice(code)))
        self._leave()

    def stop(self) -> None:
        """End the container for a SIGTERM to the monitor: its stop signal, SIGKILL after its timeout, no restart."""
        self._stopping = True
        if self._spec is None or self.directory is None:
            self.done = True
            return
        if self._run is None:
            if self._exit_code is None and not self._leaving:
                self._abandon_restart()
            return
        self._send_signal(self._spec.plan.stop_signal)
        if self._spec.stop_timeout is not None and self._timer is None:
            self._timer = self.loop.later(self._spec.stop_timeout, lambda: self._send_signal(SIGKILL))

    def _abandon_restart(self) -> None:
        """End a container that waits for its next start and will not get it."""
        spec, tracked = self._facts()
        self._cancel_timer()
        tracked.abandoned()
        if spec.plan.remove is not None:
            try:
                spec.remove_container()
            except RootlessError as e:
                state.add_note(spec.directory, f"cannot remove the container: {e}")
        self._release()
        self.clients.tell_all(protocol.encode_message(protocol.ExitNotice(tracked.facts.exit_code)))
        self._leave()

    def kill(self) -> None:
        """End the container now, whatever its state, for the monitor itself has failed."""
        self._send_signal(SIGKILL)

    def _send_signal(self, number: int) -> None:
        if self._run is not None:
            try:
                send_signal(self._run.pidfd, number)
            except ProcessLookupError:
                pass  # the process has just ended, which the loop will see
            except OSError as e:
                state.add_note(self.directory or "/nonexistent", f"cannot send signal {number}: {e.strerror}")

    def _release(self) -> None:
        """Let go of socket, log and lock: a next monitor may start, though clients still read from this one."""
        self.clients.stop_listening()
        self._log.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _leave(self) -> None:
        """End as soon as every client has been sent everything. A client that never reads keeps this process, and no
        more than that: the lock is let go of."""
        self._leaving = True
        self._release()
        self.done = not self.clients.are_behind()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _facts(self) -> tuple[LaunchSpec, state.State]:
        if self._spec is None or self._state is None:
            raise InvalidState("no container was launched")
        return self._spec, self._state


def _as_ours(error: RootlessError | OSError, directory: str) -> RootlessError:
    """`error` as a client is told it: one of the kernel's becomes an error that names the file and the reason."""
    if isinstance(error, RootlessError):
        return error
    from rootless.host.full import full_error

    return full_error(f"cannot make '{error.filename or directory}' for the container", error, directory)


def _take_lock(directory: str) -> int:
    """Take the lock that a monitor holds all its life: whoever has it runs the container.

    Returns its descriptor. Raises InvalidState where another monitor has it, HostLimit where it cannot be made.
    flock(2) belongs to the open file, so the lock survives this process's execve; a forked child that kept the
    descriptor would hold it too, and make a dead monitor look alive.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(f"{directory}/monitor.lock", flags, 0o600)
    except OSError as e:
        from rootless.host.full import full_error

        raise full_error(f"cannot lock '{directory}'", e, directory) from e
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except OSError as e:
            if attempt == _LOCK_ATTEMPTS - 1:
                os.close(fd)
                raise InvalidState(f"container '{os.path.basename(directory)[:12]}' is already running") from e
        # Who asks whether a monitor lives (reap.is_supervised) holds the lock for an instant, and is no monitor
        time.sleep(_LOCK_PAUSE)
    raise AssertionError("the last attempt returns or raises")
