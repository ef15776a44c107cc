"""state.json of a container: what its monitor knows, for all to read. Only the monitor (or `reap`) writes it."""

from __future__ import annotations

import os

from rootless.monitor.logfile import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.monitor.cgroup import AnyGroup

_MAX_NOTES = 1 << 16  # bytes of monitor.log
NEVER = "0001-01-01T00:00:00Z"  # docker's "not yet"


def read(directory: str) -> dict[str, Any] | None:
    """The state in `directory`; None when there is none."""
    import json

    try:
        with open(f"{directory}/state.json", "rb") as file:
            value = json.loads(file.read(1 << 20))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write(directory: str, fields: dict[str, Any]) -> None:
    """Replace the state; not durable: after a power cut nothing of it is true anyway."""
    import json

    from rootless.paths import atomic_write

    atomic_write(f"{directory}/state.json", json.dumps(fields, separators=(",", ":")).encode(), durable=False)


def note(directory: str, text: str) -> None:
    """Append to monitor.log, the monitor's own complaints; bounded, and silent when even that fails."""
    try:
        path = f"{directory}/monitor.log"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size < _MAX_NOTES:
                os.write(fd, f"{timestamp()} {text}\n".encode(errors="replace")[:8192])
        finally:
            os.close(fd)
    except OSError:
        pass


class State:
    """The state while a monitor lives; each change is written at once.

    known: the fields, where an earlier image of this process has gathered them.
    """

    __slots__ = ("directory", "fields")

    def __init__(self, directory: str, known: dict[str, Any] | None = None) -> None:
        if known is not None:
            self.directory, self.fields = directory, known
            return
        from rootless.kernel import procfs

        self.directory = directory
        pid = os.getpid()
        self.fields = {
            "status": "created",
            "pid": 0,
            "pid_start": 0,
            "monitor_pid": pid,
            "monitor_start": procfs.start_time(pid),
            "started_at": NEVER,
            "finished_at": NEVER,
            "exit_code": 0,
            "error": "",
            "restart_count": 0,
            "health": None,
            "oom_killed": False,
            "host": os.uname().nodename,
            "boot_id": procfs.boot_id(),
            "network": {},
            "cgroup": None,
            "helpers": [],
        }
        earlier = read(directory)
        if earlier:  # a container that fails to start again keeps the times of its last run
            for key in ("started_at", "finished_at"):
                self.fields[key] = earlier.get(key) or NEVER

    def update(self, **fields: object) -> None:
        """Change fields and write. A full disk must not end the container: the change is noted, and written later."""
        self.fields.update(fields)
        try:
            write(self.directory, self.fields)
        except OSError as e:
            note(self.directory, f"cannot write state.json: {e.strerror}")

    def started(
        self, pid: int, *, helpers: list[tuple[int, int]], network: dict[str, Any], group: AnyGroup | None = None
    ) -> None:
        """The container runs. helpers: (pid, start time) of the processes that die with it; group: its cgroup."""
        from rootless.kernel import procfs

        self.update(
            status="running",
            pid=pid,
            pid_start=procfs.start_time(pid),
            started_at=timestamp(),
            finished_at=NEVER,
            exit_code=0,
            error="",
            oom_killed=False,
            helpers=helpers,
            network=network,
            cgroup=None if group is None else group.to_json(),
        )

    def ended(self, status: str, exit_code: int, *, error: str = "") -> None:
        """The container does not run: "exited", "restarting", or "created" when it could not start."""
        times = {} if status == "created" else {"finished_at": timestamp()}
        self.update(
            status=status, pid=0, pid_start=0, exit_code=exit_code, error=error, helpers=[], cgroup=None, **times
        )
