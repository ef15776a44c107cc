"""What a monitor tells of its container: state.json, monitor.log and events. Only the monitor and `reap` write them."""

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
    from rootless.records.membership import Attachment

_MAX_NOTES = 1 << 16  # bytes of monitor.log


def read_state(directory: str) -> ContainerState | None:
    """The state in the container's `directory`; None when no state can be read there."""
    path = f"{directory}/state.json"
    try:
        with open(path, "rb") as file:
            return ContainerState.from_json(parse_json(file.read(1 << 20)), path)
    except (OSError, ValueError, InvalidInput):
        return None


def write_state(directory: str, facts: ContainerState) -> None:
    """Replace state.json, so that a reader sees either the earlier state or the new one. Raises OSError.

    There is no fsync: after a power cut no container runs, and the boot id in whatever file is found says so. A full
    disk has no room for the second file of a replacement. There the old file is written over in its place, so that an
    exit code is not lost, and the error of that is raised.
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


def add_note(directory: str, text: str) -> None:
    """Append `text` to monitor.log, the monitor's own complaints.

    The file is bounded: a fault that repeats must not fill the disk. An error of writing is ignored, for there is no
    other place to report it.
    """
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
    """The container's state while its monitor lives: whoever changes `facts` calls `save`.

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
        earlier = read_state(directory)
        if earlier is not None:  # a start that fails must not erase when the last run was
            self.facts.started_at = earlier.started_at or NEVER
            self.facts.finished_at = earlier.finished_at or NEVER

    def save(self) -> None:
        """Write the facts. An error (a full disk) must not end the container: it is noted, and the next save tries."""
        try:
            write_state(self.directory, self.facts)
        except OSError as e:
            add_note(self.directory, f"cannot write state.json: {e.strerror}")

    def started(
        self, pid: int, *, helpers: list[tuple[int, int]], network: NetworkFacts, group: AnyGroup | None = None
    ) -> None:
        """Record that the container runs. pid: its first process; helpers: (pid, start time) of the processes that die
        with it; group: its cgroup, None without."""
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
        """Record that the container does not run. status: "exited", "restarting", or "created" when it never began."""
        if status != "created":
            self.facts.finished_at = timestamp_ns()
        mark_ended(self.facts, status, exit_code, error)
        self.save()

    def abandoned(self) -> None:
        """Record that the container, which waited for its next start, will not get it."""
        self.facts.status = "exited"
        self.save()

    def has_health(self, health: HealthState) -> None:
        """Record the result of a health check."""
        self.facts.health = health
        self.save()

    def ran_out_of_memory(self) -> None:
        """Record that the kernel killed a process of the container for its memory limit."""
        self.facts.oom_killed = True
        self.save()


def mark_ended(facts: ContainerState, status: str, exit_code: int, error: str) -> None:
    """Note in `facts` that the container has no processes, helpers and cgroup any more."""
    facts.status = status
    facts.pid = facts.pid_start = 0
    facts.exit_code = exit_code
    facts.error = error
    facts.helpers = []
    facts.cgroup = None
    facts.namespaces = None


def record_event(spec: LaunchSpec, action: str, **attributes: str) -> None:
    """Append one event of the container to the log that launch.json's "events" names; nothing where it names none.

    action: docker's name of the event; attributes: those beside the ones that launch.json gives to every event.
    """
    if spec.plan.events is None:
        return
    from rootless.storage.store import eventlog

    known = spec.plan.events.attributes
    entry = eventlog.EventEntry("container", action, spec.id, {**known, **attributes})
    eventlog.append_event(spec.plan.events.log, entry)


def record_network_event(spec: LaunchSpec, action: str, attachment: Attachment) -> None:
    """Append the event that the container was connected with a network, or disconnected from it."""
    if spec.plan.events is None:
        return
    from rootless.storage.store import eventlog

    attributes = {"container": spec.id, "name": attachment.name, "type": "bridge"}
    entry = eventlog.EventEntry("network", action, attachment.network_id, attributes)
    eventlog.append_event(spec.plan.events.log, entry)


def note_health(spec: LaunchSpec, tracked: State, result: HealthState) -> None:
    """Record the result of a health check. Only a changed status is an event, as docker's clients expect."""
    before = tracked.facts.health
    tracked.has_health(result)
    if before is not None and before.status != result.status:
        record_event(spec, f"health_status: {result.status}")


def watch_memory(loop: Loop, spec: LaunchSpec, tracked: State, group: AnyGroup | None) -> MemoryWatch | None:
    """Watch for processes of the container that the kernel kills for its memory limit; None without a cgroup."""
    if group is None:
        return None
    from rootless.monitor.memory import MemoryWatch

    def report() -> None:
        tracked.ran_out_of_memory()
        record_event(spec, "oom")

    return MemoryWatch(loop, group, report, is_reported=tracked.facts.oom_killed)
