"""Flags of buildx and podman that CI passes: each is obeyed, or refused with a reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Runner, require
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
        ("--provenance=mode=max", "mode=max is not made"),
        ("--provenance=mode=all", "mode is min"),
        ("--provenance=version=v2", "v0.2 or v1"),
        ("--provenance=filename=a/b", "plain file name"),
        ("--provenance=modes=min", "unknown field"),
        ("--sbom=generator=image", "no SBOM"),
        ("--attest=type=sbom", "no SBOM"),
        ("--attest=type=other", "no known type"),
        ("--userns=keep-id", "not for builds"),
        ("--network=shop", "no network with a name"),
        ("--allow=network.hots", "'network.hots' is not known"),
        ("--memory=1g", "MemoryMax"),
        ("--cpu-quota=5", "CPUQuota"),
        ("--volume=name:/data", "no volumes"),
        ("--volume=/missing/here:/data", "does not exist"),
        ("--volume=/tmp:/data:U", "option U"),
        ("--format=v2s1", "not one of"),
        ("--print=outline", "--call"),
    ],
)
def test_what_is_refused(build: Build, flag: str, reason: str) -> None:
    for more in ((), ("--check",)):
        made = build("FROM scratch\n", flag, *more, check=False)
        if more and "volume" in flag:
            continue  # a check starts no step
        assert made.returncode == 125 and reason in made.stderr


@pytest.mark.once
@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--push", "an image without a name cannot be pushed"),
        ("--output=type=registry", "an image without a name cannot be pushed"),
        ("--label==x", "invalid label '=x'"),
        ("--annotation=x", "invalid annotation 'x'"),
        ("--ulimit=nofile=x", "invalid --ulimit"),
        ("--security-opt=other", "invalid --security-opt"),
        ("--shm-size=x", "--shm-size"),
        ("--add-host=x", "--add-host"),
        ("--iidfile=/missing/file", "no directory '/missing'"),
        ("--metadata-file=/missing/file", "no directory '/missing'"),
    ],
)
def test_what_is_refused_before_anything_is_built(build: Build, flag: str, reason: str) -> None:
    made = build("FROM scratch\nCOPY Dockerfile /\n", flag, check=False)
    assert made.returncode == 125 and reason in made.stderr and "COPY" not in made.stderr


@pytest.mark.once
def test_scratch_in_the_place_of_a_base(build: Build, busybox: Runner) -> None:
    text = "FROM nothing:here\nCOPY Dockerfile /only\nFROM other\nCOPY --from=0 /only /\n"
    given = (
        "--build-context",
        "nothing:here=docker-image://scratch",
        "--build-context",
        "other=docker-image://scratch",
    )
    build(text, *given, "-t", "scratch:only")
    assert len(inspect(busybox, "scratch:only")["RootFS"]["Layers"]) == 1
    assert build(text, *given, "--check").stdout == "Check complete, no warnings found.\n"


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


@pytest.fixture
def key(tmp_path: Path) -> Path:
    require(shutil.which("ssh-keygen"), "no OpenSSH client on this machine (apt-get install openssh-client)")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    return tmp_path / "key"


def agents() -> set[str]:
    """The processes of this user that are ssh-agents; he may have some of his own."""
    found = subprocess.run(["pgrep", "-u", str(os.getuid()), "-x", "ssh-agent"], capture_output=True, text=True)
    assert found.returncode in (0, 1), found.stderr
    return set(found.stdout.split())


def test_an_agent_with_keys_of_files(build: Build, key: Path) -> None:
    before = agents()
    text = "FROM busybox\nRUN --mount=type=ssh,id=mine,required=true test -S $SSH_AUTH_SOCK\n"
    build(text, "--ssh", f"mine={key}", "--no-cache")
    for _ in range(500):
        if agents() <= before:
            return
        time.sleep(0.01)
    pytest.fail("the agent is left behind")


@pytest.mark.once
def test_files_that_are_no_keys(build: Build, key: Path) -> None:
    text = "FROM busybox\nRUN --mount=type=ssh true\n"
    made = build(text, "--ssh", f"default={key}.pub", check=False)
    assert made.returncode and "--ssh default:" in made.stderr
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret words", "-f", str(key)], check=True)
    made = build(text, "--ssh", f"default={key}", check=False)
    assert made.returncode and "passphrase" in made.stderr
    for wrong in ("/missing", "/tmp"):
        assert "--ssh default: " in build(text, "--ssh", f"default={wrong}", check=False).stderr


@pytest.mark.once
def test_how_a_cache_is_written(build: Build, context: Path) -> None:
    def layer_types(*fields: str) -> set[str]:
        where = context.parent / f"{context.name}-cache"
        build(TEXT, "--cache-to", ",".join([f"type=local,dest={where}", *fields]))
        try:
            index = json.loads((where / "index.json").read_text())["manifests"][0]
            manifest = json.loads((where / "blobs" / index["digest"].replace(":", "/")).read_text())
            return {each["mediaType"].rpartition("tar")[2] for each in manifest["layers"]}
        finally:
            shutil.rmtree(where)

    assert layer_types("oci-mediatypes=true", "image-manifest=true", "compression=zstd") == {"+zstd"}
    assert layer_types("compression=gzip", "compression-level=1", "force-compression=true") == {"+gzip"}
    assert layer_types("force-compression=true") == {"+gzip"}
    for wrong in ("oci-mediatypes=false", "image-manifest=false", "compression=estargz", "compression-level=1"):
        refused = build(TEXT, "--cache-to", f"type=local,dest={context}/c,{wrong}", check=False)
        assert refused.returncode == 125 and "--cache-to" in refused.stderr and "RUN" not in refused.stderr


@pytest.mark.once
def test_a_cache_takes_the_place_of_the_one_before(build: Build, busybox: Runner, context: Path) -> None:
    where = context / "cache"
    (context / ".dockerignore").write_text("cache\n")
    for text in (TEXT, TEXT.replace("/two", "/three")):
        build(text, "--cache-to", f"type=local,dest={where}")
    busybox("builder", "prune", "-af")
    assert cached_steps(build(TEXT.replace("/two", "/three"), "--cache-from", f"type=local,src={where}")) == 2
    assert len(json.loads((where / "index.json").read_text())["manifests"]) == 1
    (context / "cache" / "index.json").unlink()
    refused = build(TEXT, "--cache-to", f"type=local,dest={where}", check=False)
    assert refused.returncode and "no OCI layout" in refused.stderr


@pytest.mark.once
def test_a_cache_that_cannot_be_written(build: Build) -> None:
    target = "type=registry,ref=127.0.0.1:1/cache:1"
    failed = build(TEXT, "--cache-to", target, check=False)
    assert failed.returncode and "rootless: --cache-to 127.0.0.1:1/cache:1: cannot reach" in failed.stderr
    made = build(TEXT, "--cache-to", f"{target},ignore-error=true")
    assert "warning: --cache-to 127.0.0.1:1/cache:1:" in made.stderr
