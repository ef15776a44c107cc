"""Layers are what their bytes say, whatever their media type; one manifest has one format's media types, not two's."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from rootless.image.manifest import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)
from tests.conftest import Runner, require
from tests.integration.image.conftest import FakeRegistry, Image, Registry, digest, layer_tar
from tests.integration.image.test_archives import docker_archive, skopeo
from tests.integration.image.test_pull import write_layout

pytestmark = pytest.mark.once

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
PACK = {
    "none": bytes,
    "gzip": lambda tar: gzip.compress(tar, 1, mtime=0),
    "zstd": zstandard.ZstdCompressor().compress,
    "skippable": lambda tar: b"\x50\x2a\x4d\x18\x01\x00\x00\x00x" + zstandard.ZstdCompressor().compress(tar),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
# what the media type says, and what the bytes are
LABELS = [
    (f"{OCI_LAYER}+gzip", "none"),
    (OCI_LAYER, "gzip"),
    (f"{OCI_LAYER}+gzip", "zstd"),
    (f"{OCI_LAYER}+zstd", "gzip"),
    (f"{OCI_LAYER}+zstd", "skippable"),
    (f"{DOCKER_LAYER}.gzip", "none"),
    (f"{DOCKER_LAYER}.gzip", "zstd"),
    ("application/vnd.example.layer", "gzip"),
    ("application/vnd.example.layer.tar+xz", "xz"),
    (OCI_LAYER, "bzip2"),
]
TARS = [layer_tar({f"f{number}": b"%d" % number * 700}) for number in range(len(LABELS))]


def image_of(layers: list[tuple[str, bytes]], diff_ids: list[str], *, docker: bool = False) -> Image:
    """An image of layers (media type, bytes)."""
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()
    descriptors = [{"mediaType": each, "digest": digest(blob), "size": len(blob)} for each, blob in layers]
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    config_type = DOCKER_CONFIG if docker else OCI_CONFIG
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": config_type, "digest": digest(config), "size": len(config)},
            "layers": descriptors,
        }
    ).encode()
    blobs = {digest(config): config, **{digest(blob): blob for _, blob in layers}}
    return Image(blobs, manifest, {"mediaType": media_type, "digest": digest(manifest), "size": len(manifest)})


def mislabelled() -> Image:
    packed = [(label, PACK[kind](tar)) for (label, kind), tar in zip(LABELS, TARS, strict=True)]
    return image_of(packed, [digest(tar) for tar in TARS])


def tars_of(saved: Path) -> list[bytes]:
    """The layers of a docker-archive."""
    with tarfile.open(saved) as archive:
        names = json.loads(archive.extractfile("manifest.json").read())[0]["Layers"]
        return [archive.extractfile(name).read() for name in names]


def documents(layout: Path) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """The manifest of a layout's first image, and (media type, bytes) of its layers."""
    top = json.loads((layout / "index.json").read_text())["manifests"][0]
    manifest = json.loads((layout / "blobs/sha256" / top["digest"][7:]).read_text())
    assert manifest["mediaType"] == top["mediaType"]
    blobs = layout / "blobs/sha256"
    return manifest, [(each["mediaType"], (blobs / each["digest"][7:]).read_bytes()) for each in manifest["layers"]]


@pytest.mark.parametrize("way", ["pull", "load", "copy", "docker-archive"])
def test_bytes_say_how_a_layer_is_compressed(rootless: Runner, fake: FakeRegistry, tmp_path: Path, way: str) -> None:
    image = mislabelled()
    if way == "pull":
        fake.add("1", image)
        rootless("pull", "-q", f"{fake.address}/app:1")
        rootless("tag", f"{fake.address}/app:1", "app:1")
    elif way == "docker-archive":
        docker_archive(tmp_path / "a.tar", image, "app:1")
        rootless("load", "-i", str(tmp_path / "a.tar"))
    else:
        write_layout(tmp_path / "layout", image)
        if way == "copy":
            rootless("copy", f"oci:{tmp_path}/layout", "app:1")
        else:
            loaded = rootless("load", "-i", str(tmp_path / "layout")).stdout
            rootless("tag", loaded.split()[-1].removeprefix("sha256:")[:12], "app:1")
    rootless("save", "-o", str(tmp_path / "saved.tar"), "app:1")
    assert tars_of(tmp_path / "saved.tar") == TARS
    rootless("system", "check")


def test_what_is_written_on_asks_the_bytes_too(rootless: Runner, registry: Registry, tmp_path: Path) -> None:
    """With the blobs kept: `save` and `push` compress what is not yet compressed as asked, and name it rightly."""
    image = mislabelled()
    write_layout(tmp_path / "layout", image)
    rootless("copy", f"oci:{tmp_path}/layout", "app:1", env={"ROOTLESS_KEEP_LAYER_BLOBS": "1"})
    rootless("save", "--format", "oci-dir", "--compression", "gzip", "-o", str(tmp_path / "gzip"), "app:1")
    _, layers = documents(tmp_path / "gzip")
    assert [label for label, _ in layers] == [f"{OCI_LAYER}+gzip"] * len(TARS)
    assert [gzip.decompress(content) for _, content in layers] == TARS
    assert layers[1][1] == PACK["gzip"](TARS[1])
    rootless("push", "-q", "--compression", "gzip", "app:1", f"{registry.address}/app:1")
    skopeo("copy", "-q", "--insecure-policy", "--src-tls-verify=false", f"docker://{registry.address}/app:1",
           f"oci:{tmp_path}/pushed:1")  # fmt: skip
    _, layers = documents(tmp_path / "pushed")
    assert [gzip.decompress(content) for _, content in layers] == TARS
    # a copy to another format names each layer by its bytes: docker's has no zstd, and is not given one
    some = image_of(
        [(f"{OCI_LAYER}+gzip", TARS[0]), (OCI_LAYER, PACK["gzip"](TARS[1]))], [digest(tar) for tar in TARS[:2]]
    )
    write_layout(tmp_path / "some", some)
    rootless("copy", "--format", "v2s2", f"oci:{tmp_path}/some", f"oci:{tmp_path}/docker:1")
    manifest, layers = documents(tmp_path / "docker")
    assert [label for label, _ in layers] == [DOCKER_LAYER, f"{DOCKER_LAYER}.gzip"]
    assert manifest["config"]["mediaType"] == DOCKER_CONFIG


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has digest"),
        (b"\x1f", "cut off"),
        (b"\x1f\x8b\x08", "gzip stream of the layer is cut off"),
        (PACK["gzip"](TARS[0])[:-9], "gzip stream of the layer is cut off"),
        (PACK["zstd"](TARS[0])[:-3], "zstd stream of the layer is cut off"),
        (PACK["xz"](TARS[0])[:-20], "not valid xz: it is cut off"),
        (PACK["bzip2"](TARS[0])[:-9], "not valid bzip2: it is cut off"),
        (TARS[0][:700], "cut off"),
        (b"no archive at all" * 100, "tar"),
    ],
)
def test_what_is_no_layer_is_told(rootless: Runner, tmp_path: Path, content: bytes, words: str) -> None:
    image = image_of([(f"{OCI_LAYER}+gzip", content)], [digest(TARS[0])])
    write_layout(tmp_path / "layout", image)
    done = rootless("load", "-i", str(tmp_path / "layout"), check=False)
    assert done.returncode and words in done.stderr and "bug" not in done.stderr


def test_an_empty_layer_is_one(rootless: Runner, tmp_path: Path) -> None:
    """As docker has it: of no bytes nothing is unpacked, and the digest says that this is right."""
    image = image_of([(f"{OCI_LAYER}+gzip", b""), (OCI_LAYER, TARS[0])], [digest(b""), digest(TARS[0])])
    write_layout(tmp_path / "layout", image)
    rootless("copy", f"oci:{tmp_path}/layout", "app:1")
    rootless("save", "-o", str(tmp_path / "saved.tar"), "app:1")
    assert tars_of(tmp_path / "saved.tar") == [b"", TARS[0]]


def test_a_name_that_looks_compressed_is_a_name(rootless: Runner, tmp_path: Path) -> None:
    tar = layer_tar({"BZh9": b"x"})
    write_layout(tmp_path / "layout", image_of([(OCI_LAYER, tar)], [digest(tar)]))
    rootless("copy", f"oci:{tmp_path}/layout", "app:1")


def docker_image() -> Image:
    layers = [(f"{DOCKER_LAYER}.gzip", PACK["gzip"](tar)) for tar in TARS[:2]]
    return image_of(layers, [digest(tar) for tar in TARS[:2]], docker=True)


def of_oci(manifest: dict[str, Any]) -> bool:
    """Whether all media types are the image specification's."""
    types = [manifest["mediaType"], manifest["config"]["mediaType"], *(e["mediaType"] for e in manifest["layers"])]
    return all(each.startswith("application/vnd.oci.image.") for each in types)


def unpack_with_umoci(layout: Path, name: str, work: Path) -> None:
    """umoci refuses a manifest with docker's media types. It takes no names with slashes: skopeo gives another."""
    require(shutil.which("umoci"), "no umoci on this host")
    top = json.loads((layout / "index.json").read_text())["manifests"][0]
    top["annotations"] = {"org.opencontainers.image.ref.name": "one"}
    index = {"schemaVersion": 2, "manifests": [top]}
    (layout / "index.json").write_text(json.dumps(index))
    done = subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", f"{layout}:one", str(work / name)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert (work / name / "rootfs/f0").read_bytes() == b"0" * 700


def test_what_is_built_from_dockers_format_is_ocis_throughout(
    rootless: Runner, registry: Registry, tmp_path: Path
) -> None:
    source = write_layout(tmp_path / "docker", docker_image())
    rootless("copy", source, "base:1", env={"ROOTLESS_KEEP_LAYER_BLOBS": "1"})
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM base:1\nCOPY Dockerfile /\nLABEL a=b\n")
    rootless("build", "-t", "new:1", str(tmp_path / "context"))
    for name in ("base", "new"):
        rootless("save", "--format", "oci-dir", "-o", str(tmp_path / name), f"{name}:1")
        manifest, layers = documents(tmp_path / name)
        assert of_oci(manifest), manifest
        assert layers[0] == (f"{OCI_LAYER}+gzip", PACK["gzip"](TARS[0]))  # the very bytes, since they are here
        skopeo("copy", "-q", "--insecure-policy", f"oci:{tmp_path}/{name}:docker.io/library/{name}:1",
               f"dir:{tmp_path}/{name}-dir")  # fmt: skip
        unpack_with_umoci(tmp_path / name, f"{name}-bundle", tmp_path)
    saved = tmp_path / "new.tar"
    rootless("save", "--format", "oci-archive", "-o", str(saved), "new:1")
    with tarfile.open(saved) as archive:
        top = json.loads(archive.extractfile("index.json").read())["manifests"][0]
        assert of_oci(json.loads(archive.extractfile(f"blobs/sha256/{top['digest'][7:]}").read()))
    # into a registry: each in one form, the one that it has or the one that is asked for
    for name, options, is_oci in (("new", (), True), ("base", (), False), ("base", ("--format", "oci"), True),
                                  ("new", ("--format", "v2s2"), False)):  # fmt: skip
        target = f"{registry.address}/{name}:{'oci' if is_oci else 'docker'}"
        rootless("push", "-q", *options, f"{name}:1", target)
        pushed = json.loads(
            skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{target}"),
        )
        types = {pushed["mediaType"], pushed["config"]["mediaType"], *(e["mediaType"] for e in pushed["layers"])}
        word = "vnd.oci.image." if is_oci else "vnd.docker."
        assert all(f"application/{word}" in each for each in types), types
    # and docker's own archive, which skopeo reads
    rootless("save", "-o", str(tmp_path / "archive.tar"), "new:1")
    skopeo("inspect", f"docker-archive:{tmp_path}/archive.tar")


def test_a_mixture_of_an_earlier_version_is_sorted_out(rootless: Runner, registry: Registry, tmp_path: Path) -> None:
    layers = [(f"{DOCKER_LAYER}.gzip", PACK["gzip"](TARS[0])), (OCI_LAYER, TARS[1])]
    write_layout(tmp_path / "mixed", image_of(layers, [digest(tar) for tar in TARS[:2]]))
    rootless("copy", f"oci:{tmp_path}/mixed", "app:1")
    rootless("save", "--format", "oci-dir", "-o", str(tmp_path / "out"), "app:1")
    assert of_oci(documents(tmp_path / "out")[0])
    rootless("push", "-q", "app:1", f"{registry.address}/app:1")
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.address}/app:1")
    assert of_oci(json.loads(raw))
    rootless("copy", f"oci:{tmp_path}/mixed", f"oci:{tmp_path}/copied:1")  # a copy keeps all bytes
    assert documents(tmp_path / "copied")[0]["layers"][0]["mediaType"] == f"{DOCKER_LAYER}.gzip"


def list_of(*images: Image) -> tuple[bytes, str]:
    entries = [
        {**image.descriptor, "platform": {"os": "linux", "architecture": architecture}}
        for image, architecture in zip(images, ("amd64", "arm64"), strict=True)
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries}).encode(), DOCKER_LIST


def test_lists_have_one_form_as_well(rootless: Runner, registry: Registry, fake: FakeRegistry, tmp_path: Path) -> None:
    one, other = (
        docker_image(),
        image_of([(f"{DOCKER_LAYER}.gzip", PACK["gzip"](TARS[2]))], [digest(TARS[2])], docker=True),
    )
    raw, media_type = list_of(one, other)
    for image in (one, other):
        fake.blobs.update(image.blobs)
        fake.manifests[image.descriptor["digest"]] = (DOCKER_MANIFEST, image.manifest)
    fake.manifests["1"] = fake.manifests[digest(raw)] = (media_type, raw)
    rootless("pull", "-q", "--all-platforms", f"{fake.address}/app:1")
    fake.react = lambda handler, path: False
    target = f"{registry.address}/list"
    for tag, options, is_oci in (("same", (), False), ("zstd", ("--compression", "zstd"), True),
                                 ("oci", ("--format", "oci"), True)):  # fmt: skip
        rootless("push", "-q", "--all", *options, f"{fake.address}/app:1", f"{target}:{tag}")
        pushed = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{target}:{tag}"))
        assert pushed["mediaType"] == (OCI_INDEX if is_oci else DOCKER_LIST)
        for entry in pushed["manifests"]:
            child = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{target}@{entry['digest']}")
            document = json.loads(child)
            assert document["mediaType"] == entry["mediaType"] and of_oci(document) is is_oci
        skopeo("copy", "-q", "-a", "--insecure-policy", "--src-tls-verify=false", f"docker://{target}:{tag}",
               f"dir:{tmp_path}/{tag}")  # fmt: skip


def test_every_tag_of_an_image_in_a_layout_names_it(rootless: Runner, tmp_path: Path) -> None:
    image = image_of([(OCI_LAYER, TARS[0])], [digest(TARS[0])])
    write_layout(tmp_path / "layout", image)
    index = tmp_path / "layout/index.json"
    tagged = [
        {**image.descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}} for tag in ("first", "second")
    ]
    index.write_text(json.dumps({"schemaVersion": 2, "manifests": tagged}))
    for tag in ("first", "second"):
        rootless("copy", f"oci:{tmp_path}/layout:{tag}", f"app:{tag}")
    done = rootless("copy", f"oci:{tmp_path}/layout:third", "app:third", check=False)
    assert "has no image 'third'" in done.stderr
