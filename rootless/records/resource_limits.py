"""`linux.resources` of a configuration: what a container may use. Which files of a cgroup that is, others know.

runtime-spec config-linux.md, "Control groups". Numbers below 0 mean "no limit", None that nothing is said. Rules for
device nodes (`devices`) are not read: no user can make device nodes, so the container has none but those of the host.
"""

from __future__ import annotations

from rootless.records.properties import Properties, property_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER = (-(1 << 63), (1 << 64) - 1)
PATH = "linux.resources"
"""Where the object stands in a configuration."""


class MemoryLimits:
    """`memory`, in bytes. swap: memory and swap together; swappiness: 0 to 100."""

    __slots__ = ("disable_oom_killer", "limit", "reservation", "swap", "swappiness")

    def __init__(self) -> None:
        self.limit: int | None = None
        self.reservation: int | None = None
        self.swap: int | None = None
        self.swappiness: int | None = None
        self.disable_oom_killer = False

    @classmethod
    def from_json(cls, given: Properties) -> MemoryLimits:
        """The limits that `given` describes."""
        memory = cls()
        memory.limit = given.optional_integer("limit", _NUMBER)
        memory.reservation = given.optional_integer("reservation", _NUMBER)
        memory.swap = given.optional_integer("swap", _NUMBER)
        memory.swappiness = given.optional_integer("swappiness", _NUMBER)
        memory.disable_oom_killer = given.flag("disableOOMKiller")
        return memory

    def to_json(self) -> dict[str, object]:
        """The members that limit something."""
        members = {
            "limit": self.limit,
            "swap": self.swap,
            "reservation": self.reservation,
            "swappiness": self.swappiness,
            "disableOOMKiller": self.disable_oom_killer or None,
        }
        return _present(members)

    def swap_alone(self) -> int | None:
        """The swap beside the memory, which is what version 2 limits; -1: no limit, None: not asked for.

        Raises InvalidInput where `swap`, which counts both, is less than the memory, or the memory has no limit.
        """
        if not self.swap:
            return None
        if self.swap < 0:
            return -1
        if not self.limit or self.limit < 0:
            raise property_error(f"{PATH}.memory.swap", "needs 'memory.limit': it counts both")
        if self.swap < self.limit:
            raise property_error(f"{PATH}.memory.swap", "is below 'memory.limit': it counts both")
        return self.swap - self.limit


class CpuLimits:
    """`cpu`. period, quota, burst, realtime_runtime and realtime_period are microseconds.

    cpus, mems: the processors and memory nodes, as lists such as `0-3,7`.
    """

    __slots__ = ("burst", "cpus", "idle", "mems", "period", "quota", "realtime_period", "realtime_runtime", "shares")

    def __init__(self) -> None:
        self.shares: int | None = None
        self.quota: int | None = None
        self.period: int | None = None
        self.burst: int | None = None
        self.idle: int | None = None
        self.realtime_runtime: int | None = None
        self.realtime_period: int | None = None
        self.cpus = ""
        self.mems = ""

    @classmethod
    def from_json(cls, given: Properties) -> CpuLimits:
        """The limits that `given` describes."""
        cpu = cls()
        cpu.shares = given.optional_integer("shares", _NUMBER)
        cpu.quota = given.optional_integer("quota", _NUMBER)
        cpu.period = given.optional_integer("period", _NUMBER)
        cpu.burst = given.optional_integer("burst", _NUMBER)
        cpu.idle = given.optional_integer("idle", _NUMBER)
        cpu.realtime_runtime = given.optional_integer("realtimeRuntime", _NUMBER)
        cpu.realtime_period = given.optional_integer("realtimePeriod", _NUMBER)
        cpu.cpus = _line(given, "cpus")
        cpu.mems = _line(given, "mems")
        return cpu

    def to_json(self) -> dict[str, object]:
        """The members that limit something."""
        members = {
            "period": self.period,
            "quota": self.quota,
            "burst": self.burst,
            "shares": self.shares,
            "idle": self.idle,
            "realtimeRuntime": self.realtime_runtime,
            "realtimePeriod": self.realtime_period,
            "cpus": self.cpus or None,
            "mems": self.mems or None,
        }
        return _present(members)


class DeviceLimit:
    """A share or a rate of one block device. device: its number as `major:minor`; value: the weight, or per second."""

    __slots__ = ("device", "value")

    def __init__(self, device: str, value: int) -> None:
        self.device = device
        self.value = value

    def to_json(self, name: str) -> dict[str, object]:
        """An entry of one of the lists of `blockIO`. name: what the specification calls the value there."""
        major, _, minor = self.device.partition(":")
        return {"major": int(major), "minor": int(minor), name: self.value}


class BlockIoLimits:
    """`blockIO`. weight, leaf_weight: 10 to 1000; weight_devices: those of single devices.

    read_bytes, write_bytes, read_operations, write_operations: what a device may do in a second, at most.
    """

    __slots__ = (
        "leaf_weight",
        "read_bytes",
        "read_operations",
        "weight",
        "weight_devices",
        "write_bytes",
        "write_operations",
    )

    def __init__(self) -> None:
        self.weight: int | None = None
        self.leaf_weight: int | None = None
        self.weight_devices: list[DeviceLimit] = []
        self.read_bytes: list[DeviceLimit] = []
        self.write_bytes: list[DeviceLimit] = []
        self.read_operations: list[DeviceLimit] = []
        self.write_operations: list[DeviceLimit] = []

    @classmethod
    def from_json(cls, given: Properties) -> BlockIoLimits:
        """The limits that `given` describes. A device without number of its weight or rate is passed over."""
        limits = cls()
        limits.weight = given.optional_integer("weight", _NUMBER)
        limits.leaf_weight = given.optional_integer("leafWeight", _NUMBER)
        weights = _device_limits(given, "weightDevice", "weight")
        limits.weight_devices = [device for device in weights if device.value]
        limits.read_bytes = _device_limits(given, "throttleReadBpsDevice", "rate")
        limits.write_bytes = _device_limits(given, "throttleWriteBpsDevice", "rate")
        limits.read_operations = _device_limits(given, "throttleReadIOPSDevice", "rate")
        limits.write_operations = _device_limits(given, "throttleWriteIOPSDevice", "rate")
        return limits

    def to_json(self) -> dict[str, object]:
        """The members that limit something."""
        members = {
            "weight": self.weight,
            "leafWeight": self.leaf_weight,
            "weightDevice": [device.to_json("weight") for device in self.weight_devices] or None,
            "throttleReadBpsDevice": [device.to_json("rate") for device in self.read_bytes] or None,
            "throttleWriteBpsDevice": [device.to_json("rate") for device in self.write_bytes] or None,
            "throttleReadIOPSDevice": [device.to_json("rate") for device in self.read_operations] or None,
            "throttleWriteIOPSDevice": [device.to_json("rate") for device in self.write_operations] or None,
        }
        return _present(members)


class HugePageLimit:
    """An entry of `hugepageLimits`. size: of a page, such as `2MB`; limit: bytes."""

    __slots__ = ("limit", "size")

    def __init__(self, size: str, limit: int) -> None:
        self.size = size
        self.limit = limit

    @classmethod
    def from_json(cls, given: Properties) -> HugePageLimit:
        """The limit that `given` describes."""
        size, limit = _line(given, "pageSize"), given.optional_integer("limit", _NUMBER)
        # the size becomes a part of a file's name
        if not size or limit is None or "/" in size:
            raise property_error(f"{PATH}.hugepageLimits", "needs 'pageSize' and 'limit'")
        return cls(size, limit)

    def to_json(self) -> dict[str, object]:
        """The reverse of `from_json`."""
        return {"pageSize": self.size, "limit": self.limit}


class RdmaLimit:
    """A member of `rdma`. device: its name; handles, objects: how many of the adapter's the container may have."""

    __slots__ = ("device", "handles", "objects")

    def __init__(self, device: str, given: Properties) -> None:
        self.device = device
        self.handles = given.optional_integer("hcaHandles", _NUMBER)
        self.objects = given.optional_integer("hcaObjects", _NUMBER)

    def to_json(self) -> dict[str, object]:
        """The members that limit something."""
        return _present({"hcaHandles": self.handles, "hcaObjects": self.objects})


class Resources:
    """The object `resources`. pids: how many processes, 0 is a limit too; unified: files of version 2 → their content.

    network: the members of `network` that are there, which no cgroup that a user can have knows.
    """

    __slots__ = ("_holds_others", "block_io", "cpu", "huge_pages", "memory", "network", "pids", "rdma", "unified")

    def __init__(self) -> None:
        self.memory = MemoryLimits()
        self.cpu = CpuLimits()
        self.block_io = BlockIoLimits()
        self.pids: int | None = None
        self.huge_pages: list[HugePageLimit] = []
        self.rdma: list[RdmaLimit] = []
        self.network: list[str] = []
        self.unified: dict[str, str] = {}
        self._holds_others = False  # members that stand in a configuration, those that we do not know included

    @classmethod
    def from_json(cls, value: object) -> Resources:
        """The resources in a JSON value; None asks for nothing. Raises InvalidInput naming the property."""
        resources = cls()
        if value is None:
            return resources
        given = Properties(value, PATH)
        memory, cpu, block_io = given.member("memory"), given.member("cpu"), given.member("blockIO")
        if memory is not None:
            resources.memory = MemoryLimits.from_json(memory)
        if cpu is not None:
            resources.cpu = CpuLimits.from_json(cpu)
        if block_io is not None:
            resources.block_io = BlockIoLimits.from_json(block_io)
        pids = given.member("pids")
        if pids is not None:
            resources.pids = pids.optional_integer("limit", _NUMBER)
        resources.huge_pages = [HugePageLimit.from_json(entry) for entry in given.objects("hugepageLimits")]
        rdma = given.member("rdma")
        if rdma is not None:
            resources.rdma = [RdmaLimit(name, rdma.required_member(name)) for name in rdma.names()]
        network = given.member("network")
        if network is not None:
            resources.network = [name for name in ("classID", "priorities") if network.value(name)]
        resources.unified = given.text_mapping("unified")
        others = (given.value(name) for name in given.names() if name not in ("devices", "pids"))
        resources._holds_others = any(_holds(other) for other in others)
        return resources

    @property
    def is_asked(self) -> bool:
        """Whether anything in it limits something."""
        if self.pids not in (None, -1) or self._holds_others:
            return True
        return any(_holds(value) for name, value in self.to_json().items() if name != "pids")

    def to_json(self) -> dict[str, object]:
        """The members that limit something; {} for no limit. `network` is not written."""
        members = {
            "memory": self.memory.to_json() or None,
            "cpu": self.cpu.to_json() or None,
            "pids": None if self.pids is None else {"limit": self.pids},
            "blockIO": self.block_io.to_json() or None,
            "hugepageLimits": [limit.to_json() for limit in self.huge_pages] or None,
            "rdma": {limit.device: limit.to_json() for limit in self.rdma} or None,
            "unified": self.unified or None,
        }
        return _present(members)


def _present(members: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}


def _holds(value: object) -> bool:
    """Whether a member says anything: not null, "", [], 0 or false, nor an object of such members alone."""
    if isinstance(value, dict):
        return any(_holds(inner) for inner in value.values())
    return value not in (None, "", [], 0)


def _line(given: Properties, name: str) -> str:
    text = given.text(name)
    if "\n" in text:
        raise given.error(name, f"must be a line of text, not {text!r}")
    return text


def _device_limits(given: Properties, name: str, member: str) -> list[DeviceLimit]:
    limits = []
    for entry in given.objects(name):
        value = entry.optional_integer(member, _NUMBER)
        if value is None:
            continue
        numbers = [entry.optional_integer(part, (0, _NUMBER[1])) for part in ("major", "minor")]
        if None in numbers:
            raise given.error(name, "needs 'major' and 'minor'")
        limits.append(DeviceLimit(f"{numbers[0]}:{numbers[1]}", value))
    return limits
