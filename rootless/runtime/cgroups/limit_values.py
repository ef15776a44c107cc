"""What a limit is on its way from the OCI configuration to a file of a cgroup. Shared by both versions; pure."""

from __future__ import annotations

from rootless.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

THROTTLES = ("throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice")
"""The lists of `linux.resources.blockIO` that hold a rate for each device."""


class Setting:
    """One write. controller: "" for the core's own files; name: of the file; origin: the OCI property it comes from."""

    __slots__ = ("controller", "name", "origin", "value")

    def __init__(self, controller: str, name: str, value: str, origin: str) -> None:
        self.controller = controller
        self.name = name
        self.value = value
        self.origin = f"linux.resources.{origin}"

    @property
    def is_late(self) -> bool:
        """Whether it may be written only when the launcher's own process is out of the cgroup: it counts too."""
        return self.name == "pids.max"

    def __repr__(self) -> str:
        return f"{self.name} = {self.value}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setting) and (self.name, self.value) == (other.name, other.value)

    def __hash__(self) -> int:
        return hash((self.name, self.value))


def member(values: dict[str, Any], path: str) -> Any:
    """The value at `memory.limit`; None when it, or what holds it, is not there. Raises InvalidInput."""
    at: Any = values
    walked: list[str] = []
    for key in path.split("."):
        if at is None:
            return None
        if not isinstance(at, dict):
            raise InvalidInput(f"config property 'linux.resources.{'.'.join(walked)}' must be an object")
        walked.append(key)
        at = at.get(key)
    return at


def number(values: dict[str, Any], path: str) -> int | None:
    """An integer at `path`, None when it is not there. Raises InvalidInput."""
    found = member(values, path)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not -(1 << 63) <= found < 1 << 64:
        raise InvalidInput(f"config property 'linux.resources.{path}' must be an integer, not {found!r}")
    return found


def word(values: dict[str, Any], path: str) -> str | None:
    """A text at `path`, None when it is not there or empty. Raises InvalidInput."""
    found = member(values, path)
    if found is None or found == "":
        return None
    if not isinstance(found, str) or "\n" in found or "\0" in found:
        raise InvalidInput(f"config property 'linux.resources.{path}' must be a line of text, not {found!r}")
    return found


def listed(values: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """A list of objects at `path`. Raises InvalidInput."""
    found = member(values, path) or []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise InvalidInput(f"config property 'linux.resources.{path}' must be a list of objects")
    return found


def device(entry: dict[str, Any], path: str) -> str:
    """`major:minor` of an entry. Raises InvalidInput."""
    numbers = entry.get("major"), entry.get("minor")
    if not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise InvalidInput(f"config property 'linux.resources.{path}' needs 'major' and 'minor'")
    return f"{numbers[0]}:{numbers[1]}"


def swap_beyond_memory(resources: dict[str, Any]) -> int | None:
    """Swap alone, from memory.swap, which is memory and swap together; -1: no limit, None: not asked for."""
    swap, limit = number(resources, "memory.swap"), number(resources, "memory.limit")
    if not swap:
        return None
    if swap < 0:
        return -1
    if not limit or limit < 0:
        raise InvalidInput("config property 'linux.resources.memory.swap' needs 'memory.limit': it counts both")
    if swap < limit:
        raise InvalidInput("config property 'linux.resources.memory.swap' is below 'memory.limit': it counts both")
    return swap - limit


def is_asked(resources: dict[str, Any]) -> bool:
    """Does anything in `resources` limit something? Device rules do not count: nobody can make device nodes anyway."""

    def holds(value: Any) -> bool:
        if isinstance(value, dict):
            return any(holds(v) for v in value.values())
        return value not in (None, "", [], 0)

    if number(resources, "pids.limit") not in (None, -1):
        return True  # 0 is a limit too
    return any(holds(values) for name, values in resources.items() if name not in ("devices", "pids"))


def limit_text(value: int) -> str:
    """A limit as the kernel reads it; the specification's negative numbers mean that there is none."""
    return "max" if value < 0 else str(value)


def cpu_sets(resources: dict[str, Any]) -> list[Setting]:
    """The processors and memory nodes, whose files are the same in both versions."""
    found = []
    for name in ("cpus", "mems"):
        chosen = word(resources, f"cpu.{name}")
        if chosen:
            found.append(Setting("cpuset", f"cpuset.{name}", chosen, f"cpu.{name}"))
    return found


def process_limit(resources: dict[str, Any]) -> list[Setting]:
    """The number of processes, whose file is the same in both versions."""
    limit = number(resources, "pids.limit")
    return [] if limit is None else [Setting("pids", "pids.max", limit_text(limit), "pids.limit")]


def device_weights(resources: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """(`major:minor`, weight) of the devices that have one. Raises InvalidInput."""
    for entry in listed(resources, "blockIO.weightDevice"):
        value = number(entry, "weight")
        if value:
            yield device(entry, "blockIO.weightDevice"), value


def device_rates(resources: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(member of THROTTLES, `major:minor`, rate) of the devices that have one. Raises InvalidInput."""
    for name in THROTTLES:
        for entry in listed(resources, f"blockIO.{name}"):
            rate = number(entry, "rate")
            if rate is not None:
                yield name, device(entry, f"blockIO.{name}"), rate


def huge_pages(resources: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """(page size, bytes) of the limits of huge pages; the size becomes part of a file's name. Raises InvalidInput."""
    for entry in listed(resources, "hugepageLimits"):
        size, limit = word(entry, "pageSize"), number(entry, "limit")
        if size is None or limit is None or "/" in size:
            raise InvalidInput("config property 'linux.resources.hugepageLimits' needs 'pageSize' and 'limit'")
        yield size, limit
