"""What the first image of a monitor's process leaves to the second one, which executes in its place.

The handover is written to a memory file without a name (memfd_create(2)), and the same process reads it after
execve(2), across which descriptors that are not close-on-exec keep their numbers: the numbers in it stay true.
"""

from __future__ import annotations

from rootless.records.fields import Fields
from rootless.records.launch import LaunchPlan
from rootless.records.state import ContainerState


class RunHandover:
    """A run under our own runtime. pid: of the container's first process; helpers: (pid, start time) of each helper.

    userns_fd, error_fd: descriptors, -1 where there is none. group: the cgroup as runtime.cgroups.group.restore takes
    it, None without. held: the descriptors by which the container is on networks with names.
    """

    __slots__ = ("error_fd", "group", "held", "helpers", "pid", "userns_fd")

    def __init__(self, pid: int, fds: tuple[int, int], helpers: list[tuple[int, int]]) -> None:
        """fds: the descriptors of the user namespace and of the pipe with the network helper's errors."""
        self.pid = pid
        self.userns_fd, self.error_fd = fds
        self.helpers = helpers
        self.group: dict[str, object] | None = None
        self.held: list[int] = []

    def to_json(self) -> dict[str, object]:
        """The run as JSON values."""
        fds = [(self.userns_fd, self.error_fd)]
        return {"pid": self.pid, "fds": fds, "helpers": self.helpers, "group": self.group, "held": self.held}

    @classmethod
    def from_json(cls, fields: Fields) -> RunHandover:
        """The reverse of `to_json`."""
        run = cls(fields.integer("pid"), fields.integer_pairs("fds")[0], fields.integer_pairs("helpers"))
        run.group = fields.mapping("group") or None
        run.held = fields.integers("held")
        return run


class StreamHandover:
    """The monitor's ends of the container's streams.

    stdin: a descriptor, -1 without; outputs: descriptor and unfinished line of each output.
    """

    __slots__ = ("is_terminal", "outputs", "stdin")

    def __init__(self, stdin: int, outputs: list[tuple[int, bytes]], *, is_terminal: bool) -> None:
        self.stdin = stdin
        self.outputs = outputs
        self.is_terminal = is_terminal

    def to_json(self) -> dict[str, object]:
        """The streams as JSON values.

        An unfinished line may be cut inside a character, so it is no UTF-8: Latin-1 gives each byte the character of
        its number.
        """
        outputs = [{"fd": fd, "rest": rest.decode("latin-1")} for fd, rest in self.outputs]
        return {"stdin": self.stdin, "outputs": outputs, "terminal": self.is_terminal}

    @classmethod
    def from_json(cls, fields: Fields) -> StreamHandover:
        """The reverse of `to_json`."""
        outputs = [(entry.integer("fd"), entry.text("rest").encode("latin-1")) for entry in fields.objects("outputs")]
        return cls(fields.integer("stdin"), outputs, is_terminal=fields.flag("terminal"))


class Handover:
    """Everything that a supervisor needs to go on with a container that runs.

    plan: launch.json as it was when the container started; state: what state.json says. began: time.monotonic() of the
    start, a clock that a new image of the process does not set back; restarts, delay: count and back-off (seconds) of
    the restart policy; size: rows and columns of the terminal; scope: the directory of the systemd scope that the
    process is in, "" without; lock, listener: the descriptors of monitor.lock and of the listening socket.
    """

    __slots__ = (
        "began", "delay", "directory", "listener", "lock", "plan", "restarts", "run", "scope", "size", "state",
        "streams",
    )  # fmt: skip

    def __init__(self, directory: str, plan: LaunchPlan, state: ContainerState) -> None:
        self.directory = directory
        self.plan = plan
        self.state = state
        self.began = 0.0
        self.restarts = 0
        self.delay = 0.0
        self.size = (0, 0)
        self.scope = ""
        self.lock = -1
        self.listener = -1
        self.run = RunHandover(0, (-1, -1), [])
        self.streams = StreamHandover(-1, [], is_terminal=False)

    def descriptors(self) -> list[int]:
        """The descriptors that the second image must find open."""
        run, streams = self.run, self.streams
        fds = [self.lock, self.listener, run.userns_fd, run.error_fd, *run.held, streams.stdin]
        fds += [fd for fd, _ in streams.outputs]
        return [fd for fd in fds if fd >= 0]

    def to_json(self) -> dict[str, object]:
        """Everything as JSON values."""
        return {
            "directory": self.directory,
            "launch": self.plan.to_json(),
            "state": self.state.to_json(),
            "began": self.began,
            "restarts": self.restarts,
            "delay": self.delay,
            "size": [self.size],
            "scope": self.scope,
            "lock": self.lock,
            "listener": self.listener,
            "run": self.run.to_json(),
            "streams": self.streams.to_json(),
        }

    @classmethod
    def from_json(cls, known: object) -> Handover:
        """The reverse of `to_json`. Raises InvalidInput naming what is wrong, which would be a fault of this code."""
        fields = Fields(known, "the monitor's memory")
        plan, state = LaunchPlan.from_json(fields.mapping("launch")), ContainerState.from_json(fields.mapping("state"))
        handover = cls(fields.text("directory"), plan, state)
        handover.began = fields.number("began")
        handover.restarts = fields.integer("restarts")
        handover.delay = fields.number("delay")
        [handover.size] = fields.integer_pairs("size")
        handover.scope = fields.text("scope")
        handover.lock = fields.integer("lock")
        handover.listener = fields.integer("listener")
        run, streams = fields.member("run"), fields.member("streams")
        if run is not None and streams is not None:
            handover.run, handover.streams = RunHandover.from_json(run), StreamHandover.from_json(streams)
        return handover
