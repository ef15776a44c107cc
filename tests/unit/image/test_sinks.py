"""The sinks that `save`, `copy` and `build` write with: what stands in an archive, once, under which names."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from rootless.errors import DigestMismatch, UsageError
from rootless.image.content import BlobContent
from rootless.image.digest import digest_of
from rootless.image.docker_sink import DockerArchiveSink
from rootless.image.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from rootless.image.sink_files import ArchiveFile, ArchiveStream, ignore_progress, put_file
from rootless.image.sinks import LayoutSink, Listing, OciArchiveSink, Sink, list_image

LAYER = bytes(range(256)) * 40
CONFIG = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest_of(LAYER)]}}).encode()


def content(raw: bytes, digest: str | None = None) -> BlobContent:
    return BlobContent(lambda offset: io.BytesIO(raw[offset:]), digest or digest_of(raw), len(raw))


def put_image(sink: Sink, layer: bytes, *names: str) -> bytes:
    sink.put_blob(content(layer), ignore_progress)
    sink.put_config(content(CONFIG))
    document = {
        "schemaVersion": 2,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(CONFIG), "size": len(CONFIG)},
        "layers": [{"mediaType": OCI_LAYER, "digest": digest_of(layer), "size": len(layer)}],
    }
    raw = json.dumps(document).encode()
    sink.put_manifest(raw, OCI_MANIFEST, listing=Listing(names))
    return raw


def members(raw: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        names = tar.getnames()
        assert len(names) == len(set(names))
        return {each.name: tar.extractfile(each).read() for each in tar if each.isfile()}  # type: ignore[union-attr]


def test_a_docker_archive_has_plain_layers_and_all_names(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    sink = DockerArchiveSink(ArchiveFile(str(path)))
    put_image(sink, LAYER, "docker.io/library/app:1", "docker.io/library/app:2")
    put_image(sink, gzip.compress(LAYER, mtime=0), "quay.io/team/other:3")
    sink.finish()
    sink.close()
    found = members(path.read_bytes())
    layer = f"{digest_of(LAYER)[7:]}.tar"
    entries = json.loads(found["manifest.json"])
    assert found[layer] == LAYER and [each["Layers"] for each in entries] == [[layer], [layer]]
    assert [each["RepoTags"] for each in entries] == [["app:1", "app:2"], ["quay.io/team/other:3"]]
    assert json.loads(found["repositories"])["app"] == {"1": layer[:-4], "2": layer[:-4]}


def test_an_oci_archive_lists_first_what_is_known_before() -> None:
    streams = [io.BytesIO(), io.BytesIO()]
    sink = OciArchiveSink(ArchiveStream(streams[0], "/tmp"))
    raw = put_image(sink, LAYER, "a", "b")
    sink.finish()
    known = list_image(raw, OCI_MANIFEST, Listing(("a", "b")))
    sink = OciArchiveSink(ArchiveStream(streams[1], "/tmp"), known)
    put_image(sink, LAYER, "a", "b")
    sink.finish()
    last, first = (members(stream.getvalue()) for stream in streams)
    assert first == last and len(json.loads(first["index.json"])["manifests"]) == 2
    assert list(last)[-1] == "index.json" and list(first)[1] == "index.json"


def test_a_layout_gives_a_name_to_the_newest_image_only(tmp_path: Path) -> None:
    for layer in (LAYER, gzip.compress(LAYER, mtime=0)):
        sink = LayoutSink(str(tmp_path))
        raw = put_image(sink, layer, "one")
        sink.finish()
        sink.close()
    entries = json.loads((tmp_path / "index.json").read_bytes())["manifests"]
    assert [each["digest"] for each in entries] == [digest_of(raw)]


def test_other_bytes_than_the_digest_says_leave_no_archive(tmp_path: Path) -> None:
    for make in (DockerArchiveSink, OciArchiveSink):
        sink = make(ArchiveFile(str(tmp_path / "a.tar")))
        with pytest.raises(DigestMismatch):
            sink.put_blob(content(LAYER, digest_of(b"other")), ignore_progress)
        sink.close()
    assert not list(tmp_path.iterdir())


def test_an_archive_replaces_a_file_only_where_that_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"kept")
    with pytest.raises(UsageError, match="exists"):
        ArchiveFile(str(path))
    file = ArchiveFile(str(path), may_replace=True)
    file.write(b"new")
    assert path.read_bytes() == b"kept"
    file.finish()
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["layout", "archive"])
def test_bytes_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A blob of a layout is believed by its name: after a power cut it must not be an empty file."""
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(fd: int) -> None:
        steps.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    def renamed(old: str, new: str) -> None:
        assert old in steps, "its bytes come first"
        rename(old, new)
        steps.append(f"named {new}")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    if kind == "layout":
        path = tmp_path / "blobs/sha256" / "x"
        put_file(str(path), content(LAYER), ignore_progress)
    else:
        path = tmp_path / "a.tar"
        file = ArchiveFile(str(path))
        file.write(LAYER)
        file.finish()
    assert path.read_bytes() == LAYER
    assert steps.index(f"named {path}") < steps.index(str(path.parent)), "the name is on the disk when it is reported"
