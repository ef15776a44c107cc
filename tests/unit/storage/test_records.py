"""Blobs, the image index, containers' names and volumes, in a directory of the test's own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from rootless.errors import AlreadyExists, DigestMismatch, InvalidInput, InvalidState, NotFound, UsageError
from rootless.host.idmap import single_map
from rootless.image.manifest import Descriptor
from rootless.paths import user_directories
from rootless.records.container import ContainerRecord
from rootless.records.json_file import write_record
from rootless.storage.store.gc import collect_garbage
from rootless.storage.store.store import Store

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(user_directories(str(tmp_path / "store")))


def sha(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def add_image(store: Store, mark: str) -> Descriptor:
    config = store.blobs.put(
        json.dumps(
            {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "author": mark}
        ).encode()
    )
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config,
                "size": store.blobs.size(config),
            },
            "layers": [],
        }
    ).encode()
    return Descriptor(OCI_MANIFEST, store.blobs.put(manifest), len(manifest))


def test_store_is_private_and_has_a_version(store: Store) -> None:
    assert os.stat(store.root).st_mode & 0o777 == 0o700
    assert Path(store.path("version")).read_text() == "1\n"
    Store(store.directories)
    Path(store.path("version")).write_text("99\n")
    with pytest.raises(InvalidState, match="version '99'"):
        Store(store.directories)


def test_blob_is_verified_and_named_last(store: Store) -> None:
    content = b"content"
    with store.blobs.writer(sha(content), len(content)) as writer:
        writer.write(content)
        assert not store.blobs.has(sha(content))
        assert writer.commit() == sha(content)
    assert store.blobs.read(sha(content), 100) == content
    assert os.listdir(store.path("incoming")) == []


def test_blob_of_wrong_digest_or_size_leaves_nothing(store: Store) -> None:
    for digest, size, content in ((sha(b"other"), None, b"x"), (None, 5, b"x"), (None, 1, b"xx"), (sha(b"x"), 2, b"x")):
        with pytest.raises(DigestMismatch), store.blobs.writer(digest, size) as writer:
            writer.write(content)
            writer.commit()
    assert os.listdir(store.path("incoming")) == []
    assert store.blobs.digests() == []


def test_damaged_blob_is_detected(store: Store) -> None:
    digest = store.blobs.put(b"content")
    os.chmod(store.blobs.path(digest), 0o600)
    Path(store.blobs.path(digest)).write_bytes(b"Content")
    with pytest.raises(DigestMismatch):
        store.blobs.read(digest, 100)
    with pytest.raises(DigestMismatch):
        store.blobs.verify(digest)
    with pytest.raises(InvalidInput, match="larger"):
        store.blobs.read(digest, 3)


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:../../x", "sha256:" + "A" * 64, "md5:" + "a" * 32, "a" * 64, "sha256:" + "a" * 64 + "\n"],
)
def test_cve_2024_3727_digest_is_checked_before_it_is_a_path(store: Store, digest: str) -> None:
    with pytest.raises(InvalidInput):
        store.blobs.path(digest)


def test_tag_moves_a_name_and_keeps_the_old_image(store: Store) -> None:
    one, two = add_image(store, "one"), add_image(store, "two")
    name = "docker.io/library/x:latest"
    assert store.index.tag(name, one) is None
    assert store.index.tag(name, one) is None
    assert store.index.tag(name, two) == one.digest
    entry = store.index.resolve(name)
    assert entry is not None
    assert entry.manifest_digest == two.digest
    assert {e.manifest_digest: e.names for e in store.index.entries()} == {one.digest: (), two.digest: (name,)}
    store.index.tag("docker.io/library/y:1", one)
    assert len(json.loads(Path(store.path("index.json")).read_text())["manifests"]) == 2
    assert store.index.untag(name) == two.digest
    with pytest.raises(NotFound):
        store.index.untag(name)
    store.index.remove(two.digest)
    assert store.index.manifest_digests() == [one.digest]


def test_an_image_that_was_built_here_has_the_time_of_the_build(store: Store) -> None:
    """Its own `created` is that of its base: `images` said months, and `prune --filter until=24h` removed it."""
    built, pulled = add_image(store, "built"), add_image(store, "pulled")
    store.index.tag("docker.io/library/x:1", pulled)
    store.index.add(built, made=5e8)
    store.index.tag("docker.io/library/y:1", built, made=9e8)
    store.index.tag("docker.io/library/z:1", pulled, made=9e8)
    store.index.untag("docker.io/library/y:1")
    entries = {entry.manifest_digest: entry for entry in store.index.entries()}
    assert (entries[built.digest].made, entries[built.digest].created_time) == (5e8, 5e8)
    assert entries[pulled.digest].made == 0
    assert entries[pulled.digest].created_time == entries[pulled.digest].config.created_time


def test_resolve_by_digest_and_digits(store: Store) -> None:
    one, two = add_image(store, "one"), add_image(store, "two")
    store.index.tag("docker.io/library/x:1", one)
    store.index.add(two)
    entry = store.index.load(one.digest)
    for text in (entry.config_digest, entry.config_digest[7:19], one.digest, f"docker.io/library/x@{one.digest}"):
        found = store.index.resolve(text)
        assert found is not None
        assert found.manifest_digest == one.digest
    assert store.index.resolve(f"docker.io/library/other@{one.digest}") is None
    assert store.index.resolve("docker.io/library/x:2") is None
    assert store.index.resolve("") is None


def test_ambiguous_digits_are_an_error(store: Store) -> None:
    for number in range(17):
        store.index.add(add_image(store, str(number)))
    digits = [e.config_digest[7] for e in store.index.entries()]
    with pytest.raises(UsageError, match="several"):
        store.index.resolve(max(set(digits), key=digits.count))


def test_damaged_image_does_not_hide_others(store: Store) -> None:
    one, two = add_image(store, "one"), add_image(store, "two")
    store.index.add(one)
    store.index.add(two)
    store.blobs.remove(one.digest)
    assert [e.manifest_digest for e in store.index.entries()] == [two.digest]
    assert [digest for digest, _ in store.index.broken()] == [one.digest]


def test_damaged_index_says_so(store: Store) -> None:
    for content in ("", "{}", "[]", '{"manifests":[{"digest":"../x"}]}', '{"manifests":3}'):
        Path(store.path("index.json")).write_text(content)
        with pytest.raises(InvalidInput, match=r"index\.json"):
            store.index.entries()


def test_concurrent_tags_are_all_kept(store: Store) -> None:
    image = add_image(store, "one")
    threads = [
        threading.Thread(target=store.index.tag, args=(f"docker.io/library/x:{number}", image)) for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.index.load(image.digest).names) == 20


def make_record(container_id: str, name: str, volumes: Sequence[str] = ()) -> ContainerRecord:
    record = ContainerRecord(container_id, name, single_map(0, 0))
    record.volumes = list(volumes)
    return record


def make_container(store: Store, name: str) -> str:
    container_id = store.containers.new_id()
    store.containers.create(make_record(container_id, name))
    store.containers.publish(container_id)
    return container_id


def test_container_exists_from_its_name_on(store: Store) -> None:
    container_id = store.containers.new_id()
    store.containers.create(make_record(container_id, "web"))
    assert store.containers.list() == []
    with pytest.raises(NotFound):
        store.containers.find(container_id)
    store.containers.publish(container_id)
    assert store.containers.list() == [container_id]
    for text in ("web", container_id, container_id[:12]):
        assert store.containers.find(text) == container_id


def test_name_is_taken_once(store: Store) -> None:
    first = make_container(store, "web")
    with pytest.raises(AlreadyExists, match="'web'"):
        store.containers.create(make_record(store.containers.new_id(), "web"))
    late = [store.containers.new_id() for _ in range(2)]
    for container_id in late:
        store.containers.create(make_record(container_id, "db"))
    store.containers.publish(late[0])
    with pytest.raises(AlreadyExists):
        store.containers.publish(late[1])
    assert sorted(store.containers.list()) == sorted([first, late[0]])


def test_name_of_a_lost_container_is_free(store: Store) -> None:
    lost = make_container(store, "web")
    shutil.rmtree(store.containers.path(lost))
    assert store.containers.list() == []
    again = make_container(store, "web")
    assert store.containers.find("web") == again


def test_rename_is_one_step(store: Store) -> None:
    container_id = make_container(store, "old")
    other = make_container(store, "taken")
    store.containers.rename(container_id, "new")
    assert store.containers.find("new") == container_id
    with pytest.raises(NotFound):
        store.containers.find("old")
    with pytest.raises(AlreadyExists):
        store.containers.rename(container_id, "taken")
    # killed after the record was written: the old name file is still there
    Path(store.path("names/old")).write_text(container_id)
    assert sorted(store.containers.list()) == sorted([container_id, other])
    make_container(store, "old")


@pytest.mark.parametrize("name", ["", "../x", ".x", "-x", "a/b", "a b", "a\n", "ü", "x" * 129])
def test_names_follow_dockers_rule(store: Store, name: str) -> None:
    with pytest.raises(UsageError):
        store.containers.create(make_record(store.containers.new_id(), name))
    if name:
        with pytest.raises(UsageError):
            store.volumes.create(name)
    with pytest.raises(NotFound):
        store.containers.find(name)
    with pytest.raises(NotFound):
        store.volumes.get(name)


def change_record(store: Store, container_id: str, **members: object) -> None:
    path = store.containers.path(container_id, "record.json")
    write_record(path, {**json.loads(Path(path).read_text()), **members})


def test_a_damaged_record_hides_no_other_container(store: Store) -> None:
    damaged, whole = make_container(store, "damaged"), make_container(store, "whole")
    change_record(store, damaged, restart="always", volumes=["data"])
    store.volumes.create("data")
    assert sorted(store.containers.list()) == sorted([damaged, whole])
    assert store.containers.find("damaged") == damaged
    assert store.volumes.users() == {"data": [damaged]}, "what keeps other things is read by itself"
    with pytest.raises(InvalidInput, match=r"'restart' in '.*record.json' is not a JSON object"):
        store.containers.read(damaged)
    assert collect_garbage(store, dry_run=True).containers == []


def test_nothing_is_garbage_beside_a_record_of_a_newer_format(store: Store) -> None:
    newer = make_container(store, "newer")
    blob = store.blobs.put(b"nobody's")
    assert collect_garbage(store, dry_run=True).blobs == [blob]
    change_record(store, newer, version=99, layers={"of": "2031"})
    assert collect_garbage(store, dry_run=True).blobs == []
    with pytest.raises(InvalidInput, match="version 99"):
        store.containers.read(newer)


def test_state_is_replaced(store: Store) -> None:
    container_id = make_container(store, "c")
    assert store.containers.read_state(container_id) is None
    write_record(store.containers.path(container_id, "state.json"), {"status": "running"})
    known = store.containers.read_state(container_id)
    assert known is not None and known.status == "running"


def test_volumes(store: Store) -> None:
    made = store.volumes.create("data", labels={"a": "b"})
    assert (made.anonymous, made.labels) == (False, {"a": "b"})
    assert os.path.isdir(made.path)
    with pytest.raises(AlreadyExists):
        store.volumes.create("data")
    assert store.volumes.ensure("data") == (made, False)
    anonymous = store.volumes.create()
    assert anonymous.anonymous
    assert len(anonymous.name) == 64
    assert {v.name for v in store.volumes.list()} == {"data", anonymous.name}
    with pytest.raises(UsageError, match="driver 'nfs'"):
        store.volumes.create("x", driver="nfs")
    assert store.volumes.create("o", options={"type": "tmpfs"}).options == {"type": "tmpfs"}
    store.volumes.remove("data")
    with pytest.raises(NotFound):
        store.volumes.get("data")
    assert os.listdir(store.path("trash")) == []


def test_volume_in_use_stays(store: Store) -> None:
    store.volumes.create("data")
    container_id = store.containers.new_id()
    store.containers.create(make_record(container_id, "c", volumes=["data"]))
    store.containers.publish(container_id)
    with pytest.raises(InvalidState, match="in use"):
        store.volumes.remove("data")
    assert store.volumes.users() == {"data": [container_id]}
