"""The `process` object of a configuration: what a process of a container is to be. It applies nothing to a process.

runtime-spec config.md, "Process" and "POSIX process".
"""

from __future__ import annotations

import os

from rootless.records.properties import HIGHEST_ID, INT32, UINT64, Properties, property_error

RLIMITS = (
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
)
"""In the order of the kernel's numbers (x86, arm, riscv, s390, power share them)."""
POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
"""Scheduling policies and their numbers in sched_setattr(2)."""
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
"""Flags of sched_setattr(2) and their bits."""
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
"""Classes of ioprio_set(2) and their numbers."""
HIGHEST_NUMBER = 1023
"""The highest number that a processor or a NUMA node can have here."""
# podman writes RLIM_INFINITY as -1 in some versions
_LIMIT = (-1, (1 << 64) - 1)


class OciUser:
    """`process.user`: ids as the container counts them. umask: None where the configuration has none."""

    __slots__ = ("additional_gids", "gid", "uid", "umask")

    def __init__(self, uid: int = 0, gid: int = 0) -> None:
        self.uid = uid
        self.gid = gid
        self.umask: int | None = None
        self.additional_gids: list[int] = []

    @classmethod
    def from_json(cls, given: Properties) -> OciUser:
        """The user that `given` describes."""
        ids = (0, HIGHEST_ID)
        user = cls(given.integer("uid", ids), given.integer("gid", ids))
        user.umask = given.optional_integer("umask", (0, 0o777))
        user.additional_gids = given.integers("additionalGids", ids, most=65536)
        return user

    def copy(self) -> OciUser:
        """A user of which each attribute can be replaced without a change of this one."""
        same = OciUser(self.uid, self.gid)
        same.umask, same.additional_gids = self.umask, self.additional_gids
        return same


class Rlimit:
    """An entry of `process.rlimits`. kind: one of RLIMITS; below 0, or 2^64 - 1, is no limit."""

    __slots__ = ("hard", "kind", "soft")

    def __init__(self, kind: str, soft: int, hard: int) -> None:
        self.kind = kind
        self.soft = soft
        self.hard = hard

    @classmethod
    def from_json(cls, given: Properties) -> Rlimit:
        """The limit that `given` describes. Raises InvalidInput where its soft limit is above the hard one."""
        given.require("type", "soft", "hard")
        limit = cls(given.choice("type", RLIMITS), given.integer("soft", _LIMIT), given.integer("hard", _LIMIT))
        if 0 <= limit.hard < limit.soft:
            raise property_error(given.path, "has a soft limit above the hard one")
        return limit


class CapabilityNames:
    """`process.capabilities`: the names in each of a process's five sets (capabilities(7))."""

    __slots__ = ("ambient", "bounding", "effective", "inheritable", "permitted")

    def __init__(self) -> None:
        self.bounding: list[str] = []
        self.effective: list[str] = []
        self.inheritable: list[str] = []
        self.permitted: list[str] = []
        self.ambient: list[str] = []

    @classmethod
    def from_json(cls, given: Properties) -> CapabilityNames:
        """The sets that `given` describes; names that the kernel does not know are kept."""
        sets = cls()
        sets.bounding = given.texts("bounding", most=256)
        sets.effective = given.texts("effective", most=256)
        sets.inheritable = given.texts("inheritable", most=256)
        sets.permitted = given.texts("permitted", most=256)
        sets.ambient = given.texts("ambient", most=256)
        return sets


class Scheduler:
    """`process.scheduler`: the parameters of sched_setattr(2). policy: one of POLICIES; flags: of SCHEDULER_FLAGS.

    runtime, deadline, period: nanoseconds, of SCHED_DEADLINE.
    """

    __slots__ = ("deadline", "flags", "nice", "period", "policy", "priority", "runtime")

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.flags: list[str] = []
        self.nice = 0
        self.priority = 0
        self.runtime = 0
        self.deadline = 0
        self.period = 0

    @classmethod
    def from_json(cls, given: Properties) -> Scheduler:
        """The parameters that `given` describes."""
        given.require("policy")
        scheduler = cls(given.choice("policy", tuple(POLICIES)))
        scheduler.flags = given.choices("flags", tuple(SCHEDULER_FLAGS))
        scheduler.nice = given.integer("nice", (-20, 19))
        scheduler.priority = given.integer("priority", INT32)
        scheduler.runtime = given.integer("runtime", UINT64)
        scheduler.deadline = given.integer("deadline", UINT64)
        scheduler.period = given.integer("period", UINT64)
        return scheduler


class IoPriority:
    """`process.ioPriority`. kind: the class, one of IO_CLASSES; priority: 0 (highest) to 7 within it."""

    __slots__ = ("kind", "priority")

    def __init__(self, kind: str, priority: int) -> None:
        self.kind = kind
        self.priority = priority

    @classmethod
    def from_json(cls, given: Properties) -> IoPriority:
        """The priority that `given` describes."""
        given.require("class")
        return cls(given.choice("class", tuple(IO_CLASSES)), given.integer("priority", (0, 7)))


class CpuAffinity:
    """`process.execCPUAffinity`: lists of processors such as `0-3,7`, of a process that joins the container.

    initial: from its start until it is in the container's cgroup; final: from then on; "" leaves the matter.
    """

    __slots__ = ("final", "initial")

    def __init__(self, initial: str, final: str) -> None:
        self.initial = initial
        self.final = final

    @classmethod
    def from_json(cls, given: Properties) -> CpuAffinity:
        """The processors that `given` describes."""
        return cls(number_list(given, "initial"), number_list(given, "final"))


class OciProcess:
    """A `process` object. args: the command, at least one word; cwd: absolute; env: `NAME=value` each.

    console_size: (rows, columns) of the terminal; capabilities: None is no capability at all; oom_score_adj: None
    leaves it; apparmor_profile, selinux_label: "" for none. `commandLine` is of another platform and not read.
    """

    __slots__ = (
        "apparmor_profile",
        "args",
        "capabilities",
        "console_size",
        "cpu_affinity",
        "cwd",
        "env",
        "io_priority",
        "no_new_privileges",
        "oom_score_adj",
        "rlimits",
        "scheduler",
        "selinux_label",
        "terminal",
        "user",
    )

    def __init__(self, args: list[str], cwd: str = "/") -> None:
        self.args = args
        self.cwd = cwd
        self.env: list[str] = []
        self.terminal = False
        self.console_size: tuple[int, int] | None = None
        self.user = OciUser()
        self.rlimits: list[Rlimit] = []
        self.capabilities: CapabilityNames | None = None
        self.no_new_privileges = False
        self.apparmor_profile = ""
        self.selinux_label = ""
        self.oom_score_adj: int | None = None
        self.scheduler: Scheduler | None = None
        self.cpu_affinity = CpuAffinity("", "")
        self.io_priority: IoPriority | None = None

    @classmethod
    def from_json(cls, given: Properties) -> OciProcess:
        """The process that `given` describes. Raises InvalidInput naming the property that is wrong."""
        given.require("cwd", "args")
        process = cls(given.texts("args", least=1), given.absolute_path("cwd"))
        process.env = given.texts("env")
        process.terminal = given.flag("terminal")
        size = given.member("consoleSize")
        if size is not None:
            size.require("height", "width")
            process.console_size = size.integer("height", (0, 65535)), size.integer("width", (0, 65535))
        user = given.member("user")
        if user is not None:
            process.user = OciUser.from_json(user)
        process.rlimits = [Rlimit.from_json(limit) for limit in given.objects("rlimits")]
        refuse_duplicates(f"{given.path}.rlimits", [limit.kind for limit in process.rlimits])
        capabilities = given.member("capabilities")
        if capabilities is not None:
            process.capabilities = CapabilityNames.from_json(capabilities)
        process.no_new_privileges = given.flag("noNewPrivileges")
        process.apparmor_profile = given.text("apparmorProfile")
        process.selinux_label = given.text("selinuxLabel")
        process.oom_score_adj = given.optional_integer("oomScoreAdj", (-1000, 1000))
        scheduler = given.member("scheduler")
        if scheduler is not None:
            process.scheduler = Scheduler.from_json(scheduler)
        affinity = given.member("execCPUAffinity")
        if affinity is not None:
            process.cpu_affinity = CpuAffinity.from_json(affinity)
        priority = given.member("ioPriority")
        if priority is not None:
            process.io_priority = IoPriority.from_json(priority)
        return process

    def bounding_set(self) -> list[str]:
        """The names of the capabilities that the process and what it executes can have at most."""
        return [] if self.capabilities is None else self.capabilities.bounding

    def copy(self) -> OciProcess:
        """A process of which each attribute can be replaced without a change of this one."""
        same = OciProcess(self.args, self.cwd)
        for name in OciProcess.__slots__:
            setattr(same, name, getattr(self, name))
        return same

    def check_labels(self) -> None:
        """Raise InvalidInput when the process asks for a label of a security module that this host does not have."""
        if self.apparmor_profile not in ("", "unconfined") and not apparmor_is_on():
            raise property_error("process.apparmorProfile", "cannot be honoured: this host has no AppArmor")
        if self.selinux_label and not selinux_is_on():
            raise property_error("process.selinuxLabel", "cannot be honoured: this host has no SELinux")


def number_list(given: Properties, name: str) -> str:
    """A member that is a list of numbers such as `0-3,7`, as it is written; "" when it is absent."""
    text = given.text(name)
    try:
        parse_numbers(text)
    except ValueError:
        raise given.error(name, f"must be a list of numbers such as 0-3,7, not '{text}'") from None
    return text


def parse_numbers(text: str) -> set[int]:
    """`0-3,7` → {0, 1, 2, 3, 7}; nothing → the empty set. Raises ValueError, also above HIGHEST_NUMBER."""
    found: set[int] = set()
    for part in text.split(",") if text.strip() else ():
        first, separator, last = part.strip().partition("-")
        low = _number(first)
        high = _number(last) if separator else low
        if high < low:
            raise ValueError(text)
        found.update(range(low, high + 1))
    return found


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 4 or int(text) > HIGHEST_NUMBER:
        raise ValueError(text)
    return int(text)


def refuse_duplicates(path: str, names: list[str]) -> None:
    """Raise InvalidInput, naming the property at `path`, when a name stands twice in `names`."""
    for name in names:
        if names.count(name) > 1:
            raise property_error(path, f"has '{name}' twice")


def apparmor_is_on() -> bool:
    """Whether the kernel enforces AppArmor profiles."""
    try:
        with open("/sys/module/apparmor/parameters/enabled") as f:
            return f.read(1) == "Y"
    except OSError:
        return False


def selinux_is_on() -> bool:
    """Whether the kernel enforces SELinux labels."""
    return os.path.exists("/sys/fs/selinux/enforce")
