"""Manifests that lie beside an image in its index, as buildx puts its attestations there: carried, and left alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.integration.builder.conftest import Build
from tests.integration.builder.conftest import build as build
from tests.integration.builder.conftest import context as context
from tests.integration.image import conftest as registries
from tests.integration.image.conftest import Registry

pytestmark = pytest.mark.once

registry = registries.registry


def put(layout: Path, content: bytes) -> dict[str, object]:
    """Put a blob into a layout; digest and size of it."""
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def attest(layout: Path) -> str:
    """Replace the image of the layout by an index of it and an attestation in buildx' form; the index' digest."""
    top = json.loads((layout / "index.json").read_text())
    image = top["manifests"][0]
    statement = put(layout, json.dumps({"_type": "https://in-toto.io/Statement/v0.1", "pad": "x" * 500}).encode())
    platform = {"architecture": "unknown", "os": "unknown"}
    config = {**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": [statement["digest"]]}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **put(layout, json.dumps(config).encode())},
        "layers": [{"mediaType": "application/vnd.in-toto+json", **statement}],
    }
    listed = {"mediaType": manifest["mediaType"], **put(layout, json.dumps(manifest).encode()), "platform": platform}
    listed["annotations"] = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image["digest"],
    }
    image = {key: image[key] for key in ("mediaType", "digest", "size", "platform")}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [image, listed]}
    described = put(layout, json.dumps(index).encode())
    top["manifests"] = [{"mediaType": index["mediaType"], **described}]
    (layout / "index.json").write_text(json.dumps(top))
    return str(described["digest"])


def test_an_attestation_is_carried_as_it_is(build: Build, busybox: Runner, context: Path, registry: Registry) -> None:
    layout = context / "layout"
    (context / ".dockerignore").write_text("layout\n")
    build("FROM scratch\nCOPY Dockerfile /\n", "-o", f"type=oci,tar=false,dest={layout}")
    digest = attest(layout)
    name = f"{registry.address}/attested:1"
    busybox("copy", "--all", f"oci:{layout}", f"docker://{name}")
    assert busybox("pull", "--all-platforms", name).stdout
    busybox("system", "prune", "-f")
    again = busybox("push", "--all", name, f"{registry.address}/again:1")
    shown = json.loads(busybox("manifest", "inspect", f"docker://{registry.address}/again:1").stdout)
    _, second = shown["manifests"]
    before = json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())["manifests"]
    assert second["digest"] == before[1]["digest"], again.stderr
    assert second["annotations"]["vnd.docker.reference.type"] == "attestation-manifest"
    target = context / "copied"
    busybox("copy", "--all", name, f"oci:{target}")
    assert (target / "blobs" / str(before[1]["digest"]).replace(":", "/")).exists()
    busybox("rmi", name)
