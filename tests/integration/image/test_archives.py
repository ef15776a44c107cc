"""`load`, `save`, `import`, names: our archives read by skopeo, umoci and podman, theirs by us."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from tests.conftest import Runner, require
from tests.integration.image.conftest import Image, digest, layer_tar, make_image
from tests.integration.image.test_pull import image_ids, write_layout

pytestmark = pytest.mark.once


def skopeo(*arguments: str) -> str:
    require(shutil.which("skopeo"), "no skopeo on this host")
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def docker_archive(path: Path, image: Image, *tags: str) -> None:
    """As docker < 25 writes it."""
    manifest = json.loads(image.manifest)
    entries = {"c.json": image.blobs[manifest["config"]["digest"]]}
    layers = []
    for number, layer in enumerate(manifest["layers"]):
        layers.append(f"{number}/layer.tar")
        entries[layers[-1]] = image.blobs[layer["digest"]]
    entries["manifest.json"] = json.dumps([{"Config": "c.json", "RepoTags": list(tags), "Layers": layers}]).encode()
    with tarfile.open(path, "w") as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def config_id(image: Image) -> str:
    return str(json.loads(image.manifest)["config"]["digest"])


IMAGE = make_image(layer_tar({"etc/a": b"1"}), layer_tar({"etc/b": b"2"}), layer_tar({"etc/b": b"2"}))


def test_a_docker_archive_from_file_and_standard_input(rootless: Runner, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    docker_archive(path, IMAGE, "app:1", "team/app:2")
    assert rootless("load", "-i", str(path)).stdout == "Loaded image: app:1\nLoaded image: team/app:2\n"
    assert set(image_ids(rootless)) == {config_id(IMAGE)}
    again = rootless("load", input=path.read_bytes())
    assert "Loaded image: app:1" in again.stdout and "already exists" not in again.stderr


@pytest.mark.parametrize("program", ["gzip", "zstd", "xz", "bzip2"])
def test_compressed_archives(rootless: Runner, tmp_path: Path, program: str) -> None:
    require(shutil.which(program), f"no {program} on this host")
    path = tmp_path / "a.tar"
    docker_archive(path, IMAGE, "app:1")
    packed = subprocess.run([program, "-c", str(path)], capture_output=True, check=True).stdout
    rootless("load", input=packed)
    assert image_ids(rootless) == [config_id(IMAGE)]


def test_cve_2026_50195_a_name_that_moves_is_told(rootless: Runner, tmp_path: Path) -> None:
    other = make_image(layer_tar({"x": b"y"}))
    docker_archive(tmp_path / "1.tar", IMAGE, "app:1")
    docker_archive(tmp_path / "2.tar", other, "app:1")
    rootless("load", "-i", str(tmp_path / "1.tar"))
    moved = rootless("load", "-i", str(tmp_path / "2.tar"))
    assert f"The image app:1 already exists, renaming the old one with ID {config_id(IMAGE)}" in moved.stderr
    assert set(image_ids(rootless)) == {config_id(IMAGE), config_id(other)}
    assert json.loads(rootless("image", "inspect", "app:1").stdout)[0]["Id"] == config_id(other)


def test_an_archive_cannot_claim_where_it_was_pulled_from(rootless: Runner, tmp_path: Path) -> None:
    docker_archive(tmp_path / "a.tar", IMAGE, "app@sha256:" + "0" * 64)
    failed = rootless("load", "-i", str(tmp_path / "a.tar"), check=False)
    assert failed.returncode == 1 and "only a registry can say" in failed.stderr


def test_a_layout_directory_and_an_oci_archive(rootless: Runner, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", IMAGE)
    rootless("load", "-i", str(tmp_path / "layout"))
    assert image_ids(rootless) == [config_id(IMAGE)]
    rootless("rmi", config_id(IMAGE))
    skopeo("copy", "-q", "--insecure-policy", layout, f"oci-archive:{tmp_path}/a.oci:docker.io/me/app:3")
    rootless("load", "-i", str(tmp_path / "a.oci"))
    assert json.loads(rootless("image", "inspect", "me/app:3").stdout)[0]["Id"] == config_id(IMAGE)


def test_the_hybrid_archives_of_docker_25(rootless: Runner, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", IMAGE)
    manifest = json.loads(IMAGE.manifest)
    entry = {
        "Config": "blobs/sha256/" + manifest["config"]["digest"][7:],
        "RepoTags": ["hybrid:1"],
        "Layers": ["blobs/sha256/" + layer["digest"][7:] for layer in manifest["layers"]],
    }
    (tmp_path / "layout" / "manifest.json").write_text(json.dumps([entry]))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "layout", ".")
    rootless("load", "-i", str(tmp_path / "a.tar"))
    document = json.loads(rootless("image", "inspect", "hybrid:1").stdout)[0]
    assert document["Descriptor"]["digest"] == digest(IMAGE.manifest)


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_skopeo_and_we_read_what_we_save(rootless: Runner, tmp_path: Path, form: str) -> None:
    docker_archive(tmp_path / "a.tar", IMAGE, "app:1", "app:2")
    rootless("load", "-i", str(tmp_path / "a.tar"))
    rootless("save", "--format", form, "-o", str(tmp_path / "b.tar"), "app:1", "app:2")
    source = f"{form}:{tmp_path}/b.tar:docker.io/library/app:1"
    document = json.loads(skopeo("inspect", "--config", source))
    assert document["rootfs"]["diff_ids"] == json.loads(IMAGE.blobs[config_id(IMAGE)])["rootfs"]["diff_ids"]
    skopeo("copy", "-q", "--insecure-policy", source, f"dir:{tmp_path}/dir")
    rootless("rmi", "app:1", "app:2")
    rootless("load", "-i", str(tmp_path / "b.tar"))
    assert set(image_ids(rootless)) == {config_id(IMAGE)}
    assert len(rootless("images", "app", "--format", "{{.Tag}}").stdout.split()) == 2


def test_layers_that_came_compressed_are_saved_as_tars(rootless: Runner, tmp_path: Path) -> None:
    packed = make_image(layer_tar({"etc/a": b"1" * 5000}), suffix="+gzip")
    write_layout(tmp_path / "layout", packed)
    rootless("load", "-i", str(tmp_path / "layout"))
    rootless("save", "-o", str(tmp_path / "b.tar"), config_id(packed))
    with tarfile.open(tmp_path / "b.tar") as tar:
        entry = json.loads(tar.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]
        layer = tar.extractfile(entry["Layers"][0]).read()  # type: ignore[union-attr]
    assert (
        entry["RepoTags"] is None
        and digest(layer) == json.loads(packed.blobs[config_id(packed)])["rootfs"]["diff_ids"][0]
    )


def test_umoci_reads_our_layout_and_we_its(rootless: Runner, tmp_path: Path) -> None:
    require(shutil.which("umoci"), "no umoci on this host")
    docker_archive(tmp_path / "a.tar", IMAGE, "app:1")
    rootless("load", "-i", str(tmp_path / "a.tar"))
    rootless("save", "--format", "oci-dir", "-o", str(tmp_path / "out"), "app:1")
    full = "docker.io/library/app:1"
    skopeo("copy", "-q", "--insecure-policy", f"oci:{tmp_path}/out:{full}", f"oci:{tmp_path}/plain:one")
    done = subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", f"{tmp_path}/plain:one", str(tmp_path / "bundle")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bundle/rootfs/etc/b").read_bytes() == b"2"
    made = subprocess.run(
        ["umoci", "config", "--image", f"{tmp_path}/plain:one", "--tag", "two", "--config.env", "A=b"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    rootless("load", "-i", str(tmp_path / "plain"))
    environments = [
        json.loads(rootless("image", "inspect", each).stdout)[0]["Config"]["Env"] for each in image_ids(rootless)
    ]
    assert ["A=b"] in environments


def test_podman_reads_our_archive_and_we_its(rootless: Runner, tmp_path: Path) -> None:
    require(shutil.which("podman"), "no podman on this host")
    require(os.geteuid() != 0, "rootless podman wants a plain user here")
    place = tempfile.mkdtemp(prefix="p-")  # podman wants a short path
    podman = ["podman", "--root", f"{place}/p", "--runroot", f"{place}/r", "--storage-driver", "vfs"]
    docker_archive(tmp_path / "a.tar", IMAGE, "app:1")
    rootless("load", "-i", str(tmp_path / "a.tar"))
    rootless("save", "-o", str(tmp_path / "b.tar"), "app:1")
    loaded = subprocess.run(
        [*podman, "load", "-i", str(tmp_path / "b.tar")], capture_output=True, text=True, timeout=60
    )
    require("cannot set up namespace" not in loaded.stderr, "podman cannot run as this user")
    assert loaded.returncode == 0, loaded.stderr
    saved = subprocess.run(
        [*podman, "save", "-o", str(tmp_path / "c.tar"), "app:1"], capture_output=True, text=True, timeout=60
    )
    assert saved.returncode == 0, saved.stderr
    subprocess.run([*podman, "rmi", "-fa"], capture_output=True, timeout=60)
    subprocess.run(["podman", "unshare", "rm", "-rf", place], capture_output=True, timeout=60)
    rootless("rmi", "app:1")
    rootless("load", "-i", str(tmp_path / "c.tar"))
    assert len(image_ids(rootless)) == 1


def test_save_to_a_pipe_and_nothing_half_made(rootless: Runner, tmp_path: Path, store_root: Path) -> None:
    docker_archive(tmp_path / "a.tar", IMAGE, "app:1")
    rootless("load", "-i", str(tmp_path / "a.tar"))
    unknown = rootless("save", "-o", str(tmp_path / "b.tar"), "app:1", "none:1", check=False)
    assert unknown.returncode == 1 and os.listdir(tmp_path) == ["a.tar"]
    assert json.loads(IMAGE.manifest)["layers"][0]["digest"][7:] not in os.listdir(store_root / "blobs/sha256")
    found = next(path for path in store_root.glob("layers/*/diff/**/*") if path.is_file() and path.stat().st_size)
    found.chmod(0o600)
    found.write_bytes(b"\0" * found.stat().st_size)
    damaged = rootless("save", "-o", str(tmp_path / "b.tar"), "app:1", check=False)
    assert damaged.returncode == 1 and "damaged" in damaged.stderr and os.listdir(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("change", ["cut", "flip", "empty", "notar"])
def test_damaged_archives_leave_nothing(rootless: Runner, tmp_path: Path, store_root: Path, change: str) -> None:
    path = tmp_path / "a.tar"
    docker_archive(path, IMAGE, "app:1")
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        position = tar.getmember("0/layer.tar").offset_data + 512
    if change == "flip":
        content[position] ^= 1
    path.write_bytes({"cut": content[: position + 100], "flip": content, "empty": b"", "notar": b"x" * 5000}[change])
    failed = rootless("load", "-i", str(path), check=False)
    assert failed.returncode == 1
    assert rootless("images", "-q").stdout == ""
    rootless("system", "prune", "-f")
    assert os.listdir(store_root / "layers") == [] and os.listdir(store_root / "blobs/sha256") == []


def test_import_with_changes(rootless: Runner, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(layer_tar({"bin/x": b"1"}))
    arguments = ("-c", 'CMD ["/bin/x"]', "-c", "ENV A=1", "-m", "made by hand", "--platform", "linux/arm64")
    image_id = rootless("import", *arguments, str(tmp_path / "a.tar"), "made:1").stdout.strip()
    document = json.loads(rootless("image", "inspect", "made:1").stdout)[0]
    assert document["Id"] == image_id and document["Architecture"] == "arm64" and document["Comment"] == "made by hand"
    assert document["Config"]["Cmd"] == ["/bin/x"] and document["Config"]["Env"] == ["A=1"]
    packed = subprocess.run(["gzip", "-c", str(tmp_path / "a.tar")], capture_output=True, check=True).stdout
    rootless("import", "-", input=packed)
    assert len(image_ids(rootless)) == 2
    bad = rootless("import", "-c", "RUN x", str(tmp_path / "a.tar"), check=False)
    assert bad.returncode == 125 and "invalid change 'RUN x'" in bad.stderr
    assert rootless("import", str(tmp_path / "none"), check=False).returncode in (2, 125)


def test_names_come_and_go(rootless: Runner, tmp_path: Path, store_root: Path) -> None:
    docker_archive(tmp_path / "a.tar", IMAGE, "app:1")
    rootless("load", "-i", str(tmp_path / "a.tar"))
    rootless("tag", "app:1", "other/app:2")
    assert "referenced in multiple repositories" in rootless("rmi", config_id(IMAGE), check=False).stderr
    assert rootless("rmi", "app:1").stdout == "Untagged: app:1\n"
    assert image_ids(rootless) == [config_id(IMAGE)]
    gone = rootless("rmi", config_id(IMAGE)[7:19]).stdout.splitlines()
    assert gone[:2] == ["Untagged: other/app:2", f"Deleted: {config_id(IMAGE)}"] and len(gone) == 5
    assert os.listdir(store_root / "layers") == [] and os.listdir(store_root / "blobs/sha256") == []
    missing = rootless("rmi", "app:1", check=False)
    assert missing.returncode == 1 and "no such image" in missing.stderr.lower()


def test_listing_and_filters(rootless: Runner, tmp_path: Path) -> None:
    docker_archive(tmp_path / "a.tar", IMAGE, "app:1", "team/app:2")
    rootless("load", "-i", str(tmp_path / "a.tar"))

    def listed(*arguments: str) -> list[str]:
        return rootless("images", "--format", "{{.Repository}}:{{.Tag}}", *arguments).stdout.split()

    assert listed() == ["app:1", "team/app:2"]
    assert listed("app") == ["app:1"] and listed("team/app:2") == ["team/app:2"] and listed("app:2") == []
    assert listed("--filter", "reference=*/app") == ["team/app:2"]
    assert listed("--filter", "label=test=yes") == listed() and listed("--filter", "label=none") == []
    assert listed("--filter", "dangling=true") == []
    assert rootless("images", "--filter", "bad=1", check=False).returncode != 0


def test_an_image_in_use_stays(rootless: Runner) -> None:
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    rootless("image", "bootstrap", "busybox")
    container = rootless("create", "busybox", "true").stdout.strip()
    by_id = json.loads(rootless("image", "inspect", "busybox").stdout)[0]["Id"]
    rootless("rmi", "busybox:latest")  # its version is a second name
    refused = rootless("rmi", by_id, check=False)
    assert refused.returncode == 1 and container[:12] in refused.stderr and "conflict" in refused.stderr
    assert rootless("image", "prune", "-af").stdout.count("deleted") == 0
    rootless("rmi", "-f", by_id)
    rootless("rm", container)
    rootless("system", "prune", "-af")
    assert image_ids(rootless) == []


def test_the_same_busybox_makes_the_same_image(rootless: Runner, tmp_path: Path) -> None:
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    first = rootless("image", "bootstrap", "-q", "busybox").stdout
    assert rootless("image", "bootstrap", "-q", "--tag", "mine:1", "busybox").stdout == first
    assert rootless("image", "bootstrap", "nothing", check=False).returncode == 125
