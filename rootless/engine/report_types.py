"""What the verbs that look after the store and into containers take and give: immutable values, no behaviour, no I/O.

They are apart from engine.types because every `run` loads that one, and to make a named tuple takes a tenth of a
millisecond.
"""

from __future__ import annotations

from typing import NamedTuple

# the kinds of a StoreFinding
BLOB, LAYER, IMAGE, CONTAINER, VOLUME, NAME, GARBAGE, INDEX = (
    "blob", "layer", "image", "container", "volume", "name", "garbage", "index")  # fmt: skip


class FileCopyOptions(NamedTuple):
    """How `cp` copies. archive: keep owners, and modes and times of directories that are there; follow: what a link at
    the end of the source points to; overwrite: a directory may replace a file and the reverse."""

    archive: bool = False
    follow: bool = False
    overwrite: bool = False


class LogOptions(NamedTuple):
    """Which part of a container's log is wanted. follow: what comes later too; tail: the last lines, None for all.

    since, until: as docker takes them (RFC 3339, seconds since 1970, or a duration such as 10m before now).
    """

    follow: bool = False
    tail: int | None = None
    since: str | None = None
    until: str | None = None


class ContainerStats(NamedTuple):
    """One container. cpu: percent of one CPU, over the time since the sample before (of the first: since its start);
    memory: bytes without the cache that can be dropped, memory_cached: with it; pressure: percent of the last ten
    seconds, by cpu, memory, io. source: "cgroup", "proc" (sums over processes) or "" (does not run)."""

    id: str
    name: str
    status: str
    source: str = ""
    cpu: float = 0.0
    memory: int = 0
    memory_cached: int = 0
    memory_limit: int = 0
    net_received: int = 0
    net_sent: int = 0
    block_read: int = 0
    block_written: int = 0
    pids: int = 0
    pids_limit: int | None = None
    pressure: dict[str, float] = {}

    @property
    def memory_percent(self) -> float:
        """The memory in percent of its limit."""
        return 100.0 * self.memory / self.memory_limit if self.memory_limit else 0.0


class ImageUsage(NamedTuple):
    """size: all its layers, manifest and config; shared: of it, what another image needs too."""

    id: str
    names: tuple[str, ...]
    created: float
    size: int
    shared: int
    containers: int

    @property
    def unique(self) -> int:
        """What removing this image alone would free."""
        return self.size - self.shared


class ContainerUsage(NamedTuple):
    """size: its directory with everything it wrote, its log and records."""

    id: str
    name: str
    image: str
    created: float
    status: str
    size: int


class VolumeUsage(NamedTuple):
    """links: containers that use it."""

    name: str
    links: int
    size: int


class CacheUsage(NamedTuple):
    """One step of a build. size: layers that neither an image nor an earlier record of this list needs."""

    key: str
    description: str
    created: float
    used: float
    size: int
    is_needed: bool


class DiskUsage(NamedTuple):
    """images_size, cache_size: bytes of both, every layer once, cache mounts of builds too; images_free: of images that
    no container uses.

    leftovers: what interrupted commands left, which the next prune removes.
    """

    images: tuple[ImageUsage, ...]
    containers: tuple[ContainerUsage, ...]
    volumes: tuple[VolumeUsage, ...]
    cache: tuple[CacheUsage, ...]
    images_size: int
    images_free: int
    cache_size: int
    leftovers: int

    @property
    def total(self) -> int:
        """Bytes of everything that the store keeps."""
        return (
            self.images_size
            + self.cache_size
            + self.leftovers
            + sum(each.size for each in self.containers)
            + sum(each.size for each in self.volumes)
        )


class StoreFinding(NamedTuple):
    """One thing that is wrong. kind, id: of what (digest, chain id, container id, name); text: what is wrong; details:
    the first damages of a layer; repaired: what was done about it, "" when nothing; is_damage: False for what only
    takes space."""

    kind: str
    id: str
    text: str
    details: tuple[str, ...] = ()
    repaired: str = ""
    is_damage: bool = True


class CheckResult(NamedTuple):
    """What was looked at, and what was found."""

    findings: tuple[StoreFinding, ...]
    blobs: int
    layers: int
    images: int
    containers: int
    volumes: int

    @property
    def is_sound(self) -> bool:
        """Whether no damage is left."""
        return not any(each.is_damage and not each.repaired for each in self.findings)


class Explanation(NamedTuple):
    """config: the OCI config.json; launch: launch.json; steps: both in words, in the order of the acts."""

    config: dict[str, object]
    launch: dict[str, object]
    steps: tuple[str, ...]


class CachePruned(NamedTuple):
    """removed: one line per record and cache mount; reclaimed: bytes."""

    removed: tuple[str, ...]
    reclaimed: int
