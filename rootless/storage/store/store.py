"""The store of one user: where its parts lie, its format version and its locks. It holds no objects itself.

    version  oci-layout  index.json  blobs/sha256/  layers/  containers/  names/  volumes/  incoming/  trash/  locks/

Lock order: store (shared or exclusive) → layer → index | names. Nobody waits for the store lock while holding another.
"""

from __future__ import annotations

import os

from rootless.errors import HostLimit, InvalidState
from rootless.paths import Directories, Lock, atomic_write, close_to_others, ensure_private, make_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.id_map import IdMap
    from rootless.storage.layers.layer_store import Layers
    from rootless.storage.store.blobs import Blobs
    from rootless.storage.store.containers import Containers
    from rootless.storage.store.index import ImageIndex
    from rootless.storage.store.volumes import Volumes

VERSION = "1"
PARTS = ("blobs/sha256", "layers", "containers", "names", "volumes", "incoming", "trash", "locks")
_TOP = frozenset(part.partition("/")[0] for part in PARTS) | {
    "version", "oci-layout", "index.json", "quarantine", "build-cache",
    "events.log", "events.log.1", "events.log.lock", "cache", "run",
}  # fmt: skip


def is_own_name(name: str) -> bool:
    """Whether the store makes entries of this name at its top. `--root` may name a directory that holds others too."""
    return name in _TOP or (name.startswith(".") and name.endswith(".tmp")) or name.startswith(".reset-")


class Store:
    """The store below `directories.data`, made when it is not there; opening it costs two system calls.

    Raises HostLimit when it cannot be made or is not private, InvalidState when a newer program wrote it.
    """

    __slots__ = ("_blobs", "_containers", "_id_map", "_index", "_layers", "_volumes", "directories", "root")

    def __init__(self, directories: Directories) -> None:
        self.directories = directories
        self.root = directories.data
        self._blobs: Blobs | None = None
        self._containers: Containers | None = None
        self._id_map: IdMap | None = None
        self._index: ImageIndex | None = None
        self._layers: Layers | None = None
        self._volumes: Volumes | None = None
        self._open()

    def _open(self) -> None:
        ensure_private(self.root, is_own=is_own_name)
        close_to_others(self.directories.cache)  # seccomp filters and probes' results in it are trusted
        version = f"{self.root}/version"
        try:
            with open(version, encoding="ascii", errors="replace") as file:
                found = file.read(64).strip()
        except FileNotFoundError:
            self._create()
            return
        except OSError as e:
            raise HostLimit(f"cannot read '{version}': {e.strerror}") from e
        if not found.isascii() or not found.isdigit():
            self._create()  # empty or damaged, by a power cut for instance: no newer program writes such a version
            return
        if found != VERSION:
            # The place for migrations: version 1 is the first format, so there is none to migrate from
            raise InvalidState(
                f"store '{self.root}' has format version '{found}', this program knows version {VERSION}",
                hint="use the newer program, or set ROOTLESS_ROOT to another directory",
            )
        for part in PARTS:
            if not os.path.lexists(f"{self.root}/{part}"):  # lost; what is in it is gone, but the store goes on
                try:
                    make_private(f"{self.root}/{part}")
                except OSError:
                    pass  # who needs it tells

    def _create(self) -> None:
        """Make the parts; `version` is written last, so that a killed creation is simply done again."""
        try:
            for part in PARTS:
                ensure_private(f"{self.root}/{part}")
            with Lock(self.path("locks", "index")):
                if not os.path.exists(self.path("oci-layout")):
                    atomic_write(self.path("oci-layout"), b'{"imageLayoutVersion":"1.0.0"}\n')
                if not os.path.exists(self.path("index.json")):
                    atomic_write(
                        self.path("index.json"),
                        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}\n',
                    )
                for name in ("store", "names"):  # removing on a full disk must find its locks made
                    Lock(self.path("locks", name)).make()
                atomic_write(self.path("version"), VERSION.encode() + b"\n")
        except OSError as e:
            raise HostLimit(
                f"cannot make the store '{self.root}': {e.strerror}",
                hint="set ROOTLESS_ROOT to a directory that you can write",
            ) from e

    def path(self, *names: str) -> str:
        """The absolute path of a part of the store."""
        return "/".join((self.root, *names))

    def using(self) -> Lock:
        """The shared lock that a pull, load or create holds (in a `with`) from its first object until its name is
        written: garbage collection never runs in between."""
        return Lock(self.path("locks", "store"), shared=True)

    def exclusive(self) -> Lock:
        """The lock of garbage collection: nobody is between an object and its name while it is held."""
        return Lock(self.path("locks", "store"))

    @property
    def id_map(self) -> IdMap:
        """The user's default id map, with which layers, volumes and their removal work. Read once per process."""
        return self.default_map()

    def default_map(self) -> IdMap:
        """`id_map`, for the parts of the store that may never need it."""
        if self._id_map is None:
            from rootless.host.subid import default_id_map

            self._id_map = default_id_map()
        return self._id_map

    @property
    def blobs(self) -> Blobs:
        """The contents of images, by their digest."""
        if self._blobs is None:
            from rootless.storage.store.blobs import Blobs

            self._blobs = Blobs(self.root)
        return self._blobs

    @property
    def index(self) -> ImageIndex:
        """The images and their names."""
        if self._index is None:
            from rootless.storage.store.index import ImageIndex

            self._index = ImageIndex(self.root, self.blobs)
        return self._index

    @property
    def layers(self) -> Layers:
        """Unpacked layers by chain id."""
        if self._layers is None:
            from rootless.storage.layers.layer_store import Layers

            self._layers = Layers(self.root, self.default_map)
        return self._layers

    @property
    def containers(self) -> Containers:
        """Containers' records, names and states."""
        if self._containers is None:
            from rootless.storage.store.containers import Containers

            self._containers = Containers(self.root)
        return self._containers

    @property
    def volumes(self) -> Volumes:
        """The volumes: directories that outlive containers."""
        if self._volumes is None:
            from rootless.storage.store.volumes import Volumes

            self._volumes = Volumes(self.root, self.containers, self.default_map)
        return self._volumes
