"""The store of one user: where its parts lie, the version of its format, and its locks.

    version  oci-layout  index.json  blobs/sha256/  layers/  containers/  names/  volumes/  networks/  incoming/  trash/
    locks/

Locks are taken in this order: store (shared or exclusive), layer, then index or names. No process waits for the store
lock while it holds another one, so that no two processes can wait for each other.
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
    from rootless.storage.store.networks import Networks
    from rootless.storage.store.volumes import Volumes

VERSION = "1"
PARTS = ("blobs/sha256", "layers", "containers", "names", "volumes", "networks", "incoming", "trash", "locks")
_TOP = frozenset(part.partition("/")[0] for part in PARTS) | {
    "version", "oci-layout", "index.json", "quarantine", "build-cache", "views",
    "events.log", "events.log.1", "events.log.lock", "cache", "run",
}  # fmt: skip


def is_own_name(name: str) -> bool:
    """Whether the store makes entries of this name in its root directory. `--root` may name a directory with others."""
    return name in _TOP or (name.startswith(".") and name.endswith(".tmp")) or name.startswith(".reset-")


class Store:
    """The store below `directories.data`, which is made when it is not there.

    Raises HostLimit when it cannot be made or is not private, InvalidState when a newer version has written it.
    """

    __slots__ = (
        "_blobs",
        "_containers",
        "_id_map",
        "_index",
        "_layers",
        "_networks",
        "_volumes",
        "directories",
        "root",
    )

    def __init__(self, directories: Directories) -> None:
        self.directories = directories
        self.root = directories.data
        self._blobs: Blobs | None = None
        self._containers: Containers | None = None
        self._id_map: IdMap | None = None
        self._index: ImageIndex | None = None
        self._layers: Layers | None = None
        self._networks: Networks | None = None
        self._volumes: Volumes | None = None
        self._open()

    def _open(self) -> None:
        ensure_private(self.root, is_own=is_own_name)
        # The compiled seccomp filters and the probes' results in the cache are believed: nobody else may write there
        close_to_others(self.directories.cache)
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
            self._create()  # a power cut, for instance, has damaged the file: no newer version writes such a content
            return
        if found != VERSION:
            # A migration from an older format would come here; version 1 is the first one
            raise InvalidState(
                f"store '{self.root}' has format version '{found}', this program knows version {VERSION}",
                hint="use the newer program, or set ROOTLESS_ROOT to another directory",
            )
        for part in PARTS:
            # A directory that was lost, with all that was in it, is made again, so that the rest can still be used
            if not os.path.lexists(f"{self.root}/{part}"):
                try:
                    make_private(f"{self.root}/{part}")
                except OSError:
                    pass  # whatever needs the directory fails with its own message

    def _create(self) -> None:
        """Make all parts. `version` is written last: without it, the next command makes again what is missing."""
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
                # Removing must work on a full disk, which has no inode for a new lock file
                for name in ("store", "names"):
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
        """The shared lock that a pull, load or create holds, from before its first object until its name is written.

        Garbage collection, which would take an object without a name for garbage, never runs meanwhile.
        """
        return Lock(self.path("locks", "store"), shared=True)

    def exclusive(self) -> Lock:
        """The exclusive lock of garbage collection: while it is held, no object waits for its name."""
        return Lock(self.path("locks", "store"))

    @property
    def id_map(self) -> IdMap:
        """The user's default id map, by which files in the store have their owners. A process finds it out once."""
        return self.default_map()

    def default_map(self) -> IdMap:
        """The same as `id_map`, as a function for the parts of the store that may never need the map."""
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

    @property
    def networks(self) -> Networks:
        """The networks with names."""
        if self._networks is None:
            from rootless.storage.store.networks import Networks

            self._networks = Networks(self.root)
        return self._networks
