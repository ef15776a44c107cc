"""`pull` by the command, from Debian's docker-registry: plain, TLS, password; policies, platforms, several at once."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import (
    Runner,
    command_path,
    make_private_directory,
    make_runner,
    remove_private_directory,
    require,
)
from tests.integration.image.conftest import PASSWORD, FakeRegistry, Image, Registry, answer, layer_tar, make_image

pytestmark = pytest.mark.once


def write_layout(directory: Path, image: Image) -> str:
    """An OCI layout with this image; its name for skopeo."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for name, content in {**image.blobs, str(image.descriptor["digest"]): image.manifest}.items():
        (blobs / name.partition(":")[2]).write_bytes(content)
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [image.descriptor]}))
    return f"oci:{directory}"


def small_image(tmp_path: Path, number: int = 1) -> str:
    layers = [layer_tar({"etc/a": b"%d" % number}), layer_tar({"etc/b": os.urandom(1000)})]
    return write_layout(tmp_path / f"layout{number}", make_image(*layers, suffix="+gzip"))


@pytest.fixture
def second_root() -> Iterator[Path]:
    root = make_private_directory("t")
    yield root
    remove_private_directory(root)


def image_ids(rootless: Runner) -> list[str]:
    return rootless("images", "-q", "--no-trunc").stdout.split()


def test_plain_http_on_loopback(rootless: Runner, registry: Registry, tmp_path: Path) -> None:
    name = registry.push(small_image(tmp_path), "team/app:1")
    output = rootless("pull", name).stdout.splitlines()
    assert output[0] == "1: Pulling from team/app" and output[-1] == name
    assert any(line.startswith("Status: Downloaded newer image") for line in output)
    assert "Image is up to date" in rootless("pull", name).stdout
    document = json.loads(rootless("image", "inspect", name).stdout)[0]
    assert document["RepoTags"] == [name] and len(document["RootFS"]["Layers"]) == 2
    (digest,) = document["RepoDigests"]
    assert f"Digest: {digest.partition('@')[2]}" in output and digest.startswith(f"{registry.address}/team/app@sha256:")
    assert rootless("pull", "-q", digest).stdout.strip().endswith(digest.partition("@")[2])
    history = rootless("history", name).stdout
    assert "<missing>" not in history.splitlines()[1]


@pytest.mark.parametrize("arguments", [("--format", "v2s2"), ("--dest-compress-format", "zstd"), ("--format", "oci")])
def test_docker_schema_2_zstd_and_oci(
    rootless: Runner, registry: Registry, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    name = registry.push(small_image(tmp_path), f"types/{arguments[1]}:1", *arguments)
    rootless("pull", "-q", name)
    assert len(image_ids(rootless)) == 1


def test_tls_with_an_authority_of_its_own(
    rootless: Runner, tls_registry: Registry, tmp_path: Path, store_root: Path
) -> None:
    name = tls_registry.push(small_image(tmp_path), "app:1")
    refused = rootless("pull", name, check=False)
    assert refused.returncode == 1 and "cannot trust registry" in refused.stderr and "certs.d" in refused.stderr
    assert rootless("images", "-q").stdout == ""
    rootless("pull", "-q", "--cert-dir", str(tls_registry.directory / "certs"), name)
    rootless("rmi", name)
    rootless("pull", "-q", "--tls-verify=false", name)
    rootless("rmi", name)
    certificates = tmp_path / "config" / "containers" / "certs.d" / tls_registry.address
    certificates.mkdir(parents=True)
    (certificates / "ca.crt").write_bytes((tls_registry.directory / "ca.crt").read_bytes())
    rootless("pull", "-q", name, env={"XDG_CONFIG_HOME": str(tmp_path / "config")})


def test_passwords(rootless: Runner, password_registry: Registry, tmp_path: Path) -> None:
    authfile = password_registry.directory / "auth.json"
    certificates = str(password_registry.directory / "certs")
    name = password_registry.push(small_image(tmp_path), "secret/app:1", "--dest-authfile", str(authfile))
    base = ("pull", "-q", "--cert-dir", certificates)
    without = rootless(*base, name, check=False, env={"REGISTRY_AUTH_FILE": "/dev/null"})
    assert without.returncode == 1 and "wants credentials" in without.stderr and "login" in without.stderr
    wrong = rootless(*base, "--creds", "me:wr0ng-one", name, check=False)
    assert wrong.returncode == 1 and "does not accept the credentials" in wrong.stderr
    assert "wr0ng-one" not in wrong.stderr
    rootless(*base, "--authfile", str(authfile), name)
    rootless("rmi", name)
    rootless(*base, "--creds", f"me:{PASSWORD}", name)
    rootless("rmi", name)
    rootless(*base, name, env={"REGISTRY_AUTH_FILE": str(authfile)})


def test_unknown_images_and_dead_registries(rootless: Runner, registry: Registry) -> None:
    unknown = rootless("pull", f"{registry.address}/no/such:1", check=False)
    assert unknown.returncode == 1 and "no image" in unknown.stderr
    dead = rootless("pull", "localhost:1/x", check=False)
    assert dead.returncode == 1 and "connection refused" in dead.stderr
    assert rootless("pull", "BAD", check=False).returncode == 125


def test_every_tag(rootless: Runner, registry: Registry, tmp_path: Path) -> None:
    names = [registry.push(small_image(tmp_path, number), f"tags/app:{number}") for number in (1, 2)]
    repository = names[0].rpartition(":")[0]
    assert sorted(rootless("pull", "--all-tags", "-q", repository).stdout.split()) == sorted(names)
    assert sorted(rootless("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()) == sorted(names)
    assert "tag can't be used" in rootless("pull", "-a", names[0], check=False).stderr
    assert rootless("pull", "-a", f"{registry.address}/tags/none", check=False).returncode == 1


def test_one_platform_of_an_index_is_pushed_alone(rootless: Runner, registry: Registry, tmp_path: Path) -> None:
    archive = tmp_path / "empty.tar"
    archive.write_bytes(bytes(1024))
    for architecture in ("amd64", "arm64"):
        rootless("import", "--platform", f"linux/{architecture}", str(archive), f"part:{architecture}")
    rootless("manifest", "create", "both", "part:amd64", "part:arm64")
    listed = ("images", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}} {{.ID}}")
    before = rootless(*listed).stdout
    name = f"{registry.address}/platforms/app:1"
    rootless("push", "-q", "--platform", "linux/arm64", "both", name)
    assert rootless(*listed).stdout == before
    rootless("pull", "-q", "--platform", "linux/arm64", name)
    assert rootless("inspect", "-f", "{{.Architecture}}", name).stdout == "arm64\n"
    assert rootless("pull", "-q", "--platform", "linux/amd64", name, check=False).returncode == 1
    assert "do not go together" in rootless("push", "--all", "--platform", "linux/arm64", "both", check=False).stderr


def test_policies(rootless: Runner, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/policies/app:1"
    assert rootless("pull", "--policy", "never", name, check=False).returncode == 1
    registry.push(small_image(tmp_path, 1), "policies/app:1")
    rootless("pull", "-q", "--policy", "missing", name)
    (first,) = image_ids(rootless)
    registry.push(small_image(tmp_path, 2), "policies/app:1")
    rootless("pull", "-q", "--policy", "missing", name)
    rootless("pull", "-q", "--policy", "never", name)
    assert image_ids(rootless) == [first]
    rootless("pull", "-q", "--policy", "newer", name)
    both = image_ids(rootless)
    assert len(both) == 2 and first in both
    assert rootless("images", "-q", "--no-trunc", "--filter", "dangling=true").stdout.split() == [first]
    assert first in rootless("image", "prune", "-f").stdout
    assert len(image_ids(rootless)) == 1


def test_platforms(rootless: Runner, fake: FakeRegistry) -> None:
    amd64, arm64 = make_image(layer_tar({"a": b"1"})), make_image(layer_tar({"a": b"2"}), architecture="arm64")
    fake.add("x", amd64)
    fake.add("y", arm64)
    fake.add_index(
        "1",
        {**amd64.descriptor, "platform": {"os": "linux", "architecture": "amd64"}},
        {**arm64.descriptor, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
    )
    name = f"{fake.address}/multi:1"
    rootless("pull", "-q", "--platform", "linux/arm64", name)
    assert json.loads(rootless("image", "inspect", name).stdout)[0]["Architecture"] == "arm64"
    missing = rootless("pull", "--platform", "linux/s390x", name, check=False)
    assert missing.returncode == 1 and "linux/arm64/v8" in missing.stderr
    mismatch = rootless("pull", "--platform", "linux/amd64", f"{fake.address}/multi:y", check=False)
    assert mismatch.returncode == 1 and "is for platform 'linux/arm64'" in mismatch.stderr


def test_an_image_that_is_here_for_another_platform_is_named_when_its_registry_is_away(
    rootless: Runner, fake: FakeRegistry
) -> None:
    """The error was only that the registry cannot be reached, as if the image were not here."""
    fake.add("1", make_image(layer_tar({"a": b"1"})))
    name = f"{fake.address}/one:1"
    rootless("pull", "-q", name)
    fake.close()
    for command in (("pull", "--platform", "linux/arm64", name), ("create", "--platform", "linux/arm64", name, "x")):
        failed = rootless(*command, check=False)
        assert failed.returncode and "is for platform 'linux/amd64', not 'linux/arm64'" in failed.stderr
        assert "cannot reach" in failed.stderr


def test_the_same_layer_twice_and_many_layers(rootless: Runner, fake: FakeRegistry) -> None:
    empty, other = layer_tar({}), layer_tar({"a": b"1"})
    fake.add("1", make_image(empty, other, empty, empty))
    rootless("pull", "-q", f"{fake.address}/twice:1")
    fake.add("2", make_image(*(layer_tar({f"f{number}": b"x"}) for number in range(120))))
    rootless("pull", "-q", f"{fake.address}/many:2")
    assert len(image_ids(rootless)) == 2


@pytest.mark.parametrize("kind", ["blob", "config", "diff_id", "cut"])
def test_wrong_digests_leave_nothing(rootless: Runner, fake: FakeRegistry, store_root: Path, kind: str) -> None:
    layer = layer_tar({"a": os.urandom(100_000)})
    image = make_image(layer, suffix="+gzip")
    fake.add("1", image)
    manifest = json.loads(image.manifest)
    digest = manifest["config" if kind == "config" else "layers"]
    digest = digest["digest"] if kind == "config" else digest[0]["digest"]
    blob = fake.blobs[digest]
    if kind == "cut":
        fake.blobs[digest] = blob[:-10]
    elif kind == "diff_id":
        swapped = make_image(layer_tar({"b": b"other"}), suffix="+gzip")
        manifest["layers"] = json.loads(swapped.manifest)["layers"]
        fake.blobs.update(swapped.blobs)
        fake.manifests["1"] = (fake.manifests["1"][0], json.dumps(manifest).encode())
    else:
        fake.blobs[digest] = blob[:50] + bytes([blob[50] ^ 1]) + blob[51:]
    failed = rootless("pull", f"{fake.address}/bad:1", check=False)
    assert failed.returncode == 1
    assert ("digest" in failed.stderr) or kind == "cut"
    assert rootless("images", "-q").stdout == "" and os.listdir(store_root / "layers") == []
    assert os.listdir(store_root / "incoming") == []


def test_an_interrupted_pull_is_finished_by_the_next(rootless: Runner, fake: FakeRegistry, store_root: Path) -> None:
    layers = [layer_tar({f"f{number}": os.urandom(50_000)}) for number in range(5)]
    image = make_image(*layers)
    fake.add("1", image)
    last = json.loads(image.manifest)["layers"][-1]["digest"]
    fake.react = lambda handler, path: path.endswith(last) and answer(handler, 403, b"no") is None
    failed = rootless("pull", f"{fake.address}/x:1", check=False)
    assert failed.returncode == 1 and "denies access" in failed.stderr
    assert rootless("images", "-q").stdout == ""
    fake.react = lambda handler, path: False
    fake.requests.clear()
    output = rootless("pull", f"{fake.address}/x:1").stdout
    assert "Already exists" in output
    fetched = [path for path, _ in fake.requests if "/blobs/" in path]
    assert any(path.endswith(last) for path in fetched) and len(fetched) < 6


def test_two_pulls_at_once_fetch_each_layer_once(rootless: Runner, fake: FakeRegistry) -> None:
    layers = [layer_tar({f"f{number}": os.urandom(300_000)}) for number in range(4)]
    image = make_image(*layers)
    fake.add("1", image)
    results: list[subprocess.CompletedProcess[str]] = []

    def pull() -> None:
        results.append(rootless("pull", f"{fake.address}/x:1", check=False))

    threads = [threading.Thread(target=pull) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(each.returncode, each.stderr) for each in results] == [(0, "")] * 3
    blobs = [path for path, _ in fake.requests if "/blobs/" in path]
    digests = {json.loads(image.manifest)["layers"][number]["digest"] for number in range(4)}
    assert sorted(path for path in blobs if path.rpartition("/")[2] in digests) == sorted(
        f"/v2/x/blobs/{digest}" for digest in digests
    )


def test_podman_1027_a_digest_belongs_to_its_repository(rootless: Runner, fake: FakeRegistry) -> None:
    image = make_image(layer_tar({"a": b"1"}))
    fake.add("1", image)
    rootless("pull", "-q", f"{fake.address}/mine:1")
    digest = image.descriptor["digest"]
    assert rootless("image", "inspect", f"{fake.address}/mine@{digest}").returncode == 0
    assert rootless("image", "inspect", f"{fake.address}/yours@{digest}", check=False).returncode != 0


@pytest.mark.parametrize(
    ("options", "content", "words"),
    [
        ("size=2m", os.urandom(3 << 20), "needs at least 4.2 MB"),  # seen before the first byte
        ("size=2m", bytes(3 << 20), "No space left on device"),  # small until it is unpacked
        ("size=9m,nr_inodes=30", b"", "needs at least 16 files (inodes)"),
        ("size=9m,nr_inodes=60", b"", "no inodes left on the file system"),
    ],
)
def test_a_full_disk_is_told_and_leaves_nothing(
    fake: FakeRegistry, tmp_path: Path, options: str, content: bytes, words: str
) -> None:
    files = {"a": content} if content else {f"f{i}": b"x" for i in range(100)}
    fake.add("1", make_image(layer_tar(files), suffix="+gzip"))
    (tmp_path / "disk").mkdir()
    arguments = shlex.join([*command_path(), "pull", "-q", f"{fake.address}/x:1"])
    script = (
        f"mount -t tmpfs -o {options} none disk && export ROOTLESS_ROOT=$PWD/disk/root && ! {arguments}"
        " && find disk/root/layers disk/root/blobs disk/root/incoming -mindepth 1 -type f"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    require("unshare failed" not in done.stderr, f"no user namespace: {done.stderr}")
    assert words in done.stderr and "Traceback" not in done.stderr
    assert (done.returncode, [each for each in done.stdout.split() if "blobs" not in each]) == (0, [])


def test_terminal_injection_is_escaped(rootless: Runner, fake: FakeRegistry) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "\x1b[2Jhidden\r\n"}]}).encode()
    fake.react = lambda handler, path: "manifests" in path and answer(handler, 403, body) is None
    failed = rootless("pull", f"{fake.address}/x:1", check=False)
    assert "\x1b" not in failed.stderr and "hidden" in failed.stderr


def test_two_users_roots_do_not_meet(rootless: Runner, second_root: Path, fake: FakeRegistry) -> None:
    fake.add("1", make_image(layer_tar({"a": b"1"})))
    rootless("pull", "-q", f"{fake.address}/x:1")
    assert make_runner(second_root)("images", "-q").stdout == ""


def test_short_names_follow_registries_conf(rootless: Runner, fake: FakeRegistry, tmp_path: Path) -> None:
    fake.add("1", make_image(layer_tar({"a": b"1"})))
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[aliases]\n"tool" = "{fake.address}/team/tool"\n')
    env = {"CONTAINERS_REGISTRIES_CONF": str(conf)}
    output = rootless("pull", "tool:1", env=env).stdout
    assert f"Using {fake.address}/team/tool:1 for short name 'tool:1': an alias of registries.conf" in output
    assert rootless("tag", f"{fake.address}/team/tool:1", "0.example/aaa:1", env=env).stdout == ""
    printed = rootless("pull", "-q", "tool:1", env=env).stdout
    assert printed == f"{fake.address}/team/tool:1\n", "the name that was pulled, not the first of the image's names"
    # CVE-2021-32635: what was pulled by a short name is found by it
    assert rootless("image", "inspect", "tool:1", env=env).returncode == 0
    assert rootless("image", "inspect", "tool:1", check=False).returncode != 0
