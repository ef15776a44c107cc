"""Where results of several platforms go, and downloads that break off."""

from __future__ import annotations

import json
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, make_runner
from tests.integration.builder.conftest import Build
from tests.integration.image import conftest as registries
from tests.integration.image.conftest import Registry

pytestmark = pytest.mark.once

registry = registries.registry


def test_a_push_of_several_platforms_has_all_of_them(
    build: Build, context: Path, registry: Registry, store_root: Path
) -> None:
    name = f"{registry.address}/multi:1"
    text = "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n"
    build(text, "--platform", "linux/amd64,linux/arm64", "-t", name, "--push", "-o", "type=image,compression=zstd")
    shown = json.loads(make_runner(store_root)("manifest", "inspect", name).stdout)
    assert sorted(each["platform"]["architecture"] for each in shown["manifests"]) == ["amd64", "arm64"]
    refused = build(text, "--platform", "linux/amd64,linux/arm64", "-o", "type=docker,dest=x.tar", check=False)
    assert refused.returncode == 125 and "several platforms" in refused.stderr


SEVERAL = ("--platform", "linux/amd64,linux/arm64")
FOR_EACH = "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\nCOPY Dockerfile /same\n"


def test_an_archive_of_several_platforms(build: Build, busybox: Runner, context: Path) -> None:
    archive, layout = context / "several.tar", context / "layout"
    (context / ".dockerignore").write_text("*.tar\nlayout\n")
    outputs = ("-o", f"type=oci,dest={archive},compression=zstd", "-o", f"type=oci,tar=false,dest={layout}")
    build(FOR_EACH, *SEVERAL, "-t", "several:1", *outputs)
    for place in (f"oci-archive:{archive}", f"oci:{layout}"):
        for architecture in ("amd64", "arm64"):
            busybox("copy", "--platform", f"linux/{architecture}", place, "taken:1")
            shown = json.loads(busybox("image", "inspect", "taken:1").stdout)[0]
            assert shown["Architecture"] == architecture
            busybox("rmi", "taken:1")
    with tarfile.open(archive) as tar:
        listed = json.load(tar.extractfile("index.json"))["manifests"]
        index = json.load(tar.extractfile(f"blobs/{listed[0]['digest'].replace(':', '/')}"))
        manifest = json.load(tar.extractfile(f"blobs/{index['manifests'][1]['digest'].replace(':', '/')}"))
    name = "org.opencontainers.image.ref.name"
    assert [each["annotations"][name] for each in listed] == ["docker.io/library/several:1"]
    assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]
    assert {each["mediaType"].rpartition("+")[2] for each in manifest["layers"]} == {"zstd"}
    assert "several" not in busybox("images").stdout  # the archive was asked for, and no image here


def test_the_files_of_several_platforms(build: Build, context: Path) -> None:
    (context / ".dockerignore").write_text("*.tar\nout\n")
    names = ["linux_amd64", "linux_amd64/amd64", "linux_amd64/same"]
    names += [name.replace("amd64", "arm64") for name in names]
    build(FOR_EACH, *SEVERAL, "-o", f"type=tar,dest={context}/x.tar", "-o", f"{context}/out")
    with tarfile.open(context / "x.tar") as tar:
        assert tar.getnames() == names
    assert sorted(str(path.relative_to(context / "out")) for path in (context / "out").rglob("*")) == names
    build(FOR_EACH, "--platform=linux/arm64", "-o", f"type=tar,dest={context}/x.tar,platform-split=true")
    with tarfile.open(context / "x.tar") as tar:
        assert tar.getnames() == names[3:]
    build(FOR_EACH, "--platform=linux/arm64", "-o", f"type=tar,dest={context}/x.tar")
    with tarfile.open(context / "x.tar") as tar:
        assert tar.getnames() == ["arm64", "same"]
    refused = build(FOR_EACH, *SEVERAL, "-o", "type=local,dest=x,platform-split=false", check=False)
    assert refused.returncode == 125 and "platform-split" in refused.stderr


def test_the_compression_that_a_push_is_asked_for(
    build: Build, context: Path, registry: Registry, store_root: Path
) -> None:
    name = f"{registry.address}/zstd:1"
    build("FROM scratch\nCOPY Dockerfile /\n", "-t", name, "-o", "type=registry,compression=zstd")
    shown = json.loads(make_runner(store_root)("manifest", "inspect", name).stdout)
    assert [each["mediaType"].rpartition("+")[2] for each in shown["layers"]] == ["zstd"]


@pytest.fixture
def breaking() -> Iterator[str]:
    """A server that promises more bytes than it sends; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/file"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def test_a_download_that_breaks_off_is_no_file(build: Build, breaking: str) -> None:
    done = build(f"FROM scratch\nADD {breaking} /\n", check=False)
    assert done.returncode and f"cannot download '{breaking}'" in done.stderr
    assert "unexpected error" not in done.stderr
    bad = build("FROM scratch\nADD http://[::1/file /\n", check=False)
    assert bad.returncode and "is not a URL" in bad.stderr and "unexpected error" not in bad.stderr


def test_checks_are_told_once(build: Build) -> None:
    done = build("FROM scratch\nMAINTAINER somebody\nCOPY Dockerfile /\n")
    lines = [line for line in done.stderr.splitlines() if "MAINTAINER" in line and "warning" in line.lower()]
    assert len(lines) == 1, done.stderr
