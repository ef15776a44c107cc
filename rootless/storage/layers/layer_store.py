"""The unpacked layers of a store, by chain id (image-spec config.md): each is there once, and all users share it.

    layers/<chain>/{diff/, layer.json, recipe.zst}   the tree, with owners by the user's default id map, and its recipe
    layers/<chain>+<map key>/{diff/, layer.json}     the same tree with owners by another id map
    views/<chain>+<map key>/{diff/, layer.json}      a layer with all below it as one view, for another id map

A layer is complete when its directory has its final name. Layers of one image may be unpacked in parallel. What needs
the layers below (hard links to their files, directories that the archive only implies) is done at the end, when they
are there. The unpacking itself happens in the process of unpack_worker.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from rootless.errors import HostLimit, InvalidInput, InvalidState, NotFound
from rootless.image.digest import hex_of
from rootless.paths import Lock, ensure_private, make_new_private
from rootless.records.json_file import random_name, read_record, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from rootless.image.decompress import ByteSource
    from rootless.records.id_map import IdMap
    from rootless.records.rootfs import RootfsPlan
    from rootless.storage.layers.layer_record import LayerRecord, LostAttributes
    from rootless.storage.worker_jobs import Job

    _Answer = TypeVar("_Answer")

    Names = list[str]

_GRACE = 30.0  # seconds within which the unpacking of a layer must begin when the one above it is read and needs it
_POLL = 0.05  # seconds
_AT_FDCWD = -100


class LayerArchive(NamedTuple):
    """The archive from which a layer is unpacked.

    parent: chain id of the layer below, None at the bottom; diff_id: the digest that the uncompressed tar must have,
    None when any will do; stream: the archive's bytes, of which the first ones say how they are compressed; progress:
    called with the number of bytes of each piece that was read.
    """

    parent: str | None
    diff_id: str | None
    stream: ByteSource
    progress: Callable[[int], None] | None = None


class LayerOptions(NamedTuple):
    """How a layer is made of a writable directory.

    move: whether the directory itself may become the layer, after which its plan cannot be mounted any more; else it is
    copied. The copy driver's directory holds the whole image, so that its changes are always copied.
    timestamp: seconds since the epoch, which replace any later time of a file; exclude: paths where something is
    mounted: what the runtime made there is no change; squash: whether the layer holds the whole tree and has no parent.
    """

    move: bool = False
    timestamp: int | None = None
    exclude: Sequence[str] = ()
    squash: bool = False


class Layers:
    """The unpacked layers of the store at `root`: its directory `layers`.

    default_map: returns the user's default id map. It costs a look at the host, so it is called only when needed.
    """

    __slots__ = ("_default_map", "_root", "_views", "directory")

    def __init__(self, root: str, default_map: Callable[[], IdMap]) -> None:
        self._root = root
        self._default_map = default_map
        self.directory = f"{root}/layers"
        # Not below `directory`, which is the data-only layer of a mount of views: overlayfs refuses layers of which one
        # is below another (ELOOP)
        self._views = f"{root}/views"

    def has(self, chain_id: str) -> bool:
        """Whether the layer is unpacked."""
        return os.path.exists(f"{self.directory}/{hex_of(chain_id)}")

    def record(self, chain_id: str) -> LayerRecord:
        """The layer's record. Raises NotFound; InvalidInput when it is damaged."""
        from rootless.storage.layers.layer_record import LayerRecord

        path = f"{self.directory}/{hex_of(chain_id)}/layer.json"
        return LayerRecord.from_json(read_record(path, what="layer record"), path)

    def size(self, chain_id: str) -> int:
        """Bytes of the layer's files, unpacked. Raises NotFound; InvalidInput when the layer's record is damaged."""
        return self.record(chain_id).content.size

    def list(self) -> Names:
        """Chain ids of all unpacked layers."""
        return [f"sha256:{name}" for name in os.listdir(self.directory) if len(name) == 64]

    def copies(self) -> Names:
        """The paths of the copies and views of layers for other id maps. Their names are LAYER+MAP, where LAYER is the
        name of the layer (64 digits)."""
        names = [f"{self.directory}/{name}" for name in os.listdir(self.directory) if name[64:65] == "+"]
        try:
            return names + [f"{self._views}/{name}" for name in os.listdir(self._views)]
        except FileNotFoundError:
            return names  # no view was made yet

    def unpack(self, chain_id: str, archive: LayerArchive) -> None:
        """Unpack one layer. The archive's stream is always read to its end, even when the layer is here already.

        Several layers may be unpacked at once, by threads too. A layer that another process is unpacking is waited for.
        The bottom layer must be started first: one that needs the layers below waits for them.
        Raises InvalidInput (archive breaks the rules), DigestMismatch (diff_id), HostLimit (no room, no namespaces).
        """
        with self._lock(chain_id):
            if self.has(chain_id):
                from rootless.storage.layers import worker_client

                worker_client.drain_stream(archive.stream, archive.progress)
                return
            temporary = self._make()
            try:
                self._publish(temporary, self._unpack(temporary, archive), self.path(chain_id))
            except BaseException:
                self._delete(temporary)
                raise

    def unpack_new(self, archive: LayerArchive) -> str:
        """Unpack a layer whose digest is not known yet, on a parent that is there, and return its chain id.

        Raises as `unpack`.
        """
        temporary = self._make()
        try:
            return self._publish_new(temporary, self._unpack(temporary, archive))
        except BaseException:
            self._delete(temporary)
            raise

    def commit(self, plan: RootfsPlan, container_map: IdMap, options: LayerOptions) -> str | None:
        """Make a layer of what a container has changed; returns its chain id, None when nothing was changed.

        plan: its driver's, on layers of this store; container_map: its id map. Raises InvalidInput, HostLimit.
        """
        from rootless.storage.layers.jobs import Changed, CommitJob
        from rootless.storage.layers.layer_record import LayerRecord

        parent = None if options.squash else self.top_of(plan)
        temporary = self._make()
        changed = Changed(plan, container_map, options.exclude)
        job = CommitJob(changed, temporary, options.timestamp, move=options.move, squash=options.squash)
        try:
            content = self._run(job)
            if not content.entries and options.squash:  # an empty image
                self._delete(temporary)
                return None
            if not content.entries:
                os.rmdir(f"{temporary}/diff")
                os.rmdir(temporary)
                return None
            return self._publish_new(temporary, LayerRecord(content, parent, self._default_map().key()))
        except BaseException:
            self._delete(temporary)
            raise

    def top_of(self, plan: RootfsPlan) -> str | None:
        """The chain id of the topmost layer of a driver's plan; None when it has none."""
        directory = os.path.dirname(plan.lowerdirs[0])
        if os.path.dirname(directory) not in (self.directory, self._views):
            return None  # an image without layers: the driver made an empty directory
        return f"sha256:{os.path.basename(directory).partition('+')[0]}"

    def _unpack(self, temporary: str, archive: LayerArchive) -> LayerRecord:
        """Unpack into the directory `temporary`, and return the layer's record."""
        from rootless.storage.layers.jobs import FinishJob, UnpackJob
        from rootless.storage.layers.layer_record import LayerRecord

        if archive.diff_id is not None:
            hex_of(archive.diff_id)
        job = UnpackJob(f"{temporary}/diff", archive.diff_id)
        unpacked = self._run(job, archive)
        content, unfinished = unpacked.content, unpacked.unfinished
        if archive.parent is None and unfinished.links:
            raise InvalidInput(
                f"layer '{content.diff_id}' has a hard link to a missing file '{unfinished.links[0][1]}'"
            )
        lowers: Names = []
        if archive.parent is not None and unfinished.needs_lowers:
            lowers = self._lowers(archive.parent)
        if lowers or unfinished.replaced or unfinished.whiteouts:
            self._run(FinishJob(f"{temporary}/diff", lowers, unfinished))
        return LayerRecord(content, archive.parent, self._default_map().key())

    def _run(self, job: Job[_Answer], archive: LayerArchive | None = None) -> _Answer:
        """Do a job in a worker, which gets the bytes of `archive`, and return its answer."""
        # Imported here: a plain start of a container only asks where layers lie, and needs no worker
        from rootless.storage.layers import worker_client

        if archive is None:
            return worker_client.run_job(job, self._default_map())
        return worker_client.run_job(job, self._default_map(), stream=archive.stream, progress=archive.progress)

    def _delete(self, temporary: str) -> None:
        """Remove the directory of a layer that was not completed."""
        from rootless.storage.layers.jobs import DeleteJob

        self._run(DeleteJob(temporary))

    def replace(self, chain_id: str, parent_chain_id: str | None, diff_id: str, stream: ByteSource) -> None:
        """Unpack a damaged layer anew; the old tree goes into the store's quarantine.

        Containers that run keep the old tree. Raises as `unpack`, and leaves the old tree in its place then.
        """
        quarantine = ensure_private(f"{self._root}/quarantine")
        with self._lock(chain_id):
            final, temporary = self.path(chain_id), self._make()
            try:
                record = self._unpack(temporary, LayerArchive(parent_chain_id, diff_id, stream))
                self._carry_over(final, temporary)
                if not self.has(chain_id):
                    self._publish(temporary, record, final)
                    return
                write_record(f"{temporary}/layer.json", record.to_json())
                _exchange(temporary, final)
            except BaseException:
                self._delete(temporary)
                raise
            try:
                os.rename(temporary, f"{quarantine}/{hex_of(chain_id)}-{random_name()}")
            except OSError as e:
                raise HostLimit(f"cannot move the damaged layer '{temporary}' away: {e.strerror}") from e

    @staticmethod
    def _carry_over(old: str, new: str) -> None:
        """Copy blobs.json, which says where the layer was pushed, from the directory `old` to `new`."""
        try:
            with open(f"{old}/blobs.json", "rb") as known, open(f"{new}/blobs.json", "wb") as kept:
                kept.write(known.read(1 << 20))
        except OSError:
            pass  # without it, the next push only does more work

    def lowerdirs(self, chain_ids: Sequence[str], id_map: IdMap | None = None) -> Names:
        """The trees of an image's layers, topmost first. chain_ids: bottom first, as image.manifest.chain_ids.

        For an id map other than the store's default, a copy with owners by that map is made at its first use (sharing
        blocks where the file system can) and kept. Raises NotFound when a layer is not unpacked, HostLimit.
        """
        other = None if id_map is None or id_map.key() == self._default_map().key() else id_map
        directories = []
        for chain_id in chain_ids:
            path = self._path_for(chain_id, other)
            if other is not None and not os.path.exists(path):
                self._remap(chain_id, path, other)
            elif not os.path.exists(path):
                raise NotFound(f"layer '{chain_id}' is not unpacked", hint="pull the image again")
            directories.append(f"{path}/diff")
        directories.reverse()
        return directories

    def planned_lowerdirs(self, chain_ids: Sequence[str], id_map: IdMap) -> Names:
        """What `lowerdirs` will return, without making copies for the id map. Raises NotFound."""
        other = None if id_map.key() == self._default_map().key() else id_map
        self.lowerdirs(chain_ids)
        return [f"{self._path_for(chain_id, other)}/diff" for chain_id in reversed(chain_ids)]

    def _path_for(self, chain_id: str, id_map: IdMap | None) -> str:
        """Where the layer lies, or its copy for an id map other than the default one."""
        return self.path(chain_id) if id_map is None else f"{self.path(chain_id)}+{id_map.key()}"

    def planned_view(self, chain_ids: Sequence[str], id_map: IdMap) -> str:
        """The tree of the view that `make_view` makes. Raises NotFound when a layer is not unpacked."""
        self.lowerdirs(chain_ids)
        return f"{self._views}/{hex_of(chain_ids[-1])}+{id_map.key()}/diff"

    def make_view(self, chain_ids: Sequence[str], id_map: IdMap) -> None:
        """Make one view of an image's layers (bottom first), with owners by `id_map`, if it is not there yet.

        Its files have their content below `directory` (storage.files.layer_views). Raises NotFound, HostLimit.
        """
        from rootless.storage.layers.jobs import ViewJob

        final = os.path.dirname(self.planned_view(chain_ids, id_map))
        with self._lock(chain_ids[-1]):
            if os.path.exists(final):
                return
            record = self.record(chain_ids[-1])
            ensure_private(self._views)
            temporary = self._make()
            job = ViewJob(self.directory, [hex_of(each) for each in chain_ids], f"{temporary}/diff", id_map)
            self._make_other(record, job, temporary, final, id_map)

    def bytes_to_copy(self, chain_ids: Sequence[str], id_map: IdMap) -> int:
        """The bytes of files in the layers that have no copy for `id_map` yet. Raises NotFound, InvalidInput."""
        missing = [each for each in chain_ids if not os.path.exists(self._path_for(each, id_map))]
        return sum(self.size(each) for each in missing)

    def remove(self, chain_id: str) -> None:
        """Remove the layer, its copies and its views for other id maps; harmless when it is not here."""
        name = hex_of(chain_id)
        for copy in self.copies():
            if os.path.basename(copy).startswith(name):
                self.remove_copy(copy)
        self.remove_copy(self.path(chain_id))

    def remove_copy(self, path: str) -> None:
        """Remove one of `copies`; harmless when it is not here."""
        from rootless.storage.files.removal import remove_tree

        # It is renamed away first: a half removed tree under its own name would count as a whole one
        remove_tree(path, self._default_map())

    def path(self, chain_id: str) -> str:
        """Where the layer lies or would lie."""
        return f"{self.directory}/{hex_of(chain_id)}"

    def _lock(self, chain_id: str) -> Lock:
        return Lock(f"{self._root}/locks/layer-{hex_of(chain_id)}")

    def _make(self) -> str:
        temporary = f"{self.directory}/.{random_name()}"
        try:
            make_new_private(temporary)
            os.mkdir(f"{temporary}/diff", 0o755)
            os.chmod(f"{temporary}/diff", 0o755)  # noqa: S103 - the image's root directory; its parent is 0700
        except OSError as e:
            raise HostLimit(f"cannot make layer directory '{temporary}': {e.strerror}") from e
        return temporary

    def _publish(self, temporary: str, record: LayerRecord, final: str) -> None:
        """Give a complete and durable tree its name."""
        try:
            write_record(f"{temporary}/layer.json", record.to_json())
            os.rename(temporary, final)
        except OSError as e:
            raise HostLimit(f"cannot make layer directory '{final}': {e.strerror}") from e

    def _publish_new(self, temporary: str, record: LayerRecord) -> str:
        """Give a complete tree the name that follows from its digest, or remove it when a layer has that name already.

        Returns the chain id.
        """
        from rootless.image.manifest import chain_ids

        parent, diff_id = record.parent, record.content.diff_id
        chain_id = diff_id if parent is None else chain_ids([parent, diff_id])[-1]
        with self._lock(chain_id):
            if not self.has(chain_id):
                self._publish(temporary, record, self.path(chain_id))
                return chain_id
        self._delete(temporary)
        return chain_id

    def _remap(self, chain_id: str, final: str, id_map: IdMap) -> None:
        from rootless.storage.layers.jobs import RemapJob

        with self._lock(chain_id):
            if os.path.exists(final):
                return
            record = self.record(chain_id)
            temporary = self._make()
            job = RemapJob(f"{self.path(chain_id)}/diff", f"{temporary}/diff", id_map)
            self._make_other(record, job, temporary, final, id_map)

    def _make_other(
        self, record: LayerRecord, job: Job[LostAttributes], temporary: str, final: str, id_map: IdMap
    ) -> None:
        """Let a worker fill the directory `temporary` with a tree for `id_map`, and give it the name `final`.

        record: that of the layer whose copy or view it is.
        """
        try:
            record.content.lost = self._run(job)
            record.id_map = id_map.key()
            self._publish(temporary, record, final)
        except BaseException:
            self._delete(temporary)
            raise

    def _lowers(self, chain_id: str) -> Names:
        """The trees of `chain_id` and of all layers below it, topmost first; waits for those being unpacked."""
        directories = []
        current: str | None = chain_id
        while current is not None:
            self._wait_for(current)
            directories.append(f"{self.path(current)}/diff")
            current = self.record(current).parent
        return directories

    def lowers_of(self, record: LayerRecord) -> Names | None:
        """The trees of all layers below the one of `record`, topmost first; None when one of them is not here, or when
        a damaged record leaves unknown which it is."""
        directories = []
        while record.parent is not None:
            directory = f"{self.path(record.parent)}/diff"
            if not os.path.isdir(directory):
                return None
            directories.append(directory)
            try:
                record = self.record(record.parent)
            except (NotFound, InvalidInput):
                return None
        return directories

    def _wait_for(self, chain_id: str) -> None:
        deadline = time.monotonic() + _GRACE
        while not self.has(chain_id):
            with Lock(f"{self._root}/locks/layer-{hex_of(chain_id)}", shared=True):
                pass  # whoever unpacks the layer holds the lock: now it is there, or its unpacking has failed
            if self.has(chain_id):
                return
            if time.monotonic() > deadline:
                raise InvalidState(f"layer '{chain_id}' was never unpacked, and a layer above it needs it")
            time.sleep(_POLL)


def _exchange(new: str, old: str) -> None:
    """Let two directories change places, in one step where the file system can (RENAME_EXCHANGE, rename(2))."""
    from rootless.kernel.files import RENAME_EXCHANGE, renameat2

    try:
        renameat2(_AT_FDCWD, new, _AT_FDCWD, old, RENAME_EXCHANGE)
    except OSError:
        aside = f"{new}-old"
        try:
            os.rename(old, aside)
            os.rename(new, old)
            os.rename(aside, new)
        except OSError as e:
            raise HostLimit(f"cannot replace the layer '{old}': {e.strerror}") from e
