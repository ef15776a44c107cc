"""Unpacked layers by chain id: each once, shared read-only. The unpacking itself happens in unpack_worker's process.

    layers/<chain>/{diff/, layer.json, recipe.zst}   owners by the user's default id map; how to make its tar again
    layers/<chain>+<map key>/{diff/, layer.json}     the same tree with owners by another id map

A layer is complete when its directory has its final name. Layers of one image may be unpacked in parallel: what needs
the parents (hard links to files of lower layers, directories that the archive only implies) is done at the end, when
they are there.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from rootless.errors import HostLimit, InvalidInput, InvalidState, NotFound
from rootless.image.digest import hex_of
from rootless.paths import Lock, ensure_private
from rootless.records.json_file import random_name, read_record, write_record
from rootless.storage.files.removal import remove_tree
from rootless.storage.layers import worker_client

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.image.decompress import ByteSource
    from rootless.records.id_map import IdMap
    from rootless.records.rootfs import RootfsPlan

    Names = list[str]

_PLAIN = "application/vnd.oci.image.layer.v1.tar"
_GRACE = 30.0  # seconds in which the unpacking of a parent must begin once its child is read
_POLL = 0.05
_AT_FDCWD = -100


class Layers:
    """The directory `layers` of the store at `root`.

    default_map: gives the user's default id map, which costs a look at the host and is asked for only when it is used.
    """

    __slots__ = ("_default_map", "_root", "directory")

    def __init__(self, root: str, default_map: Callable[[], IdMap]) -> None:
        self._root = root
        self._default_map = default_map
        self.directory = f"{root}/layers"

    def has(self, chain_id: str) -> bool:
        """True when the layer is unpacked."""
        return os.path.exists(f"{self.directory}/{hex_of(chain_id)}")

    def record(self, chain_id: str) -> dict[str, Any]:
        """What unpacking noted: diff_id, tar_size, parent, size (bytes of files), entries, lost (what could not be
        kept), recipe (whether there is one; layers made before there were recipes have their blob)."""
        return read_record(f"{self.directory}/{hex_of(chain_id)}/layer.json", what="layer record")

    def size(self, chain_id: str) -> int:
        """Bytes of the layer's files, unpacked. Raises NotFound."""
        return int(self.record(chain_id)["size"])

    def list(self) -> Names:
        """Chain ids of all unpacked layers."""
        return [f"sha256:{name}" for name in os.listdir(self.directory) if len(name) == 64]

    def unpack(
        self,
        chain_id: str,
        parent_chain_id: str | None,
        diff_id: str,
        media_type: str,
        stream: ByteSource,
        id_map: IdMap | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Unpack one layer from its compressed bytes; `stream` is always read to its end, once.

        id_map: the user's default one (None: the store's). progress: called with the compressed bytes read each time.
        Several layers may be unpacked at once, from threads too; a layer that another process is unpacking is
        waited for. Start them bottom first: one with links into lower layers waits for its parent.
        Raises InvalidInput (archive breaks the rules), DigestMismatch (diff_id), HostLimit (no space, no namespaces).
        """
        hex_of(diff_id)
        id_map = id_map or self._default_map()
        with self._lock(chain_id):
            if self.has(chain_id):
                worker_client.drain(stream, progress)
                return
            temporary = self._make()
            try:
                record = self._unpack(temporary, parent_chain_id, media_type, diff_id, stream, id_map, progress)
                self._publish(temporary, record, self.path(chain_id))
            except BaseException:
                worker_client.run(worker_client.delete_job(temporary), id_map)
                raise

    def unpack_new(
        self,
        parent_chain_id: str | None,
        media_type: str,
        stream: ByteSource,
        progress: Callable[[int], None] | None = None,
    ) -> str:
        """Unpack a layer of which nothing is known yet; its chain id (`record` has diff_id and tar_size). Else as
        `unpack`; the parent is there already."""
        temporary = self._make()
        try:
            record = self._unpack(temporary, parent_chain_id, media_type, None, stream, self._default_map(), progress)
            return self._publish_new(temporary, record)
        except BaseException:
            worker_client.run(worker_client.delete_job(temporary), self._default_map())
            raise

    def commit(
        self,
        plan: RootfsPlan,
        container_map: IdMap,
        *,
        move: bool = False,
        timestamp: int | None = None,
        exclude: Sequence[str] = (),
        squash: bool = False,
    ) -> str | None:
        """Make a layer of what a container has changed; its chain id, or None when that is nothing.

        plan: of its driver, on layers of this store; container_map: its ids. move: the writable directory becomes the
        layer (the container is not used again) instead of a copy. timestamp: seconds, no file's time is later.
        exclude: paths where something is mounted, which the runtime may have made. squash: the whole tree, not only
        the changes; the layer has no parent then. Raises InvalidInput, HostLimit.
        """
        id_map = self._default_map()
        parent = None if squash else self.top_of(plan)
        temporary = self._make()
        job = worker_client.commit_job(plan, container_map, exclude, directory=temporary, timestamp=timestamp)
        job |= {"move": move, "squash": squash}
        try:
            result = worker_client.run(job, id_map)
            if not result["entries"] and squash:  # an empty image
                worker_client.run(worker_client.delete_job(temporary), id_map)
                return None
            if not result["entries"]:
                os.rmdir(f"{temporary}/diff")
                os.rmdir(temporary)
                return None
            record = {**result, "parent": parent, "id_map": id_map.key(), "recipe": True}
            return self._publish_new(temporary, record)
        except BaseException:
            worker_client.run(worker_client.delete_job(temporary), id_map)
            raise

    def top_of(self, plan: RootfsPlan) -> str | None:
        """The chain id of the topmost layer of a driver's plan; None when it has none."""
        directory = os.path.dirname(plan.lowerdirs[0])
        if os.path.dirname(directory) != self.directory:
            return None  # an image without layers: the driver made an empty directory
        return f"sha256:{os.path.basename(directory).partition('+')[0]}"

    def _unpack(
        self,
        temporary: str,
        parent_chain_id: str | None,
        media_type: str,
        diff_id: str | None,
        stream: ByteSource,
        id_map: IdMap,
        progress: Callable[[int], None] | None,
    ) -> dict[str, Any]:
        """Unpack into `temporary`; the layer's record."""
        job = worker_client.unpack_job(f"{temporary}/diff", media_type, diff_id)
        result = worker_client.run(job, id_map, stream=stream, progress=progress)
        if parent_chain_id is None and result["links"]:
            raise InvalidInput(
                f"layer '{result['diff_id']}' has a hard link to a missing file '{result['links'][0][1]}'"
            )
        lowers: Names = []
        if parent_chain_id is not None and (result["links"] or result["implied"]):
            lowers = self._lowers(parent_chain_id)
        if lowers or result["replaced"]:
            worker_client.run(worker_client.finish_job(temporary, lowers, result), id_map)
        record = {key: result[key] for key in ("diff_id", "tar_size", "size", "entries", "markers", "lost")}
        return {**record, "parent": parent_chain_id, "id_map": id_map.key(), "recipe": True}

    def replace(self, chain_id: str, parent_chain_id: str | None, diff_id: str, stream: ByteSource) -> None:
        """Unpack a damaged layer anew from its uncompressed tar; the old tree goes into the store's quarantine.

        Containers that run keep the old one. Raises as `unpack`, and leaves the old one in its place then.
        """
        id_map = self._default_map()
        quarantine = ensure_private(f"{self._root}/quarantine")
        with self._lock(chain_id):
            final, temporary = self.path(chain_id), self._make()
            try:
                record = self._unpack(temporary, parent_chain_id, _PLAIN, diff_id, stream, id_map, None)
                self._carry_over(final, temporary)
                if not self.has(chain_id):
                    self._publish(temporary, record, final)
                    return
                write_record(f"{temporary}/layer.json", record)
                _exchange(temporary, final)
            except BaseException:
                worker_client.run(worker_client.delete_job(temporary), id_map)
                raise
            try:
                os.rename(temporary, f"{quarantine}/{hex_of(chain_id)}-{random_name()}")
            except OSError as e:
                raise HostLimit(f"cannot move the damaged layer '{temporary}' away: {e.strerror}") from e

    @staticmethod
    def _carry_over(old: str, new: str) -> None:
        """What is known of a layer beside its tree."""
        try:
            with open(f"{old}/blobs.json", "rb") as known, open(f"{new}/blobs.json", "wb") as kept:
                kept.write(known.read(1 << 20))
        except OSError:
            pass  # a memory only

    def lowerdirs(self, chain_ids: Sequence[str], id_map: IdMap | None = None) -> Names:
        """The directories of an image's layers, topmost first. chain_ids: bottom first, as image.manifest.chain_ids.

        For another id map than the store's default a copy with that map's owners is made at first use (its blocks
        shared where the filesystem can) and kept. Raises NotFound when a layer is not unpacked, HostLimit.
        """
        default = self._default_map()
        suffix = "" if id_map is None or id_map.key() == default.key() else f"+{id_map.key()}"
        directories = []
        for chain_id in chain_ids:
            plain = self.path(chain_id)
            if suffix and not os.path.exists(f"{plain}{suffix}"):
                assert id_map is not None
                self._remap(chain_id, f"{plain}{suffix}", id_map)
            elif not os.path.exists(plain):
                raise NotFound(f"layer '{chain_id}' is not unpacked", hint="pull the image again")
            directories.append(f"{plain}{suffix}/diff")
        directories.reverse()
        return directories

    def planned_lowerdirs(self, chain_ids: Sequence[str], id_map: IdMap) -> Names:
        """What `lowerdirs` will give, whether the copies for that id map are made or not. Raises NotFound."""
        suffix = "" if id_map.key() == self._default_map().key() else f"+{id_map.key()}"
        self.lowerdirs(chain_ids)
        return [f"{self.path(chain_id)}{suffix}/diff" for chain_id in reversed(chain_ids)]

    def remove(self, chain_id: str) -> None:
        """Remove the layer and its copies for other id maps; harmless when it is not here."""
        name = hex_of(chain_id)
        for found in os.listdir(self.directory):
            if found == name or found.startswith(f"{name}+"):
                remove_tree(f"{self.directory}/{found}", self._default_map())

    def path(self, chain_id: str) -> str:
        """Where the layer lies or would lie."""
        return f"{self.directory}/{hex_of(chain_id)}"

    def _lock(self, chain_id: str) -> Lock:
        return Lock(f"{self._root}/locks/layer-{hex_of(chain_id)}")

    def _make(self) -> str:
        temporary = f"{self.directory}/.{random_name()}"
        try:
            os.mkdir(temporary, 0o700)
            os.mkdir(f"{temporary}/diff", 0o755)
            os.chmod(f"{temporary}/diff", 0o755)  # noqa: S103 - the image's root directory; its parent is 0700
        except OSError as e:
            raise HostLimit(f"cannot make layer directory '{temporary}': {e.strerror}") from e
        return temporary

    def _publish(self, temporary: str, record: dict[str, Any], final: str) -> None:
        """Give a complete and durable tree its name."""
        try:
            write_record(f"{temporary}/layer.json", record)
            os.rename(temporary, final)
        except OSError as e:
            raise HostLimit(f"cannot make layer directory '{final}': {e.strerror}") from e

    def _publish_new(self, temporary: str, record: dict[str, Any]) -> str:
        """Give a complete tree the name that its digest says, or remove it when that is there already; its chain id."""
        from rootless.image.manifest import chain_ids

        parent, diff_id = record["parent"], record["diff_id"]
        chain_id: str = diff_id if parent is None else chain_ids([parent, diff_id])[-1]
        with self._lock(chain_id):
            if not self.has(chain_id):
                self._publish(temporary, record, self.path(chain_id))
                return chain_id
        worker_client.run(worker_client.delete_job(temporary), self._default_map())
        return chain_id

    def _remap(self, chain_id: str, final: str, id_map: IdMap) -> None:
        default = self._default_map()
        with self._lock(chain_id):
            if os.path.exists(final):
                return
            record = self.record(chain_id)
            temporary = self._make()
            try:
                result = worker_client.run(
                    worker_client.remap_job(f"{self.path(chain_id)}/diff", temporary, id_map), default
                )
                self._publish(temporary, {**record, "id_map": id_map.key(), "lost": result["lost"]}, final)
            except BaseException:
                worker_client.run(worker_client.delete_job(temporary), default)
                raise

    def _lowers(self, chain_id: str) -> Names:
        """The diff directories of `chain_id` and all below it, topmost first, waiting for those being unpacked."""
        directories = []
        current: str | None = chain_id
        while current is not None:
            self._wait_for(current)
            directories.append(f"{self.path(current)}/diff")
            current = self.record(current)["parent"]
        return directories

    def _wait_for(self, chain_id: str) -> None:
        deadline = time.monotonic() + _GRACE
        while not self.has(chain_id):
            with Lock(f"{self._root}/locks/layer-{hex_of(chain_id)}", shared=True):
                pass  # whoever unpacks it holds the lock: when we get it, the layer is there or its unpacking failed
            if self.has(chain_id):
                return
            if time.monotonic() > deadline:
                raise InvalidState(f"layer '{chain_id}' was never unpacked, and a layer above it needs it")
            time.sleep(_POLL)


def _exchange(new: str, old: str) -> None:
    """Let two directories change places, at once where the file system can."""
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
