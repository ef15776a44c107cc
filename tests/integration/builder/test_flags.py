"""Flags of buildx and podman that CI passes: each is obeyed, or refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.integration.builder.conftest import Build, cached_steps, inspect, layers, read_in

TEXT = "FROM busybox\nRUN echo 1 > /one\nRUN echo 2 > /two\n"


@pytest.mark.once
@pytest.mark.parametrize(
    "flags",
    [
        "--builder=default",
        "--rm --force-rm --layers",
        "--provenance=false --sbom=false",
        "--attest=type=provenance,disabled=true --attest=type=sbom,disabled=1",
        "--userns=host",
        "--format=oci",
        "--platform=local",
    ],
)
def test_what_a_build_does_anyway(build: Build, flags: str) -> None:
    assert "warning" not in build("FROM scratch\n", *flags.split()).stderr


@pytest.mark.once
@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--builder=other", "one builder"),
        ("--rm=false", "no container"),
        ("--provenance=true", "no attestations"),
        ("--sbom=generator=image", "no attestations"),
        ("--attest=type=sbom", "no attestations"),
        ("--attest=type=other", "no known type"),
        ("--userns=keep-id", "not for builds"),
        ("--memory=1g", "MemoryMax"),
        ("--cpu-quota=5", "CPUQuota"),
        ("--volume=name:/data", "no volumes"),
        ("--volume=/missing/here:/data", "does not exist"),
        ("--volume=/tmp:/data:U", "option U"),
        ("--format=v2s1", "not one of"),
    ],
)
def test_what_is_refused(build: Build, flag: str, reason: str) -> None:
    for more in ((), ("--check",)):
        made = build("FROM scratch\n", flag, *more, check=False)
        if more and "volume" in flag:
            continue  # a check starts no step
        assert made.returncode == 125 and reason in made.stderr


@pytest.mark.once
def test_the_format_of_the_manifest(build: Build, busybox: Runner) -> None:
    for flags in (("--format=docker",), ("--output=type=image,oci-mediatypes=false",)):
        build(TEXT, *flags, "-t", "form:docker")
        assert (
            '"application/vnd.docker.distribution.manifest.v2+json"'
            in busybox("manifest", "inspect", "form:docker").stdout
        )
        assert "vnd.oci" not in busybox("manifest", "inspect", "form:docker").stdout
    assert read_in(busybox, "form:docker", "cat", "/two") == "2\n"
    refused = build(TEXT, "--format=docker", "--annotation=a=b", check=False)
    assert refused.returncode == 125 and "no annotations" in refused.stderr


def test_without_layers_a_build_makes_one(build: Build, busybox: Runner, context: Path) -> None:
    below = len(inspect(busybox, "busybox")["RootFS"]["Layers"])
    build(TEXT, "-t", "layers:all")
    assert len(inspect(busybox, "layers:all")["RootFS"]["Layers"]) == below + 2
    made = build(TEXT, "-t", "layers:one", "--layers=false")
    assert cached_steps(made) == 0
    assert len(inspect(busybox, "layers:one")["RootFS"]["Layers"]) == below + 1
    assert {member.name.rstrip("/") for member in layers(busybox, "layers:one", context)[-1]} >= {"one", "two"}


def test_a_directory_of_the_host_in_each_run(build: Build, busybox: Runner, context: Path) -> None:
    shared = context / "shared"
    shared.mkdir()
    (shared / "in").write_text("from the host\n")
    (context / ".dockerignore").write_text("shared\n")
    text = "FROM busybox\nRUN cp /mnt/host/in /got && echo made > /mnt/host/out\nRUN test -e /mnt/host/out\n"
    build(text, "-t", "volume:1", "-v", f"{shared}:/mnt/host")
    assert (shared / "out").read_text() == "made\n"
    assert read_in(busybox, "volume:1", "cat", "/got") == "from the host\n"
    read_in(busybox, "volume:1", "test", "!", "-e", "/mnt/host")
    refused = build("FROM busybox\nRUN echo > /mnt/host/x\n", "-v", f"{shared}:/mnt/host:ro", check=False)
    assert refused.returncode and "Read-only file system" in refused.stderr
    assert build("FROM busybox\nRUN test ! -e /mnt/host\n").returncode == 0
