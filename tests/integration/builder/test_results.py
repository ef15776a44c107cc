"""Where results of several platforms go, and downloads that break off."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import make_runner
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
    refused = build(text, "--platform", "linux/amd64,linux/arm64", "-o", "type=oci,dest=x.tar", check=False)
    assert refused.returncode and "several platforms" in refused.stderr


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
