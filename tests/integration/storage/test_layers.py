"""Unpacking in parallel, other id maps, kills at each step, full disks, garbage."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rootless.errors import HostLimit
from rootless.host import subid, userns
from rootless.paths import user_directories
from rootless.records.container import ContainerRecord
from rootless.storage.files.removal import remove_tree
from rootless.storage.layers.layer_store import LayerArchive
from rootless.storage.store.gc import collect_garbage
from rootless.storage.store.store import Store
from tests.conftest import require

from .conftest import Archive, Unpacker, chain, reason_against


def diff_id_of(tar: bytes) -> str:
    return "sha256:" + hashlib.sha256(tar).hexdigest()


class Slow(io.RawIOBase):
    """A stream that waits for `go` before its last byte."""

    def __init__(self, content: bytes, go: threading.Event) -> None:
        self.stream = io.BytesIO(content)
        self.go = go

    def read(self, size: int = -1) -> bytes:
        if self.stream.tell() > 0:
            self.go.wait(20)
        return self.stream.read(min(size, 100) if self.stream.tell() == 0 else size)


def test_child_with_links_waits_for_its_parent(store: Store) -> None:
    below = Archive().file("a", b"content").tar()
    above = Archive().link("b", "a").tar()
    ids = [chain(None, diff_id_of(below))]
    ids.append(chain(ids[0], diff_id_of(above)))
    go = threading.Event()
    parent = threading.Thread(
        target=store.layers.unpack,
        args=(ids[0], LayerArchive(None, diff_id_of(below), Slow(gzip.compress(below), go))),
    )
    child = threading.Thread(
        target=store.layers.unpack,
        args=(ids[1], LayerArchive(ids[0], diff_id_of(above), io.BytesIO(gzip.compress(above)))),
    )
    parent.start()
    child.start()
    child.join(1)
    assert child.is_alive()
    go.set()
    child.join(20)
    parent.join(20)
    assert Path(store.layers.path(ids[1]), "diff/b").read_bytes() == b"content"


def test_same_layer_twice_at_once_is_unpacked_once(store: Store) -> None:
    tar = Archive().file("f", os.urandom(200_000)).tar()
    streams = [io.BytesIO(gzip.compress(tar)) for _ in range(3)]
    threads = [
        threading.Thread(
            target=store.layers.unpack, args=(diff_id_of(tar), LayerArchive(None, diff_id_of(tar), stream))
        )
        for stream in streams
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.listdir(store.layers.directory) == [diff_id_of(tar)[7:]]
    assert all(stream.read() == b"" for stream in streams)


@pytest.mark.once
def test_error_of_the_stream_is_raised_as_it_is(store: Store) -> None:
    class Broken:
        def read(self, size: int = -1, /) -> bytes:
            raise ConnectionResetError("registry went away")

    with pytest.raises(ConnectionResetError):
        store.layers.unpack("sha256:" + "0" * 64, LayerArchive(None, "sha256:" + "0" * 64, Broken()))
    assert os.listdir(store.layers.directory) == []


@pytest.mark.once
def test_progress_counts_compressed_bytes(store: Store) -> None:
    tar = Archive().file("f", os.urandom(700_000)).tar()
    compressed = gzip.compress(tar)
    seen: list[int] = []
    archive = LayerArchive(None, diff_id_of(tar), io.BytesIO(compressed), seen.append)
    store.layers.unpack(diff_id_of(tar), archive)
    assert sum(seen) == len(compressed)


def test_other_id_map_gets_its_own_copy(unpacker: Unpacker, has_range: bool) -> None:
    from rootless.host.idmap import keep_id_map
    from rootless.host.subid import subordinate_ids

    require(has_range, "no range: another map needs more than one id")
    store = unpacker.store
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
    unpacker.layer(Archive().file("gone"))
    unpacker.layer(
        Archive()
        .file("root", b"x", mode=0o4755, pax_headers={"SCHILY.xattr.security.capability": capability.decode("latin-1")})
        .file("user", b"x", uid=1000, gid=1000)
        .link("same", "user")
        .directory("opaque")
        .file("opaque/.wh..wh..opq")
        .file(".wh.gone")
    )
    keep = keep_id_map(subordinate_ids(), os.getuid(), os.getgid(), 1000, 1000)
    [lower, base] = store.layers.lowerdirs(unpacker.chains, keep)
    assert store.layers.lowerdirs(unpacker.chains, keep) == [lower, base]
    assert os.stat(f"{lower}/user").st_uid == os.getuid()
    assert os.stat(f"{lower}/same").st_nlink == 2
    assert os.stat(f"{lower}/root").st_uid == keep.to_host_uid(0)
    assert os.stat(f"{lower}/root").st_mode & 0o4000
    assert stat.S_ISCHR(os.stat(f"{lower}/gone").st_mode)
    assert os.getxattr(f"{lower}/opaque", "user.overlay.opaque") == b"y"
    inside = userns.call_in_new_namespace(keep, lambda: os.getxattr(f"{lower}/root", "security.capability"))
    assert inside == capability
    for chain_id in reversed(unpacker.chains):
        store.layers.remove(chain_id)
    assert os.listdir(store.layers.directory) == []


@pytest.mark.once
def test_full_disk_leaves_no_half_layer(store_root: Path) -> None:
    """disk-full row of the traps: the store on a tmpfs of 3 MiB, in a namespace of the test's own."""
    script = f"""
import gzip, hashlib, io, os, sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})
from rootless.errors import HostLimit
from rootless.host.subid import default_id_map
from rootless.host.userns import enter_new_namespace
from rootless.kernel.mounts import mount
from rootless.paths import user_directories
from rootless.records.container import ContainerRecord
from tests.integration.storage.conftest import Archive
enter_new_namespace(default_id_map())
mount("tmpfs", {str(store_root)!r}, "tmpfs", 0, "size=3m,mode=0700")
from rootless.storage.layers.layer_store import LayerArchive
from rootless.storage.store.store import Store
store = Store(user_directories({str(store_root)!r}))
tar = Archive().file("f", b"x" * (8 << 20)).tar()
digest = "sha256:" + hashlib.sha256(tar).hexdigest()
try:
    store.layers.unpack(digest, LayerArchive(None, digest, io.BytesIO(gzip.compress(tar))))
except HostLimit as e:
    print(e.message)
print(os.listdir(store.layers.directory), os.listdir(store.path("trash")))
try:
    with store.blobs.writer() as writer:
        for _ in range(8):
            writer.write(bytes(1 << 20))
        writer.commit()
except HostLimit as e:
    print(e.message)
print(os.listdir(store.path("incoming")))
small = Archive().file("g", b"y").tar()
digest = "sha256:" + hashlib.sha256(small).hexdigest()
store.layers.unpack(digest, LayerArchive(None, digest, io.BytesIO(small)))
print(store.layers.has(digest))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stderr
    assert "No space left" in lines[0]
    assert lines[1] == "[] []"
    assert "No space left" in lines[2]
    assert lines[3:] == ["[]", "True"]


def worker_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0


@pytest.mark.once
@pytest.mark.parametrize("victim", ["caller", "worker"])
@pytest.mark.parametrize("after", [0.0, 0.1, 0.3])
def test_kill_at_any_moment_leaves_a_store_that_works(store: Store, victim: str, after: float, tmp_path: Path) -> None:
    archive = Archive()
    for number in range(1500):
        archive.directory(f"d{number}").file(f"d{number}/f", b"x" * 3000, uid=1, gid=1)
    tar = archive.tar()
    (tmp_path / "layer").write_bytes(gzip.compress(tar, 1))
    digest = diff_id_of(tar)
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})
from rootless.paths import user_directories
from rootless.records.container import ContainerRecord
from rootless.storage.layers.layer_store import LayerArchive
from rootless.storage.store.store import Store
store = Store(user_directories({store.root!r}))
print("go", flush=True)
store.layers.unpack({digest!r}, LayerArchive(None, {digest!r}, open({str(tmp_path / "layer")!r}, "rb")))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    if victim == "caller":
        process.kill()
    else:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            worker = worker_of(process.pid)
            if worker:
                os.kill(worker, signal.SIGKILL)
                break
    process.wait(120)
    process.stdout.close()
    # The next command works at once, whatever lies around, and collection finds everything
    store.layers.unpack(digest, LayerArchive(None, digest, io.BytesIO((tmp_path / "layer").read_bytes())))
    assert store.layers.record(digest).content.entries == 3000
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            collect_garbage(store)
            break
        except HostLimit:
            time.sleep(0.2)  # the orphaned worker still writes: its pipe is closed, so it ends by itself
    assert os.listdir(store.layers.directory) == []
    assert os.listdir(store.path("trash")) == []


def test_garbage_is_found_and_named_things_stay(unpacker: Unpacker) -> None:
    store = unpacker.store
    unpacker.layer(Archive().file("f", b"x"))
    container_id = store.containers.new_id()
    record = ContainerRecord(container_id, "c", store.id_map)
    record.layers = list(unpacker.chains)
    store.containers.create(record)
    store.containers.publish(container_id)
    nameless = store.containers.new_id()
    store.containers.create(ContainerRecord(nameless, "d", store.id_map))
    blob = store.blobs.put(b"nobody's")
    store.blobs.writer().write(b"half")
    os.mkdir(f"{store.layers.directory}/.half")
    Path(store.path("trash/old")).write_text("x")
    Path(store.path("names/stale")).write_text("f" * 64)
    found = collect_garbage(store, dry_run=True)
    assert found.blobs == [blob]
    assert found.containers == [nameless]
    assert len(found.temporaries) == 3
    assert found.layers == []
    assert store.blobs.has(blob)
    collect_garbage(store)
    assert store.containers.list() == [container_id]
    assert os.listdir(store.containers.directory) == [container_id]
    assert store.layers.list() == unpacker.chains
    for part in ("incoming", "trash"):
        assert os.listdir(store.path(part)) == []
    assert os.listdir(store.path("names")) == ["c"]
    again = collect_garbage(store)
    assert (again.blobs, again.layers, again.containers, again.temporaries) == ([], [], [], [])


@pytest.mark.once
def test_collection_beside_a_pull_waits_then_leaves(store: Store) -> None:
    blob = store.blobs.put(b"not yet named")
    with store.using():
        assert collect_garbage(store, wait=0.1).busy
        assert store.blobs.has(blob)
    assert collect_garbage(store).blobs == [blob]


def test_removal_never_follows_links_and_handles_depth(store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "f").write_text("x")
    directory = Path(store.containers.path("x"))
    directory.mkdir()
    (directory / "link").symlink_to(victim)
    (directory / "locked").mkdir()
    (directory / "locked/f").write_text("x")
    (directory / "locked").chmod(0)
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    remove_tree(str(directory))
    assert not directory.exists()
    assert (victim / "f").exists()
    assert os.listdir(store.path("trash")) == []
    remove_tree(str(directory))


def test_worker_is_shut_into_the_layer(tmp_path: Path) -> None:
    """The second wall: after `_shut_in` even an absolute path is inside of the target."""
    from rootless.storage.layers.unpack_worker import _shut_in

    target = tmp_path / "target"
    target.mkdir()

    def attempt() -> bytes:
        _shut_in(str(target))
        Path("/proof").write_text("inside")
        return b"%d %d" % (os.path.exists("/etc"), os.path.exists("../../../etc"))

    assert userns.call_in_new_namespace(subid.default_id_map(), attempt) == b"0 0"
    assert (target / "proof").read_text() == "inside"
    assert not Path("/proof").exists()


def test_store_path_with_special_characters(store_root: Path) -> None:
    """Trap 3.12: `\\`, `,` and `:` are special in overlay options."""
    from rootless.storage import drivers

    store = Store(user_directories(str(store_root / "a,b:c\\d é")))
    unpacker = Unpacker(store)
    unpacker.layer(Archive().file("f", b"x"))
    for name in drivers.driver_names():
        if reason_against(name, store):
            continue
        directory = store.containers.path(name)
        os.mkdir(directory)
        os.mkdir(f"{directory}/rootfs")
        plan = drivers.plan_root(name, directory, store.layers.lowerdirs(unpacker.chains))
        drivers.prepare_root(plan, store.id_map)
        mounter = drivers.make_mounter(plan)

        def look(mounter: drivers.Mounter = mounter, target: str = f"{directory}/rootfs") -> bytes:
            mounter(target)
            Path(target, "g").write_text("y")
            return Path(target, "f").read_bytes()

        assert userns.call_in_new_namespace(store.id_map, look) == b"x"
        mounter.close()
        drivers.unmount_root(plan)
        assert (Path(plan.upper) / "g").read_text() == "y"
