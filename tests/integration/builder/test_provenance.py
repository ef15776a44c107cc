"""`build --provenance`: what the statement says, where it is stored, and that it is about the image that is there."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.integration.builder.conftest import Build, inspect, read_in
from tests.integration.image import conftest as registries
from tests.integration.image.conftest import Registry

pytestmark = pytest.mark.once

registry = registries.registry

TEXT = "FROM busybox\nARG TOKEN\nRUN --mount=type=secret,id=word echo 1 > /one\n"
BUILDER = "https://ci.example/runs/7"


@pytest.fixture
def out(context: Path) -> Path:
    """A directory for what a build writes, which is no part of the context."""
    (context / "out").mkdir()
    (context / ".dockerignore").write_text("out\n")
    return context / "out"


def blob(layout: Path, digest: str) -> dict:
    """A JSON document of a layout, whose digest is right."""
    content = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
    return json.loads(content)


def statements(layout: Path) -> list[tuple[dict, dict]]:
    """(descriptor of an image, the statement about it) of each attestation in a layout."""
    index = blob(layout, json.loads((layout / "index.json").read_text())["manifests"][0]["digest"])
    images = {each["digest"]: each for each in index["manifests"] if "annotations" not in each}
    found = []
    for each in index["manifests"]:
        if each["digest"] in images:
            continue
        assert each["annotations"]["vnd.docker.reference.type"] == "attestation-manifest"
        assert each["platform"] == {"architecture": "unknown", "os": "unknown"}
        image = images[each["annotations"]["vnd.docker.reference.digest"]]
        manifest = blob(layout, each["digest"])
        (layer,) = manifest["layers"]
        assert layer["mediaType"] == "application/vnd.in-toto+json"
        assert blob(layout, manifest["config"]["digest"])["rootfs"]["diff_ids"] == [layer["digest"]]
        statement = blob(layout, layer["digest"])
        assert layer["annotations"]["in-toto.io/predicate-type"] == statement["predicateType"]
        assert [one["digest"] for one in statement["subject"]] == [{"sha256": image["digest"][7:]}]
        found.append((image, statement))
    return found


def test_what_is_stated(build: Build, out: Path, busybox: Runner) -> None:
    layout = out / "layout"
    flags = f"type=provenance,mode=max,builder-id={BUILDER}"  # as docker/build-push-action has it by itself
    given = ("--build-arg=TOKEN=hidden", "--label=l=hidden", "--secret=id=word,env=PATH")
    metadata = out / "metadata"
    made = build(TEXT, "-t", "attested:1", f"--attest={flags}", *given, "-o", f"type=oci,tar=false,dest={layout}",
                 "--metadata-file", str(metadata))  # fmt: skip
    assert "mode=max" in made.stderr
    ((image, statement),) = statements(layout)
    assert statement["predicateType"] == "https://slsa.dev/provenance/v0.2"
    assert statement["subject"][0]["name"].startswith("pkg:docker/attested@1?platform=linux%2F")
    predicate = statement["predicate"]
    assert predicate["builder"] == {"id": BUILDER}
    assert predicate["buildType"] == "https://mobyproject.org/buildkit@v1"
    (base,) = predicate["materials"]
    assert base["uri"].startswith("pkg:docker/busybox@latest?platform=linux%2F") and len(base["digest"]["sha256"]) == 64
    invocation = predicate["invocation"]
    assert invocation["configSource"] == {"entryPoint": "Dockerfile"}
    assert invocation["parameters"]["frontend"] == "dockerfile.v0"
    assert invocation["parameters"]["locals"] == [{"name": "context"}, {"name": "dockerfile"}]
    assert invocation["environment"]["platform"].startswith("linux/")
    about = predicate["metadata"]
    assert about["completeness"] == {"parameters": False, "environment": True, "materials": False}
    assert about["reproducible"] is False and len(about["buildInvocationID"]) == 25
    assert about["buildStartedOn"] < about["buildFinishedOn"] and about["buildFinishedOn"].endswith("Z")
    assert "hidden" not in json.dumps(statement) and "word" not in json.dumps(statement)
    told = json.loads(metadata.read_text())
    assert told["buildx.build.provenance"]["materials"] == predicate["materials"]
    assert told["containerimage.digest"] == json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    compressed = out / "gzip"
    build(TEXT, "--provenance=true", "-o", f"type=oci,tar=false,compression=gzip,dest={compressed}")
    ((other, statement),) = statements(compressed)
    assert other["digest"] != image["digest"] and statement["subject"][0]["name"] == "_"


def test_the_newer_version_without_a_network(build: Build, out: Path) -> None:
    layout = out / "v1"
    build("FROM scratch\nCOPY Dockerfile /\n", "--provenance=version=v1,reproducible=true", "--target=0",
          "-o", f"type=oci,tar=false,dest={layout}")  # fmt: skip
    ((_, statement),) = statements(layout)
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    predicate = statement["predicate"]
    asked = predicate["buildDefinition"]["externalParameters"]
    assert asked["configSource"] == {"path": "Dockerfile"} and asked["request"]["args"] == {"target": "0"}
    assert predicate["buildDefinition"]["resolvedDependencies"] == []
    about = predicate["runDetails"]["metadata"]
    assert about["buildkit_reproducible"] is True and about["buildkit_completeness"]["request"] is True


def test_an_image_with_provenance_is_an_image(build: Build, busybox: Runner, out: Path, registry: Registry) -> None:
    name = f"{registry.address}/attested:1"
    build(TEXT, "-t", name, "--provenance=true", "--push")
    assert read_in(busybox, name, "cat", "/one") == "1\n"
    assert len(inspect(busybox, name)["RootFS"]["Layers"]) > 1
    build(f"FROM {name}\nRUN test -e /one\n", "--pull")
    archive = out / "saved.tar"
    busybox("save", "-o", str(archive), name)
    busybox("system", "prune", "-f")
    # The layers were compressed for the registry: the statement is about the image that is there
    for end, more in (("pushed", ()), ("again", ("--compression", "zstd"))):
        if more:
            busybox("push", "--all", *more, name)
        layout = out / f"{end}"
        busybox("copy", "--all", f"docker://{name}", f"oci:{layout}")
        ((_, statement),) = statements(layout)
        assert statement["subject"][0]["name"].startswith(f"pkg:docker/{registry.address}/attested@1?platform=")
    busybox("rmi", name)
    busybox("pull", name)
    assert read_in(busybox, name, "cat", "/one") == "1\n"


def test_each_platform_has_its_own(build: Build, out: Path, busybox: Runner) -> None:
    layout = out / "several"
    build("FROM scratch\nCOPY Dockerfile /\n", "--provenance=true", "--platform=linux/amd64,linux/arm64",
          "-o", f"type=oci,tar=false,dest={layout}")  # fmt: skip
    found = statements(layout)
    assert [image["platform"]["architecture"] for image, _ in found] == ["amd64", "arm64"]
    assert len({statement["predicate"]["metadata"]["buildInvocationID"] for _, statement in found}) == 1
    # One image for another platform is found by its name, as it is without provenance. The same image with another
    # statement replaces the one of before
    for _ in range(2):
        build("FROM scratch\nCOPY Dockerfile /\n", "--provenance=true", "--platform=linux/s390x", "-t", "foreign:1")
    shown = inspect(busybox, "foreign:1")
    assert shown["Architecture"] == "s390x"
    assert busybox("images", "-q", "--no-trunc").stdout.split().count(shown["Id"]) == 1
    busybox("rmi", "foreign:1")


def test_beside_files(build: Build, out: Path, busybox: Runner) -> None:
    target = out / "files"
    text = "FROM scratch\nCOPY Dockerfile /sub/\n"
    want = [{"name": "sub/Dockerfile", "digest": {"sha256": hashlib.sha256(text.encode()).hexdigest()}}]
    for _ in range(2):
        build(text, "--provenance=true", "-o", str(target))
        statement = json.loads((target / "provenance.json").read_text())
        assert statement["subject"] == want and statement["predicate"]["materials"] == []
    build(text, "--provenance=mode=min,inline-only=true", "-o", f"{target}-2")
    assert sorted(each.name for each in Path(f"{target}-2").iterdir()) == ["sub"]
    build(text, "--provenance=filename=p.json", "-o", f"type=tar,dest={out}/files.tar")
    with tarfile.open(out / "files.tar") as archive:
        assert json.load(archive.extractfile("p.json"))["subject"] == want
    refused = build(
        "FROM scratch\nCOPY Dockerfile /provenance.json\n", "--provenance=true", "-o", str(target), check=False
    )
    assert refused.returncode and "filename=" in refused.stderr
    docker = out / "docker.tar"
    made = build(text, "--provenance=true", "-t", "in:docker", "-o", f"type=docker,dest={docker}")
    assert "without the provenance" in made.stderr
    assert "in:docker" in busybox("load", "-i", str(docker)).stdout
    busybox("rmi", "in:docker")
