"""What the tests of the storage room share: a store, archives made by tarfile, looks inside the namespace."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootless.host import userns
from rootless.paths import user_directories
from rootless.records.rootfs import RootfsPlan
from rootless.storage import drivers
from rootless.storage.drivers import choice
from rootless.storage.layers import worker_client
from rootless.storage.layers.jobs import VerifyJob
from rootless.storage.layers.layer_store import LayerArchive
from rootless.storage.store.store import Store
from tests.conftest import require

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
PLAIN = "application/vnd.oci.image.layer.v1.tar"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


@pytest.fixture
def store(store_root: Path) -> Store:
    """An empty store."""
    return Store(user_directories(str(store_root)))


class Archive:
    """Builds a layer, one member a call; every method returns the archive again."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._bytes, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: object) -> Archive:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.size = len(content)
        member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        member.mtime = 1_600_000_000
        for field, value in fields.items():
            setattr(member, field, value)
        self._tar.addfile(member, io.BytesIO(content))
        return self

    def directory(self, name: str, **fields: object) -> Archive:
        return self.add(name, tarfile.DIRTYPE, **fields)

    def file(self, name: str, content: bytes = b"", **fields: object) -> Archive:
        return self.add(name, tarfile.REGTYPE, content, **fields)

    def symlink(self, name: str, target: str, **fields: object) -> Archive:
        return self.add(name, tarfile.SYMTYPE, linkname=target, **fields)

    def link(self, name: str, target: str, **fields: object) -> Archive:
        return self.add(name, tarfile.LNKTYPE, linkname=target, **fields)

    def tar(self) -> bytes:
        self._tar.close()
        return self._bytes.getvalue()


def chain(parent: str | None, diff_id: str) -> str:
    return diff_id if parent is None else "sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest()


class Unpacker:
    """Unpacks layers into a store, each on top of the one before, and looks at the result inside the namespace."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.chains: list[str] = []

    def layer(self, archive: Archive | bytes, media_type: str = GZIP, compressed: bytes | None = None) -> Path:
        """Unpack one layer; the path of its diff directory."""
        tar = archive.tar() if isinstance(archive, Archive) else archive
        diff_id = "sha256:" + hashlib.sha256(tar).hexdigest()
        parent = self.chains[-1] if self.chains else None
        if compressed is None:
            compressed = gzip.compress(tar, 1) if media_type == GZIP else tar
        chain_id = chain(parent, diff_id)
        self.store.layers.unpack(chain_id, LayerArchive(parent, diff_id, io.BytesIO(compressed)))
        self.chains.append(chain_id)
        self.check(chain_id, diff_id)
        return Path(self.store.layers.path(chain_id), "diff")

    def check(self, chain_id: str, diff_id: str) -> None:
        """Every archive that is unpacked, however odd, can be made again, and its tree is what it says."""
        record = self.store.layers.record(chain_id)
        job = VerifyJob(self.store.layers.path(chain_id), record.content.lost, self.store.layers.lowers_of(record))
        found = worker_client.run_job(job, self.store.id_map)
        assert found.to_json() == {"diff_id": diff_id, "count": 0, "texts": []}

    def inside(self, function: Callable[[], object]) -> object:
        """The (JSON) result of a function run in the store's user namespace."""
        return json.loads(userns.call_in_new_namespace(self.store.id_map, lambda: json.dumps(function()).encode()))


@pytest.fixture
def unpacker(store: Store) -> Unpacker:
    """Unpacks into `store`."""
    return Unpacker(store)


class Mounted:
    """Runs functions in a namespace in which a container's root file system is mounted."""

    def __init__(self, unpacker: Unpacker, driver: str) -> None:
        self.unpacker = unpacker
        self.driver = driver
        self.count = 0
        self.plan: RootfsPlan

    def run(self, function: Callable[[str], str], *, volatile: bool = False, fresh: bool = True) -> str:
        store = self.unpacker.store
        if fresh:
            self.count += 1
            directory = store.path("containers", f"{self.count:064x}")
            os.mkdir(directory, 0o700)
            lowerdirs = store.layers.lowerdirs(self.unpacker.chains)
            self.plan = drivers.plan_root(self.driver, directory, lowerdirs, volatile=volatile)
            drivers.prepare_root(self.plan, store.id_map)
        directory = self.plan.directory
        target = f"{directory}/rootfs"
        os.makedirs(target, exist_ok=True)
        mounter = drivers.make_mounter(self.plan)

        def inside() -> bytes:
            mounter(target)
            os.chdir(target)
            return function(target).encode("utf-8", "surrogateescape")

        try:
            return userns.call_in_new_namespace(store.id_map, inside).decode("utf-8", "surrogateescape")
        finally:
            mounter.close()
            drivers.unmount_root(self.plan)


def reason_against(driver: str, store: Store) -> str:
    """Why the driver does not work in the store, "" when it does."""
    tried = choice.TriedDriver(drivers.find_driver(driver), store.id_map, store.path("cache-of-tests"))
    found = tried.probe(store.path("containers"))
    return "" if found.works else found.detail


@pytest.fixture(params=drivers.driver_names())
def mounted(request: pytest.FixtureRequest, unpacker: Unpacker) -> Iterator[Mounted]:
    store = unpacker.store
    reason = reason_against(request.param, store)
    require(not reason, f"driver {request.param}: {reason}")
    yield Mounted(unpacker, request.param)
