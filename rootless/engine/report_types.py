"""What the verbs that look after the store and into containers take and give: immutable values, no behaviour, no I/O.

They are apart from engine.types because every `run` loads that module, and each class of a named tuple takes a tenth of
a millisecond to make.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.errors import RootlessError

# the kinds of a StoreFinding
BLOB, LAYER, IMAGE, CONTAINER, VOLUME, NAME, GARBAGE, INDEX = (
    "blob", "layer", "image", "container", "volume", "name", "garbage", "index")  # fmt: skip


class FileCopyOptions(NamedTuple):
    """How `cp` copies.

    archive: keep owners, and give modes and times also to directories that exist already; follow: copy the file to
    which a link at the end of the source leads; overwrite: a directory may replace a file, and a file a directory.
    """

    archive: bool = False
    follow: bool = False
    overwrite: bool = False


class LogOptions(NamedTuple):
    """Which part of a container's log is wanted.

    follow: later records, too; tail: only so many of the last lines (None: all).
    since, until: as docker takes them (RFC 3339, seconds since 1970, or a duration such as 10m before now).
    """

    follow: bool = False
    tail: int | None = None
    since: str | None = None
    until: str | None = None


class ContainerStats(NamedTuple):
    """What one container uses.

    source: "cgroup", "proc" (sums over its processes) or "" (it does not run); cpu: percent of one CPU, over the time
    since the last sample (of the first: since its start); memory: bytes without the cache that can be dropped;
    memory_cached: bytes with it; net_*, block_*: bytes since the start; pressure: percent of the last ten seconds in
    which something waited, by cpu, memory and io.
    """

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
    """An image's use of the disk in bytes.

    size: all its layers, manifest and config; shared: the part of that which another image needs as well; containers:
    how many were made from it.
    """

    id: str
    names: tuple[str, ...]
    created: float
    size: int
    shared: int
    containers: int

    @property
    def unique(self) -> int:
        """The bytes that removing this image alone would free."""
        return self.size - self.shared


class ContainerUsage(NamedTuple):
    """A container's use of the disk. size: bytes of its directory, with all that it wrote, its log and records."""

    id: str
    name: str
    image: str
    created: float
    status: str
    size: int


class VolumeUsage(NamedTuple):
    """A volume's use of the disk. links: how many containers use it; size: bytes."""

    name: str
    links: int
    size: int


class CacheUsage(NamedTuple):
    """The use of the disk by the record of one build step.

    created, used: seconds since the epoch; size: bytes of its layers which neither an image nor an earlier record of
    the list needs; is_needed: whether an image or container needs its layer.
    """

    key: str
    description: str
    created: float
    used: float
    size: int
    is_needed: bool


class CopyUsage(NamedTuple):
    """The use of the disk by the copy of a layer for another id map (keep-id). layer: its chain id; id_map: the key of
    that map; is_used: whether a container mounts it, or may for all that can be read."""

    layer: str
    id_map: str
    size: int
    is_used: bool


class DiskUsage(NamedTuple):
    """The use of the disk by the whole store, in bytes.

    images_size, cache_size: each layer counts once, in the first if an image needs it; cache_size has the cache mounts
    of builds, too; images_free: what removing the images that no container uses would free; leftovers: files that
    interrupted commands left, which the next prune removes; copies: those of layers for other id maps.
    """

    images: tuple[ImageUsage, ...]
    containers: tuple[ContainerUsage, ...]
    volumes: tuple[VolumeUsage, ...]
    cache: tuple[CacheUsage, ...]
    images_size: int
    images_free: int
    cache_size: int
    leftovers: int
    copies: tuple[CopyUsage, ...] = ()

    @property
    def total(self) -> int:
        """The bytes of all that the store keeps."""
        return (
            self.images_size
            + self.cache_size
            + self.leftovers
            + sum(each.size for each in self.containers)
            + sum(each.size for each in self.volumes)
            + sum(each.size for each in self.copies)
        )


class StoreFinding(NamedTuple):
    """A damaged or unneeded object of the store.

    kind: one of the constants above; id: its digest, chain id, container id or name; text: what is wrong; details: the
    first damages of a layer, or what is missing; repaired: what was done about it ("": nothing); is_damage: False for
    what is whole and only takes room.
    """

    kind: str
    id: str
    text: str
    details: tuple[str, ...] = ()
    repaired: str = ""
    is_damage: bool = True


class CheckResult(NamedTuple):
    """The result of `system check`: the findings, and how many objects of each kind were looked at."""

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


class CdiDevice(NamedTuple):
    """A device that a CDI specification describes. name: VENDOR/CLASS=NAME; file: the specification."""

    name: str
    file: str


class CdiFile(NamedTuple):
    """What a check of a CDI specification found. path: "" for an error of several files; devices: how many it has."""

    path: str
    kind: str
    devices: int
    error: RootlessError | None


class Explanation(NamedTuple):
    """The plan of a container. config, launch: the content of its config.json and launch.json; steps: what a start does
    by them, one line for each act in order."""

    config: dict[str, object]
    launch: dict[str, object]
    steps: tuple[str, ...]


class CachePruned(NamedTuple):
    """What a prune of the build cache removed: one line for each record and cache mount; and the bytes reclaimed."""

    removed: tuple[str, ...]
    reclaimed: int
