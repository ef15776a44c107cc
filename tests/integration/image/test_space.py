"""No second copy of a layer, true sizes, check and repair, prune, reset: on real stores, beside other commands."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Runner, command_path, make_runner

from .conftest import FakeRegistry, layer_tar, make_image

pytestmark = pytest.mark.once


def blobs(root: Path) -> set[str]:
    return set(os.listdir(root / "blobs/sha256"))


def quarantine(root: Path) -> list[str]:
    return os.listdir(root / "quarantine") if (root / "quarantine").exists() else []


def layer_digests(image: object) -> list[str]:
    return [each["digest"][7:] for each in json.loads(image.manifest)["layers"]]  # type: ignore[attr-defined]


def tree_file(root: Path, name: str) -> Path:
    return next(root.glob(f"layers/*/diff/{name}"))


def test_a_pull_keeps_no_compressed_copy(rootless: Runner, fake: FakeRegistry, store_root: Path) -> None:
    image = make_image(layer_tar({"a": b"1" * 5000}), layer_tar({"b": b"2" * 5000}), suffix="+gzip")
    fake.add("1", image)
    rootless("pull", "-q", f"{fake.address}/x:1")
    assert not blobs(store_root) & set(layer_digests(image)) and len(blobs(store_root)) == 2
    rootless("pull", "-q", f"{fake.address}/x:1")  # nothing is missing
    kept = rootless("pull", "-q", f"{fake.address}/x:1", env={"ROOTLESS_KEEP_LAYER_BLOBS": "true"})
    assert kept.returncode == 0 and set(layer_digests(image)) <= blobs(store_root)
    # the setting counts when space is asked for
    rootless("system", "prune", "-f", env={"ROOTLESS_KEEP_LAYER_BLOBS": "true"})
    assert set(layer_digests(image)) <= blobs(store_root)
    rootless("system", "prune", "-f")
    assert not blobs(store_root) & set(layer_digests(image))
    assert rootless("system", "check").stdout.endswith("everything is whole\n")


def test_a_store_of_the_version_before_keeps_working(
    rootless: Runner, fake: FakeRegistry, store_root: Path, tmp_path: Path
) -> None:
    """Layers with blobs and without recipes: saved, checked, kept by prune, repaired into layers with recipes."""
    image = make_image(layer_tar({"a": b"1" * 5000}), suffix="+gzip")
    fake.add("1", image)
    rootless("pull", "-q", f"{fake.address}/x:1", env={"ROOTLESS_KEEP_LAYER_BLOBS": "1"})
    layer = next((store_root / "layers").glob("*/layer.json"))
    record = json.loads(layer.read_text())
    layer.write_text(json.dumps({k: v for k, v in record.items() if k not in ("recipe", "tar_size")}))
    (layer.parent / "recipe.zst").unlink()
    rootless("system", "prune", "-f")
    assert set(layer_digests(image)) <= blobs(store_root)
    rootless("save", "-o", str(tmp_path / "a.tar"), f"{fake.address}/x:1")
    with tarfile.open(tmp_path / "a.tar") as archive:
        diff_id = record["diff_id"][7:]
        content = archive.extractfile(f"{diff_id}.tar")
        assert content is not None and hashlib.sha256(content.read()).hexdigest() == diff_id
    assert rootless("system", "check").returncode == 0


def test_exact_bytes_come_from_the_registry_again(
    rootless: Runner, fake: FakeRegistry, tmp_path: Path, store_root: Path
) -> None:
    image = make_image(layer_tar({"a": b"1" * 5000}), suffix="+gzip")
    fake.add("1", image)
    rootless("pull", "-q", f"{fake.address}/x:1")
    rootless("save", "--format", "oci-archive", "-o", str(tmp_path / "exact.tar"), f"{fake.address}/x:1")
    with tarfile.open(tmp_path / "exact.tar") as archive:
        assert f"blobs/sha256/{layer_digests(image)[0]}" in archive.getnames()
    # the registry has lost it: compressed anew, and said
    fake.blobs.clear()
    saved = rootless("save", "--format", "oci-archive", "-o", str(tmp_path / "anew.tar"), f"{fake.address}/x:1")
    assert saved.stderr.count("compressed anew") == 1 and saved.stderr.count("\n") == 1
    rootless("rmi", f"{fake.address}/x:1")
    rootless("load", "-i", str(tmp_path / "anew.tar"))
    assert tree_file(store_root, "a").read_bytes() == b"1" * 5000


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_save_compressed(
    rootless: Runner, fake: FakeRegistry, tmp_path: Path, form: str, compression: str, store_root: Path
) -> None:
    for tag in ("1", "2"):
        fake.add(tag, make_image(layer_tar({"base": b"0" * 9000}), layer_tar({"own": tag.encode() * 50_000})))
        rootless("pull", "-q", f"{fake.address}/x:{tag}")
    names = [f"{fake.address}/x:1", f"{fake.address}/x:2"]
    out = tmp_path / "out"
    rootless("save", "--format", form, "--compression", compression, "-o", str(out), *names)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) if out.is_dir() else out.stat().st_size
    assert size < 60_000
    rootless("rmi", *names)
    assert os.listdir(store_root / "layers") == []
    loaded = rootless("load", "-i", str(out)).stdout
    assert all(name in loaded for name in names)
    assert rootless("system", "check").returncode == 0


def test_df_counts_what_is_allocated(rootless: Runner, fake: FakeRegistry, store_root: Path) -> None:
    base = layer_tar({"base": os.urandom(1 << 20)})
    for tag in ("1", "2"):
        fake.add(tag, make_image(base, layer_tar({tag: os.urandom(500_000)})))
        rootless("pull", "-q", f"{fake.address}/x:{tag}")
    rootless("volume", "create", "v")
    # a sparse file takes nothing, two names of one file take it once
    data = store_root / "volumes/v/_data"
    with open(data / "hole", "wb") as file:
        file.truncate(1 << 30)
    (data / "one").write_bytes(bytes(range(256)) * 4000)
    os.link(data / "one", data / "two")
    for _ in range(2):  # measured, then noted
        usage = json.loads(rootless("system", "df", "-v", "--format", "json").stdout)
        assert 1_000_000 < usage["Volumes"][0]["Size"] < 1_200_000
        assert len(usage["Images"]) == 2
        for image in usage["Images"]:
            assert 1 << 20 < image["SharedSize"] < 1_200_000 and 500_000 < image["UniqueSize"] < 700_000
        real = int(subprocess.check_output(["du", "-sB1", store_root / "layers", store_root / "blobs"]).split()[0])
        assert abs(usage["ImagesSize"] - real) < 100_000
    rows = [json.loads(line) for line in rootless("system", "df", "--format", "json").stdout.splitlines()]
    assert [row["Type"] for row in rows] == ["Images", "Containers", "Local Volumes", "Build Cache"]
    assert "All together" in rootless("system", "df", "-v").stdout
    tree = rootless("tree").stdout
    assert tree.count("◀") == 2 and "2 images, 3 layers" in tree and "without sharing" in tree
    shown = json.loads(rootless("image", "tree", "--format", "json", f"{fake.address}/x:1").stdout)
    assert shown["Layers"] == 3 and shown["Roots"][0]["Users"] == 2 and len(shown["Roots"][0]["Children"]) == 2


def test_check_and_repair_from_the_registry(rootless: Runner, fake: FakeRegistry, store_root: Path) -> None:
    """Flip every kind of thing: content (fetched again), a mode (from its own recipe), config, manifest."""
    image = make_image(layer_tar({"a": b"1" * 5000}), layer_tar({"b": b"2" * 5000}), suffix="+gzip")
    fake.add("1", image)
    rootless("pull", "-q", f"{fake.address}/x:1")
    (tree_file(store_root, "a")).write_bytes(b"?" * 5000)
    tree_file(store_root, "b").chmod(0o600)
    config = json.loads(image.manifest)["config"]["digest"][7:]
    path = store_root / "blobs/sha256" / config
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"amd64", b"amd46"))
    quick = rootless("system", "check", "--quick", check=False)
    assert "content was not read" in quick.stdout
    found = rootless("system", "check", check=False)
    assert found.returncode == 1 and "blob" in found.stdout and "its content has changed" in found.stdout
    assert quarantine(store_root) == []
    repaired = rootless("system", "check", "--repair")
    assert "fetched again" in repaired.stdout and repaired.stdout.count("unpacked anew") == 2
    assert tree_file(store_root, "a").read_bytes() == b"1" * 5000
    assert rootless("system", "check").stdout.strip().endswith("everything is whole")
    # what was damaged stays for a look, whatever else is collected
    rootless("image", "prune", "-f")
    assert len(quarantine(store_root)) == 3
    rootless("system", "prune", "-f")
    assert quarantine(store_root) == []


def test_check_says_what_cannot_be_repaired(rootless: Runner, store_root: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/f").write_text("made here")
    subprocess.run(
        ["tar", "-C", tmp_path / "root", "--owner=0", "--group=0", "-cf", tmp_path / "r.tar", "."], check=True
    )
    rootless("import", str(tmp_path / "r.tar"), "mine:1")
    tree_file(store_root, "f").chmod(0o644)
    tree_file(store_root, "f").write_text("MADE here")
    rootless("volume", "create", "v")
    (store_root / "volumes/v/volume.json").write_text("{")
    (store_root / "names/ghost").write_text("0" * 64)
    found = rootless("system", "check", "--repair", check=False)
    assert found.returncode == 1
    assert "cannot be repaired" in found.stdout and "nowhere whole" in found.stdout
    assert "record was made again, without labels" in found.stdout
    assert not (store_root / "names/ghost").exists()
    assert tree_file(store_root, "f").read_text() == "MADE here", "what cannot be replaced stays"


def test_check_brings_a_missing_layer_again(rootless: Runner, fake: FakeRegistry, store_root: Path) -> None:
    image = make_image(layer_tar({"a": b"1" * 5000}), layer_tar({"b": b"2" * 5000}), suffix="+gzip")
    fake.add("1", image)
    rootless("pull", "-q", f"{fake.address}/x:1")
    top = tree_file(store_root, "b").parent.parent
    subprocess.run(["rm", "-rf", top], check=True)
    found = rootless("system", "check", check=False)
    assert found.returncode == 1 and "lacks 1 of its 2 layers" in found.stdout
    assert "brought again" in rootless("system", "check", "--repair").stdout
    assert tree_file(store_root, "b").read_bytes() == b"2" * 5000


def test_prune_with_filters(rootless: Runner, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    subprocess.run(
        ["tar", "-C", tmp_path / "root", "--owner=0", "--group=0", "-cf", tmp_path / "r.tar", "."], check=True
    )
    for name, label in (("a:1", "keep=yes"), ("b:1", "keep=no"), ("c:1", "other=1")):
        rootless("import", "-c", f"LABEL {label}", str(tmp_path / "r.tar"), name)
    rootless("volume", "create")
    rootless("volume", "create", "--label", "keep=yes", "named")

    def names() -> set[str]:
        return {line.split()[0] for line in rootless("images", "--format", "{{.Repository}}").stdout.splitlines()}

    rootless("image", "prune", "-f")
    assert names() == {"a", "b", "c"}
    rootless("image", "prune", "-a", "-f", "--filter", "until=1h")
    assert names() == {"a", "b", "c"}
    bad = rootless("system", "prune", "-a", "-f", "--filter", "nonsense=1", check=False)
    assert bad.returncode == 125 and names() == {"a", "b", "c"}
    rootless("image", "prune", "-a", "-f", "--filter", "label=keep=no")
    assert names() == {"a", "c"}
    assert "anonymous volumes" in rootless("system", "prune", "--volumes", "--build", input="n\n").stdout
    rootless("system", "prune", "-a", "--volumes", "--build", "-f", "--filter", "label!=keep")
    assert names() == {"a"}
    assert rootless("volume", "ls", "-q").stdout.split() == ["named"]


def test_reset(busybox: Runner, shared_root: Path) -> None:
    busybox("run", "-d", "--name", "r", "--network=none", "busybox", "sleep", "1000")
    busybox("run", "--network=none", "-v", "data:/data", "busybox", "sh", "-c", "mkdir /data/d; touch /data/d/f")
    refused = busybox("system", "reset", input="y\n", check=False)
    assert refused.returncode == 1 and "1 containers are running: r" in refused.stderr
    keepsake = shared_root / "keepsake"
    keepsake.write_text("not of the store")
    assert busybox("system", "reset", input="n\n").returncode == 0
    assert (shared_root / "version").exists()
    assert "keepsake" in busybox("system", "reset", "-f").stderr
    assert keepsake.read_text() == "not of the store"
    keepsake.unlink()
    left = [p for p in shared_root.rglob("*") if p.is_file()] if shared_root.exists() else []
    assert left == []
    assert busybox("images", "-q").stdout == ""
    busybox("image", "bootstrap", "busybox")


def test_reset_removes_files_of_mapped_ids(rootless: Runner, store_root: Path, tmp_path: Path, has_range: bool) -> None:
    with tarfile.open(tmp_path / "r.tar", "w") as tar:
        for name, owner in (("d", 1000), ("d/e", 2000)):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid = tarfile.DIRTYPE, 0o700, owner
            tar.addfile(member)
    rootless("import", str(tmp_path / "r.tar"), "owned:1")
    if has_range:
        assert os.stat(tree_file(store_root, "d")).st_uid != os.getuid()
    rootless("system", "reset", "-f")
    assert not store_root.exists()
    assert rootless("images", "-q").stdout == "", "the next command makes a new one"


def test_gc_beside_pulls_and_imports(fake: FakeRegistry, store_root: Path, tmp_path: Path) -> None:
    """Real processes: pulls, loads, removals and prunes at once. What a command has named is whole afterwards."""
    run = make_runner(store_root)
    base = layer_tar({f"f{i}": os.urandom(2000) for i in range(50)})
    for number in range(4):
        fake.add(str(number), make_image(base, layer_tar({f"own{number}": os.urandom(30_000)}), suffix="+gzip"))
    run("images")
    environment = {**os.environ, "ROOTLESS_ROOT": str(store_root)}

    def start(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command_path(), *words], env=environment, stdin=-3, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    for _ in range(3):
        children = []
        for number in range(4):
            children.append(start("pull", "-q", f"{fake.address}/x:{number}"))
            children.append(start("system", "prune", "-f"))
        children.append(start("rmi", "-f", f"{fake.address}/x:0"))
        for child in children:
            _, err = child.communicate(timeout=120)
            assert b"Traceback" not in err, err.decode()
            assert child.returncode == 0 or b"no such image" in err, err.decode()
    for number in range(4):
        run("pull", "-q", f"{fake.address}/x:{number}")
    assert run("system", "check").stdout.strip().endswith("everything is whole")
    run("rmi", *(f"{fake.address}/x:{number}" for number in range(4)))
    run("system", "prune", "-f")
    assert os.listdir(store_root / "layers") == [] and blobs(store_root) == set()


def test_gc_beside_builds(busybox: Runner, shared_root: Path, tmp_path: Path) -> None:
    """Layers of steps that no image has yet, and cache records, are left alone; committed layers are whole."""
    (tmp_path / "Dockerfile").write_text("FROM busybox\nARG N\nRUN echo $N > /f\nCOPY d /d\nRUN echo more$N > /g\n")
    (tmp_path / "d").write_text("x")
    environment = {**os.environ, "ROOTLESS_ROOT": str(shared_root)}
    children = []
    for number in range(3):
        build = ["build", "-q", "--network=none", "--build-arg", f"N={number}", "-t", f"built:{number}", str(tmp_path)]
        for words in (build, ["system", "prune", "-f"]):
            command = [*command_path(), *words]
            children.append(subprocess.Popen(command, env=environment, stdin=-3, stdout=-3, stderr=subprocess.PIPE))
    for child in children:
        _, err = child.communicate(timeout=120)
        assert child.returncode == 0, err.decode()
    for number in range(3):
        assert busybox("run", "--rm", "--network=none", f"built:{number}", "cat", "/f").stdout == f"{number}\n"
    assert busybox("system", "check").stdout.strip().endswith("everything is whole")
    busybox("rmi", *(f"built:{number}" for number in range(3)))
    freed = busybox("system", "prune", "-f", "--build").stdout
    assert "Deleted build cache objects" in freed
    rows = [json.loads(line) for line in busybox("system", "df", "--format", "json").stdout.splitlines()]
    assert {row["Type"]: row["TotalCount"] for row in rows}["Build Cache"] == "0"
