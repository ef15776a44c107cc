"""Health checks of a running container: when to probe, and what the results mean. A forked child runs the probe.

docker's rules (Dockerfile HEALTHCHECK): "starting" until the first success or until `retries` failures in a row outside
the start period make it "unhealthy"; one success makes it "healthy" again.
"""

from __future__ import annotations

import os
import signal
import time

from rootless.errors import RootlessError
from rootless.monitor.loop import READ, Loop, Timer
from rootless.records.launch import HealthPlan
from rootless.records.state import HealthResult, HealthState, timestamp_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.monitor.launch_spec import LaunchSpec

MAX_OUTPUT = 4096  # bytes kept of a probe's output
MAX_RESULTS = 5
# A probe costs a process. The wait before the next is at least _SHARE times as long as the probe took, but the probe's
# length makes it no longer than _LONGEST_REST seconds: a check every 10 ms cannot take the whole processor
_SHARE = 10
_LONGEST_REST = 1.0
_PROBE_FAILED = 125  # the exit code where the probe could not be run, which a probe itself hardly has


class HealthStatus:
    """The status that the results of probes add up to. Pure.

    retries: failures in a row that make a container unhealthy, 0 means docker's 3; start_period: seconds.
    """

    __slots__ = ("results", "retries", "start_period", "status", "streak")

    def __init__(self, retries: int, start_period: float) -> None:
        self.retries = retries or 3
        self.start_period = start_period
        self.status = "starting"
        self.streak = 0
        self.results: list[HealthResult] = []

    def add(self, result: HealthResult, *, age: float) -> None:
        """Count one probe's result. age: seconds from the container's start to the probe's."""
        self.results = [*self.results[1 - MAX_RESULTS :], result]
        if result.exit_code == 0:
            self.status, self.streak = "healthy", 0
            return
        if self.status == "starting" and age < self.start_period:
            return  # failures of a container that still starts do not count
        self.streak += 1
        if self.streak >= self.retries:
            self.status = "unhealthy"

    def facts(self) -> HealthState:
        """The status and the last results as state.json has them."""
        return HealthState(self.status, self.streak, self.results)


class Health:
    """Probes the container of `pid` again and again until `stop`, and reports the status after each probe."""

    def __init__(self, loop: Loop, spec: LaunchSpec, pid: int, report: Callable[[HealthState], None]) -> None:
        settings = spec.plan.health or HealthPlan([])
        self._loop = loop
        self._spec = spec
        self._pid = pid
        self._report = report
        self._interval = settings.interval
        self._timeout = settings.timeout
        self._start_interval = settings.start_interval
        self._status = HealthStatus(settings.retries, settings.start_period)
        self._argv = _probe_argv(settings)
        self._began = time.monotonic()
        self._rest = 0.0
        self._probe: _Probe | None = None
        self._timer: Timer | None = None
        if self._argv:
            report(self._status.facts())
            self._wait()

    def _wait(self) -> None:
        starting = self._status.status == "starting" and time.monotonic() - self._began < self._status.start_period
        interval = min(self._start_interval, self._interval) if starting else self._interval
        self._timer = self._loop.later(max(interval, self._rest), self._begin)

    def _begin(self) -> None:
        self._probe = _Probe(self._loop, self._spec, self._pid, self._argv)
        self._timer = self._loop.later(self._timeout, self._expired)

    def _expired(self) -> None:
        if self._probe is not None:
            self._probe.kill()
            self._probe.timed_out = True

    def on_child(self, pid: int, exit_code: int) -> None:
        """Take the result if child `pid`, which the monitor reaped, was the probe. exit_code: negative for a signal."""
        probe = self._probe
        if probe is None or pid != probe.pid:
            return
        self._probe = None
        if self._timer is not None:
            self._timer.cancel()
        output = probe.finish()
        if probe.timed_out:
            exit_code = -1
            output = f"Health check exceeded timeout ({self._timeout:g}s)" + (f": {output}" if output else "")
        result = HealthResult(probe.started_at, timestamp_ns(), exit_code, output)
        self._rest = min(_SHARE * (time.monotonic() - probe.began), _LONGEST_REST)
        self._status.add(result, age=probe.began - self._began)
        self._report(self._status.facts())
        self._wait()

    def stop(self) -> None:
        """Kill a probe that still runs, and begin no other, for the container has ended."""
        if self._timer is not None:
            self._timer.cancel()
        if self._probe is not None:
            self._probe.kill()
            self._probe.finish()
            self._probe = None


class _Probe:
    """One run of the probe: a child of the monitor that joins the container, and the pipe of the probe's output."""

    def __init__(self, loop: Loop, spec: LaunchSpec, pid: int, argv: list[str]) -> None:
        self._loop = loop
        self.timed_out = False
        self.began = time.monotonic()
        self.started_at = timestamp_ns()
        self._output = bytearray()
        self._inner: list[int] = []
        self._fd, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        told, tell = os.pipe2(os.O_CLOEXEC)
        monitor = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _run_probe(spec, (monitor, pid), argv, (write, tell))
        os.close(write)
        os.close(tell)
        self._told = told
        loop.watch(self._fd, READ, lambda _: self._read())
        loop.watch(told, READ, lambda _: self._hear())

    def _hear(self) -> None:
        """Read the pid of the process inside, which the child sends when it has joined."""
        text = os.read(self._told, 32)
        self._inner += [int(word) for word in text.split()]
        if self.timed_out:
            self.kill()
        self._loop.forget(self._told)

    def _read(self) -> None:
        try:
            chunk = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        self._output += chunk[: MAX_OUTPUT - len(self._output)]
        if not chunk:
            self._loop.forget(self._fd)

    def kill(self) -> None:
        """Kill the probe with its whole process group in the container.

        The child that waits for the probe ends by that. It is killed itself only while it has not sent the probe's pid:
        what it is about to start dies with it (PDEATHSIG).
        """
        for inner in self._inner:
            for end in (os.killpg, os.kill):
                try:
                    end(inner, signal.SIGKILL)
                except OSError:
                    pass
        if not self._inner:
            os.kill(self.pid, signal.SIGKILL)

    def finish(self) -> str:
        """Close the pipes, and return the output, at most MAX_OUTPUT bytes of it."""
        self._read()
        for fd in (self._fd, self._told):
            self._loop.forget(fd)
            os.close(fd)
        return self._output.decode(errors="replace")


def _probe_argv(settings: HealthPlan) -> list[str]:
    """The command of a HEALTHCHECK test; empty for NONE, and for a test without a command."""
    test = settings.test
    if not test or test[0] == "NONE":
        return []
    if test[0] == "CMD":
        return test[1:]
    if test[0] == "CMD-SHELL":
        return [*settings.shell, test[1]] if len(test) > 1 else []
    return test


def _run_probe(spec: LaunchSpec, pids: tuple[int, int], argv: list[str], fds: tuple[int, int]) -> None:
    """In the forked child: join the container, run `argv` there and exit with its status.

    pids: of the monitor, and of the container's first process; fds: the pipe of the output, and that of the pid inside.
    """
    output, tell = fds
    code = _PROBE_FAILED
    try:
        from rootless.kernel.process import set_pdeathsig

        signal.set_wakeup_fd(-1)  # the pipe is the monitor's: a signal here would wake its loop for one of its own
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        set_pdeathsig(signal.SIGKILL)
        # A monitor that ended before the call above sends no signal: the parent is then another process
        if os.getppid() != pids[0]:
            os._exit(code)
        os.set_blocking(output, True)
        from rootless.monitor.native import start_beside

        process = start_beside(spec, pids[1], argv, output)
        os.write(tell, b"%d" % process.pid)
        os.close(tell)
        os.close(output)
        code = process.wait()
    except RootlessError as e:
        code = e.exit_code
        os.write(output, f"{e}".encode()[:MAX_OUTPUT])
    except BaseException as e:
        os.write(output, repr(e).encode()[:MAX_OUTPUT])
    finally:
        os._exit(code)
