"""What a monitor tells of its container: state.json, monitor.log and events. Only it (or `reap`) writes them."""

from __future__ import annotations

import errno
import os

from rootless.errors import InvalidInput
from rootless.records.fields import parse_json
from rootless.records.state import NEVER, ContainerState, HealthState, NetworkFacts, timestamp_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.monitor.cgroup import AnyGroup
    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.monitor.loop import Loop
    from rootless.monitor.memory import MemoryWatch

_MAX_NOTES = 1 << 16  # bytes of monitor.log


def read(directory: str) -> ContainerState | None:
    """The state in `directory`; None when there is none that we can read."""
    path = f"{directory}/state.json"
    try:
        with open(path, "rb") as file:
            return ContainerState.from_json(parse_json(file.read(1 << 20)), path)
    except (OSError, ValueError, InvalidInput):
        return None


def write(directory: str, facts: ContainerState) -> None:
    """Replace the state; not durable: after a power cut nothing of it is true anyway.

    On a full disk, which has no room for a second file, the old one is written over, so that an exit code is not lost
    there. Raises OSError when that has no room either.
    """
    import json

    from rootless.paths import atomic_write, overwrite_file

    path = f"{directory}/state.json"
    content = json.dumps(facts.to_json(), separators=(",", ":")).encode()
    try:
        atomic_write(path, content, durable=False)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        overwrite_file(path, content)


def note(directory: str, text: str) -> None:
    """Append to monitor.log, the monitor's own complaints; bounded, and silent when even that fails."""
    try:
        path = f"{directory}/monitor.log"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size < _MAX_NOTES:
                os.write(fd, f"{timestamp_ns()} {text}\n".encode(errors="replace")[:8192])
        finally:
            os.close(fd)
    except OSError:
        pass


class State:
    """The state while a monitor lives: whoever changes `facts` calls `save`.

    known: the facts, where an earlier image of this process has gathered them.
    """

    __slots__ = ("directory", "facts")

    def __init__(self, directory: str, known: ContainerState | None = None) -> None:
        self.directory = directory
        if known is not None:
            self.facts = known
            return
        from rootless.kernel import procfs

        self.facts = ContainerState()
        self.facts.monitor_pid = os.getpid()
        self.facts.monitor_start = procfs.start_time(self.facts.monitor_pid)
        self.facts.host = os.uname().nodename
        self.facts.boot_id = procfs.boot_id()
        earlier = read(directory)
        if earlier is not None:  # a container that fails to start again keeps the times of its last run
            self.facts.started_at = earlier.started_at or NEVER
            self.facts.finished_at = earlier.finished_at or NEVER

    def save(self) -> None:
        """Write the facts. A full disk must not end the container: the failure is noted, and they are written later."""
        try:
            write(self.directory, self.facts)
        except OSError as e:
            note(self.directory, f"cannot write state.json: {e.strerror}")

    def started(
        self, pid: int, *, helpers: list[tuple[int, int]], network: NetworkFacts, group: AnyGroup | None = None
    ) -> None:
        """The container runs. helpers: (pid, start time) of the processes that die with it; group: its cgroup."""
        from rootless.kernel import procfs

        facts = self.facts
        facts.status = "running"
        facts.pid = pid
        facts.pid_start = procfs.start_time(pid)
        facts.started_at = timestamp_ns()
        facts.finished_at = NEVER
        facts.exit_code = 0
        facts.error = ""
        facts.oom_killed = False
        facts.helpers = helpers
        facts.network = network
        facts.cgroup = None if group is None else group.to_json()
        self.save()

    def ended(self, status: str, exit_code: int, *, error: str = "") -> None:
        """The container does not run: "exited", "restarting", or "created" when it could not start."""
        if status != "created":
            self.facts.finished_at = timestamp_ns()
        end(self.facts, status, exit_code, error)
        self.save()

    def abandoned(self) -> None:
        """The container waited for its next start, and will not get it."""
        self.facts.status = "exited"
        self.save()

    def has_health(self, health: HealthState) -> None:
        """A health check has a result."""
        self.facts.health = health
        self.save()

    def ran_out_of_memory(self) -> None:
        """The kernel killed a process of the container for its limit."""
        self.facts.oom_killed = True
        self.save()


def end(facts: ContainerState, status: str, exit_code: int, error: str) -> None:
    """Note in `facts` that the container has no processes, helpers and cgroup any more."""
    facts.status = status
    facts.pid = facts.pid_start = 0
    facts.exit_code = exit_code
    facts.error = error
    facts.helpers = []
    facts.cgroup = None
    facts.namespaces = None


def record_event(spec: LaunchSpec, action: str, **attributes: str) -> None:
    """One event of the container; launch.json's "events" is {"log", "attributes"}, without it nothing is written."""
    if spec.plan.events is None:
        return
    from rootless.storage.store import eventlog

    known = spec.plan.events.attributes
    entry = eventlog.EventEntry("container", action, spec.id, {**known, **attributes})
    eventlog.append(spec.plan.events.log, entry)


def note_health(spec: LaunchSpec, tracked: State, result: HealthState) -> None:
    """A health check has a result; only a changed status is an event."""
    before = tracked.facts.health
    tracked.has_health(result)
    if before is not None and before.status != result.status:
        record_event(spec, f"health_status: {result.status}")


def watch_memory(loop: Loop, spec: LaunchSpec, tracked: State, group: AnyGroup | None) -> MemoryWatch | None:
    """Note when the container runs out of memory; None without a cgroup."""
    if group is None:
        return None
    from rootless.monitor.memory import MemoryWatch

    def report() -> None:
        tracked.ran_out_of_memory()
        record_event(spec, "oom")

    return MemoryWatch(loop, group, report, is_reported=tracked.facts.oom_killed)
