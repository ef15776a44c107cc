"""`copy` between all kinds of places, `manifest` lists, referrers, the signature policy; skopeo and umoci beside."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Runner, make_runner, require
from tests.integration.engine.transfer.conftest import root_tar
from tests.integration.engine.transfer.faulty_registry import Front, Handler, is_request, times
from tests.integration.engine.transfer.test_push import raw_manifest, skopeo
from tests.integration.image.conftest import Registry, digest

pytestmark = pytest.mark.once


def files(directory: Path) -> dict[str, str]:
    """What is in a directory, by name."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def pushed(rl: Runner, registry: Registry) -> str:
    """An image in the registry."""
    name = f"{registry.address}/copy/small:1"
    rl("push", "-q", "small:1", name)
    return name


@pytest.fixture
def multi(rl: Runner, registry: Registry) -> str:
    """An index of two platforms in the registry, made here."""
    name = f"{registry.address}/copy/multi:1"
    if not rl("manifest", "exists", "multi:1", check=False).returncode:
        return name
    rl("import", "--platform", "linux/arm64", "-", "arm:1", input=root_tar({"etc/name": b"arm"}))
    rl("manifest", "create", "multi:1", "small:1")
    rl("manifest", "add", "--annotation", "a=b", "--variant", "v8", "multi:1", "arm:1")
    rl("manifest", "push", "-q", "multi:1", name)
    return name


def test_around_all_places_and_back_byte_for_byte(
    rl: Runner, registry: Registry, pushed: str, tmp_path: Path, store_root: Path
) -> None:
    raw = raw_manifest(pushed)
    places = [f"oci:{tmp_path}/l:a", f"dir:{tmp_path}/d", f"oci-archive:{tmp_path}/a.tar:b"]
    end = f"{registry.address}/copy/end:1"
    for source, target in zip([f"docker://{pushed}", *places], [*places, f"docker://{end}"], strict=True):
        assert rl("copy", "-q", source, target).stdout.strip() == digest(raw)
    assert raw_manifest(end) == raw
    # the others read what we wrote, and write the same
    for number, place in enumerate(places):
        skopeo("copy", "-q", "--insecure-policy", place, f"dir:{tmp_path}/s{number}")
        assert files(tmp_path / f"s{number}") == files(tmp_path / "d")
    require(shutil.which("umoci"), "no umoci on this host")
    listed = subprocess.run(["umoci", "ls", "--layout", tmp_path / "l"], capture_output=True, text=True, timeout=60)
    assert listed.stdout.split() == ["a"]
    # into the store and out again: the compressed layer is made anew from its tree, to the same bytes
    run = make_runner(store_root)
    run("copy", "-q", places[0], "rootless:back:1")
    assert "name" in run("images", "--format", "{{.Repository}} name").stdout
    if rl("images", "-q", "small:1").stdout.split() != run("images", "-q", "back:1").stdout.split():
        pytest.fail("the image has another id")


def test_docker_archives(rl: Runner, pushed: str, tmp_path: Path, store_root: Path) -> None:
    rl("copy", "-q", f"docker://{pushed}", f"docker-archive:{tmp_path}/d.tar:team/app:7")
    skopeo("copy", "-q", "--insecure-policy", f"docker-archive:{tmp_path}/d.tar", f"dir:{tmp_path}/d")
    run = make_runner(store_root)
    assert run("load", "-q", "-i", str(tmp_path / "d.tar")).stdout == "Loaded image: team/app:7\n"
    assert run("images", "-q").stdout in rl("images", "-q").stdout
    run("copy", "-q", f"docker-archive:{tmp_path}/d.tar:team/app:7", f"oci:{tmp_path}/l:x")
    exists = rl("copy", f"docker://{pushed}", f"docker-archive:{tmp_path}/d.tar", check=False)
    assert exists.returncode == 125 and "exists" in exists.stderr


def test_all_platforms_as_skopeo_copies_them(
    rl: Runner, registry: Registry, multi: str, tmp_path: Path, store_root: Path
) -> None:
    rl("copy", "-q", "--all", f"docker://{multi}", f"oci:{tmp_path}/ours:1")
    skopeo(
        "copy",
        "-q",
        "--all",
        "--insecure-policy",
        "--src-tls-verify=false",
        f"docker://{multi}",
        f"oci:{tmp_path}/theirs:1",
    )
    assert files(tmp_path / "ours" / "blobs") == files(tmp_path / "theirs" / "blobs")
    run = make_runner(store_root)
    run("pull", "-q", "--all-platforms", multi)
    assert json.loads(run("manifest", "inspect", multi).stdout) == json.loads(raw_manifest(multi))
    assert len(run("images", "-q").stdout.split()) == 1
    other = f"{registry.address}/copy/multi:2"
    run("push", "-q", "--all", multi, other)
    assert raw_manifest(other) == raw_manifest(multi)
    run("tag", multi, "again:1")
    run("rmi", multi)
    run("system", "prune", "-f")  # what the index needs is no garbage
    run("copy", "-q", "--all", "again:1", f"oci:{tmp_path}/again:1")
    assert files(tmp_path / "again" / "blobs") == files(tmp_path / "ours" / "blobs")
    run("rmi", "again:1")
    blobs = list((store_root / "blobs" / "sha256").iterdir())
    assert blobs == [], "the last name keeps nothing"
    one = rl("copy", "-q", "--platform", "linux/arm64", f"docker://{multi}", f"oci:{tmp_path}/one:1").stdout.strip()
    assert one == json.loads(raw_manifest(multi))["manifests"][1]["digest"]


def test_lists(rl: Runner, multi: str, registry: Registry) -> None:
    document = json.loads(raw_manifest(multi))
    arm = document["manifests"][1]
    assert arm["platform"] == {"architecture": "arm64", "os": "linux", "variant": "v8"}
    assert arm["annotations"] == {"a": "b"}
    assert "exists" in rl("manifest", "create", "multi:1", check=False).stderr
    rl("manifest", "create", "list:2")
    rl("manifest", "add", "--all", "list:2", f"docker://{multi}")
    shown = json.loads(rl("manifest", "inspect", "list:2").stdout)
    assert [each["digest"] for each in shown["manifests"]] == [each["digest"] for each in document["manifests"]]
    rl("manifest", "annotate", "list:2", arm["digest"], "--os-version", "1.2", "--features", "sse4")
    rl("manifest", "annotate", "--index", "--annotation", "k=v", "list:2")
    shown = json.loads(rl("manifest", "inspect", "list:2").stdout)
    assert shown["manifests"][1]["platform"]["os.version"] == "1.2" and shown["annotations"] == {"k": "v"}
    rl("manifest", "remove", "list:2", arm["digest"])
    assert len(json.loads(rl("manifest", "inspect", "list:2").stdout)["manifests"]) == 1
    assert "no entry" in rl("manifest", "remove", "list:2", arm["digest"], check=False).stderr
    # one more instruction set under the same name does not touch images of other names
    rl("manifest", "rm", "list:2")
    assert rl("manifest", "exists", "list:2", check=False).returncode == 1
    assert rl("images", "-q", "small:1").stdout
    assert json.loads(rl("manifest", "inspect", f"docker://{multi}").stdout) == document


def test_a_copy_goes_on_where_it_was_broken_off(rl: Runner, front: Front, tmp_path: Path) -> None:
    name = f"{front.address}/copy/large:1"
    rl("push", "-q", "large:1", name)
    (layer,) = json.loads(raw_manifest(name))["layers"]
    blob = tmp_path / "l" / "blobs" / "sha256" / layer["digest"][7:]
    half = front.ask("GET", f"/v2/copy/large/blobs/{layer['digest']}", {}, b"")[2][: layer["size"] // 2]
    blob.parent.mkdir(parents=True)
    Path(f"{blob}.part").write_bytes(half)
    front.seen.clear()
    rl("copy", "-q", f"docker://{name}", f"oci:{tmp_path}/l:1")
    (asked,) = [each for each in front.seen if layer["digest"] in each.path]
    assert asked.headers["Range"] == f"bytes={len(half)}-"
    skopeo("copy", "-q", "--insecure-policy", f"oci:{tmp_path}/l:1", f"dir:{tmp_path}/d")
    # half a blob that is not what it should be: refused, and gone, so that the next try is clean
    blob.unlink()
    Path(f"{blob}.part").write_bytes(b"x" * len(half))
    bad = rl("copy", "-q", f"docker://{name}", f"oci:{tmp_path}/l:1", check=False)
    assert bad.returncode == 1 and "has digest" in bad.stderr
    rl("copy", "-q", f"docker://{name}", f"oci:{tmp_path}/l:1")


def test_changed_bytes_reach_no_place(rl: Runner, front: Front, tmp_path: Path) -> None:
    name = f"{front.address}/copy/changed:1"
    rl("push", "-q", "large:1", name)

    def change(handler: Handler) -> None:
        status, headers, body = front.ask("GET", handler.path, dict(handler.headers), b"")
        handler.answer(status, body[:-9] + b"X" + body[-8:], headers)

    (layer,) = json.loads(raw_manifest(name))["layers"]
    front.faults.append(lambda handler: is_request("GET", layer["digest"])(handler) and not change(handler))
    other = front.address.replace("127.0.0.1", "localhost")  # another registry, so there is nothing to mount
    for place in ("oci:l:1", "dir:d", "oci-archive:a.tar:1", "docker-archive:d.tar", f"docker://{other}/to:1"):
        bad = rl("copy", "-q", f"docker://{name}", place, check=False, cwd=tmp_path)
        assert bad.returncode == 1 and "digest" in bad.stderr, place
    assert not [each for each in files(tmp_path) if each.endswith((".tar", ".part", layer["digest"][7:], "index.json"))]
    assert not front.count("PUT", "/to/manifests/")


def test_broken_downloads_are_resumed(rl: Runner, front: Front, tmp_path: Path) -> None:
    name = f"{front.address}/copy/short:1"
    rl("push", "-q", "large:1", name)

    def short(handler: Handler) -> None:
        _, headers, body = front.ask("GET", handler.path, dict(handler.headers), b"")
        handler.answer(200, body[: len(body) // 2], headers, length=len(body))

    (layer,) = json.loads(raw_manifest(name))["layers"]
    front.faults.append(times(1, is_request("GET", layer["digest"]), short))
    rl("copy", "-q", f"docker://{name}", f"dir:{tmp_path}/d")
    assert front.count("GET", layer["digest"]) == 2


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"schemaVersion": 2, "layers": [], "manifests": [], "config": {}}, "it means two things"),
        ({"schemaVersion": 1, "name": "x", "fsLayers": []}, "schema 1"),
        ({"schemaVersion": 2, "mediaType": "text/html", "layers": []}, "unknown media type"),
    ],
)
def test_hostile_manifests_are_refused(
    rl: Runner, front: Front, tmp_path: Path, document: dict[str, Any], words: str
) -> None:
    """CVE-2021-41190 and its kin."""
    raw = json.dumps(document).encode()
    front.faults.append(
        lambda handler: "/manifests/" in handler.path and not handler.answer(200, raw, {"Content-Type": "text/html"})
    )
    refused = rl("copy", f"docker://{front.address}/x:1", f"dir:{tmp_path}/d", check=False)
    assert refused.returncode == 1 and words in refused.stderr


def test_a_bottomless_manifest_is_not_read_to_its_end(rl: Runner, front: Front, tmp_path: Path) -> None:
    front.faults.append(lambda handler: "/manifests/" in handler.path and not handler.answer(200, b" " * (6 << 20)))
    refused = rl("copy", f"docker://{front.address}/x:1", f"dir:{tmp_path}/d", check=False)
    assert refused.returncode == 1 and "larger than" in refused.stderr


def policy(tmp_path: Path, document: dict[str, Any]) -> dict[str, str]:
    place = tmp_path / "config" / "containers"
    place.mkdir(parents=True, exist_ok=True)
    (place / "policy.json").write_text(json.dumps(document))
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


def test_the_signature_policy_is_obeyed_or_refused(
    rl: Runner, registry: Registry, pushed: str, tmp_path: Path, store_root: Path
) -> None:
    accept, reject = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
    signed = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]
    run = make_runner(store_root)
    env = policy(tmp_path, {"default": reject})
    refused = run("pull", pushed, check=False, env=env)
    assert refused.returncode == 1 and "is rejected by the default of" in refused.stderr
    assert "is rejected" in run("run", "--rm", pushed, "x", check=False, env=env).stderr
    assert "is rejected" in run("copy", f"docker://{pushed}", f"dir:{tmp_path}/d", check=False, env=env).stderr
    env = policy(tmp_path, {"default": accept, "transports": {"docker": {registry.address: signed}}})
    refused = run("pull", pushed, check=False, env=env)
    assert "signatures cannot be verified here" in refused.stderr and "signedBy" in refused.stderr
    repository = pushed.rpartition(":")[0]
    scopes = {registry.address: reject, repository: accept}
    run("pull", "-q", pushed, env=policy(tmp_path, {"default": reject, "transports": {"docker": scopes}}))
    rl("copy", "-q", f"docker://{pushed}", f"dir:{tmp_path}/d")
    env = policy(tmp_path, {"default": accept, "transports": {"dir": {str(tmp_path): reject}}})
    assert "is rejected" in run("copy", f"dir:{tmp_path}/d", "x:1", check=False, env=env).stderr


def test_artifacts_by_the_tag_of_the_specification(rl: Runner, pushed: str, tmp_path: Path) -> None:
    """distribution-spec: without OCI-Subject the client updates the referrers tag, without duplicates."""
    (tmp_path / "sbom").write_text("{}")
    subject = digest(raw_manifest(pushed))
    attach = ("image", "attach", "--annotation", "k=v", "--artifact-type", "application/x.sbom", pushed)
    first = rl(*attach, f"{tmp_path}/sbom:application/json").stdout.strip()
    assert rl(*attach, f"{tmp_path}/sbom:application/json").stdout.strip() == first
    rl("image", "attach", "--artifact-type", "application/x.sig", pushed, str(tmp_path / "sbom"))
    tag = f"{pushed.rpartition(':')[0]}:{subject.replace(':', '-')}"
    entries = json.loads(raw_manifest(tag))["manifests"]
    assert [each["artifactType"] for each in entries] == ["application/x.sbom", "application/x.sig"]
    assert entries[0]["annotations"] == {"k": "v"} and entries[0]["digest"] == first.rpartition("@")[2]
    listed = rl("image", "referrers", "-q", "--artifact-type", "application/x.sbom", pushed).stdout.split()
    assert listed == [entries[0]["digest"]]
    assert json.loads(raw_manifest(first))["subject"]["digest"] == subject


def test_artifacts_by_the_api_page_by_page(rl: Runner, front: Front) -> None:
    """distribution-spec: follow Link; filter here unless, and even if, OCI-Filters-Applied is said."""
    name = f"{front.address}/api/small:1"
    rl("push", "-q", "small:1", name)

    def page(handler: Handler) -> None:
        number = 2 if "page=2" in handler.path else 1
        entries = [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(b"%d%d" % (number, each)),
                "size": 3,
                "artifactType": "application/x.sbom" if each else "application/x.other",
            }
            for each in (0, 1)
        ]
        raw = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        headers = {"Content-Type": "application/vnd.oci.image.index.v1+json", "OCI-Filters-Applied": "artifactType"}
        if number == 1:
            headers["Link"] = f'<{handler.path}&page=2>; rel="next"'
        handler.answer(200, raw, headers)

    front.faults.append(lambda handler: "/referrers/" in handler.path and not page(handler))
    front.faults.append(
        lambda handler: (
            is_request("PUT", "/manifests/sha256:")(handler)
            and not handler.forward(edit=lambda headers: headers.update({"OCI-Subject": "yes"}))
        )
    )
    found = rl("image", "referrers", "-q", "--artifact-type", "application/x.sbom", name).stdout.split()
    assert found == [digest(b"11"), digest(b"21")]
    front.seen.clear()
    rl("image", "attach", name, os.devnull)
    assert not front.count("PUT", "/manifests/sha256-")


def test_what_no_place_is(rl: Runner, tmp_path: Path) -> None:
    for source, words in (
        ("docker:x", "invalid place"),
        ("docker-daemon:x:1", "is not known here"),
        (f"oci:{tmp_path}/no", "cannot"),
        (f"dir:{tmp_path}", "no manifest.json"),
        ("nothing:1", "no such image"),
    ):
        refused = rl("copy", source, f"dir:{tmp_path}/d", check=False)
        assert refused.returncode in (1, 125) and words in refused.stderr, source
