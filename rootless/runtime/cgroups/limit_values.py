"""One write to a file of a cgroup, and those writes that both versions share. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.resource_limits import CpuLimits, Resources


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
        """Whether the write has to wait until the launcher's own process, which counts too, has left the cgroup: with a
        limit of one process the container's first could not be forked before."""
        return self.name == "pids.max"

    def __repr__(self) -> str:
        return f"{self.name} = {self.value}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setting) and (self.name, self.value) == (other.name, other.value)

    def __hash__(self) -> int:
        return hash((self.name, self.value))


def limit_text(value: int) -> str:
    """A limit as the kernel reads it; the specification's negative numbers mean that there is none."""
    return "max" if value < 0 else str(value)


def cpu_sets(cpu: CpuLimits) -> list[Setting]:
    """The processors and memory nodes, whose files are the same in both versions."""
    found = []
    if cpu.cpus:
        found.append(Setting("cpuset", "cpuset.cpus", cpu.cpus, "cpu.cpus"))
    if cpu.mems:
        found.append(Setting("cpuset", "cpuset.mems", cpu.mems, "cpu.mems"))
    return found


def rdma_limits(resources: Resources) -> list[Setting]:
    """The resources of RDMA adapters, whose file is the same in both versions."""
    found = []
    for adapter in resources.rdma:
        words = [adapter.device]
        if adapter.handles is not None:
            words.append(f"hca_handle={adapter.handles}")
        if adapter.objects is not None:
            words.append(f"hca_object={adapter.objects}")
        found.append(Setting("rdma", "rdma.max", " ".join(words), "rdma"))
    return found


def process_limit(resources: Resources) -> list[Setting]:
    """The number of processes, whose file is the same in both versions."""
    limit = resources.pids
    return [] if limit is None else [Setting("pids", "pids.max", limit_text(limit), "pids.limit")]
