"""The format of state.json, what a container's monitor tells about it. It neither reads nor writes the file."""

from __future__ import annotations

import time

from rootless.records.fields import Fields
from rootless.records.launch import read_ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.membership import Attachment
    from rootless.records.port import Port

VERSION = 1
NEVER = "0001-01-01T00:00:00Z"  # docker's "not yet"
LIVE = ("running", "paused", "restarting")  # a monitor guards a container with one of these statuses


def timestamp_ns(nanoseconds: int | None = None) -> str:
    """A moment as the files of a container have it: RFC 3339 with nanoseconds, in UTC.

    nanoseconds: since the epoch; None means now.
    """
    seconds, fraction = divmod(time.time_ns() if nanoseconds is None else nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"


class ContainerNamespaces:
    """The mount and the user namespace of a container that runs: by them its processes are found.

    Each is (inode, id): the number that /proc/PID/ns shows, which the kernel gives again to another namespace once the
    first is gone; and the number that it never gives twice in one boot (Linux 6.11 for mount namespaces), 0 before.
    makes_user: the user namespace is the container's alone; shares_processes: its pid namespace is another's, so that
    processes may outlive its first one.
    """

    __slots__ = ("makes_user", "mount", "shares_processes", "user")

    def __init__(self, mount: tuple[int, int], user: tuple[int, int]) -> None:
        self.mount = mount
        self.user = user
        self.makes_user = False
        self.shares_processes = False

    @property
    def is_unique(self) -> bool:
        """Whether no other container can be taken for this one, however long ago it has ended."""
        return bool(self.mount[1]) and bool(self.user[1] or not self.makes_user)

    def to_json(self) -> dict[str, object]:
        """The member "namespaces" of a state.json."""
        return {
            "mount": [self.mount],
            "user": [self.user],
            "makes_user": self.makes_user,
            "shares_processes": self.shares_processes,
        }

    @classmethod
    def from_json(cls, fields: Fields | None) -> ContainerNamespaces | None:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key.

        None for a container of an earlier version, which noted no namespaces.
        """
        if fields is None:
            return None
        mount, user = fields.integer_pairs("mount"), fields.integer_pairs("user")
        if len(mount) != 1 or len(user) != 1:
            return None
        found = cls(mount[0], user[0])
        found.makes_user = fields.flag("makes_user")
        found.shares_processes = fields.flag("shares_processes")
        return found


class HealthResult:
    """One probe of a health check. start, end: RFC 3339; output: what the probe wrote, cut."""

    __slots__ = ("end", "exit_code", "output", "start")

    def __init__(self, start: str, end: str, exit_code: int, output: str) -> None:
        self.start = start
        self.end = end
        self.exit_code = exit_code
        self.output = output

    def to_json(self) -> dict[str, object]:
        """An entry of "health.log"."""
        return {"start": self.start, "end": self.end, "exit_code": self.exit_code, "output": self.output}

    @classmethod
    def from_json(cls, fields: Fields) -> HealthResult:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        return cls(
            fields.text("start", ""), fields.text("end", ""), fields.integer("exit_code", 0), fields.text("output", "")
        )


class HealthState:
    """What the health checks add up to. status: starting, healthy or unhealthy; log: the last results."""

    __slots__ = ("failing_streak", "log", "status")

    def __init__(self, status: str, failing_streak: int, log: list[HealthResult]) -> None:
        self.status = status
        self.failing_streak = failing_streak
        self.log = log

    def to_json(self) -> dict[str, object]:
        """The member "health" of state.json."""
        return {
            "status": self.status,
            "failing_streak": self.failing_streak,
            "log": [result.to_json() for result in self.log],
        }

    @classmethod
    def from_json(cls, fields: Fields) -> HealthState:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        log = [HealthResult.from_json(entry) for entry in fields.objects("log")]
        return cls(fields.text("status", "starting"), fields.integer("failing_streak", 0), log)


class NetworkFacts:
    """How a running container is connected; empty texts and 0 where it has no network of its own.

    problem: why it is not connected though it should be: its network helper has ended; "" else. attachments: the
    networks with names that it is on, with its addresses there.
    """

    __slots__ = ("attachments", "gateway", "ip", "mac", "ports", "prefix", "problem")

    def __init__(
        self, ip: str = "", prefix: int = 0, gateway: str = "", mac: str = "", ports: list[Port] | None = None
    ) -> None:
        self.ip = ip
        self.prefix = prefix
        self.gateway = gateway
        self.mac = mac
        self.ports = ports or []
        self.problem = ""
        self.attachments: list[Attachment] = []

    def to_json(self) -> dict[str, object]:
        """The member "network" of state.json."""
        if not self.ip:
            return {}
        ports = [port.to_json() for port in self.ports]
        known: dict[str, object] = {"ip": self.ip, "prefix": self.prefix, "gateway": self.gateway, "ports": ports}
        told = {"mac": self.mac, "problem": self.problem}
        if self.attachments:
            known["attachments"] = [attachment.to_json() for attachment in self.attachments]
        return {**known, **{name: text for name, text in told.items() if text}}

    @classmethod
    def from_json(cls, fields: Fields | None) -> NetworkFacts:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key."""
        if fields is None:
            return cls()
        facts = cls(
            fields.text("ip", ""),
            fields.integer("prefix", 0),
            fields.text("gateway", ""),
            fields.text("mac", ""),
            read_ports(fields),
        )
        facts.problem = fields.text("problem", "")
        if fields.has("attachments"):
            from rootless.records.membership import Attachment

            facts.attachments = [Attachment.from_json(entry) for entry in fields.objects("attachments")]
        return facts


class ContainerState:
    """state.json. A new one is that of a container which has never run.

    status: created, running, restarting, exited or dead; the file never says "paused", readers who see the mark of a
    pause set it. pid, pid_start: host pid of the first process and its start in clock ticks since boot, 0 while none
    runs (a pid alone may be another process's by now); monitor_pid, monitor_start: the same of the monitor. helpers:
    (pid, start) of processes that die with the container. cgroup: what runtime.cgroups.group.restore takes, None
    without. namespaces: noted where a pid or user namespace is another's, None else. remote: the host that the
    container runs on when that is not this one, "" else; not part of the file.
    """

    __slots__ = (
        "boot_id",
        "cgroup",
        "error",
        "exit_code",
        "finished_at",
        "health",
        "helpers",
        "host",
        "monitor_pid",
        "monitor_start",
        "namespaces",
        "network",
        "oom_killed",
        "pid",
        "pid_start",
        "remote",
        "restart_count",
        "started_at",
        "status",
    )

    def __init__(self) -> None:
        self.status = "created"
        self.pid = 0
        self.pid_start = 0
        self.monitor_pid = 0
        self.monitor_start = 0
        self.started_at = NEVER
        self.finished_at = NEVER
        self.exit_code = 0
        self.error = ""
        self.restart_count = 0
        self.health: HealthState | None = None
        self.oom_killed = False
        self.host = ""
        self.boot_id = ""
        self.network = NetworkFacts()
        self.cgroup: dict[str, object] | None = None
        self.helpers: list[tuple[int, int]] = []
        self.namespaces: ContainerNamespaces | None = None
        self.remote = ""

    @property
    def is_running(self) -> bool:
        """Whether the container has processes: it runs or is paused."""
        return self.status in ("running", "paused")

    @property
    def never_started(self) -> bool:
        """Whether its command has not run yet, so that empty volumes of it may still want the image's files."""
        return self.started_at.startswith(NEVER[:10])

    def to_json(self) -> dict[str, object]:
        """The content of state.json."""
        return {
            "version": VERSION,
            "status": self.status,
            "pid": self.pid,
            "pid_start": self.pid_start,
            "monitor_pid": self.monitor_pid,
            "monitor_start": self.monitor_start,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "exit_code": self.exit_code,
            "error": self.error,
            "restart_count": self.restart_count,
            "health": None if self.health is None else self.health.to_json(),
            "oom_killed": self.oom_killed,
            "host": self.host,
            "boot_id": self.boot_id,
            "network": self.network.to_json(),
            "cgroup": self.cgroup,
            "helpers": self.helpers,
            "namespaces": None if self.namespaces is None else self.namespaces.to_json(),
        }

    @classmethod
    def from_json(cls, known: object, file: str = "state.json") -> ContainerState:
        """The state that `known`, the content of `file`, describes.

        Raises InvalidInput naming the file and the key when a value has the wrong type or the format is a newer one.
        """
        fields = Fields(known, file)
        fields.check_version(VERSION)
        state = cls()
        state.status = fields.text("status", "created")
        state.pid = fields.integer("pid", 0)
        state.pid_start = fields.integer("pid_start", 0)
        state.monitor_pid = fields.integer("monitor_pid", 0)
        state.monitor_start = fields.integer("monitor_start", 0)
        state.started_at = fields.text("started_at", NEVER)
        state.finished_at = fields.text("finished_at", NEVER)
        state.exit_code = fields.integer("exit_code", 0)
        state.error = fields.text("error", "")
        state.restart_count = fields.integer("restart_count", 0)
        health = fields.member("health")
        state.health = None if health is None else HealthState.from_json(health)
        state.oom_killed = fields.flag("oom_killed")
        state.host = fields.text("host", "")
        state.boot_id = fields.text("boot_id", "")
        state.network = NetworkFacts.from_json(fields.member("network"))
        state.cgroup = fields.mapping("cgroup") or None
        state.helpers = fields.integer_pairs("helpers")
        state.namespaces = ContainerNamespaces.from_json(fields.member("namespaces"))
        return state
