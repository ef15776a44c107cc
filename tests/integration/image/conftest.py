"""Registries for the tests: Debian's docker-registry (plain, TLS, password), and a fake one that misbehaves."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rootless.image.manifest import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from tests.conftest import require

PASSWORD = "pa:ss word"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Registry(NamedTuple):
    """A running docker-registry: address to pull from, its directory (ca.crt and auth.json lie there)."""

    address: str
    directory: Path

    def push(self, source: str, name: str, *extra: str) -> str:
        """Copy `source` (a skopeo name) here; the full name."""
        target = f"docker://{self.address}/{name}"
        command = ["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", *extra, source, target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return f"{self.address}/{name}"


def _start(directory: Path, *, tls: bool, password: bool) -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    address = f"localhost:{port}"
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "x"},
    }
    if tls:
        _make_certificates(directory)
        config["http"]["tls"] = {"certificate": str(directory / "tls.crt"), "key": str(directory / "tls.key")}
    if password:
        made = subprocess.run(["htpasswd", "-Bbn", "me", PASSWORD], capture_output=True, check=True)
        (directory / "htpasswd").write_bytes(made.stdout)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
        packed = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
        (directory / "auth.json").write_text(json.dumps({"auths": {address: {"auth": packed}}}))
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    for _ in range(200):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return process, address
        time.sleep(0.05)
    process.kill()
    raise AssertionError((directory / "log").read_text())


def _make_certificates(directory: Path) -> None:
    """An authority of our own and a certificate for localhost signed by it."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=test authority")
    openssl("req", *key, "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=localhost")
    (directory / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl(
        *("x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-out", "tls.crt", "-days", "2", "-extfile", "ext"),
    )
    certificates = directory / "certs"
    certificates.mkdir()
    shutil.copy(directory / "ca.crt", certificates)


def _registry(*, tls: bool = False, password: bool = False) -> Iterator[Registry]:
    for program in ("docker-registry", "skopeo", *(["openssl"] if tls else []), *(["htpasswd"] if password else [])):
        require(shutil.which(program), f"no {program} on this host")
    directory = Path(tempfile.mkdtemp(prefix="registry-"))
    process, address = _start(directory, tls=tls, password=password)
    try:
        yield Registry(address, directory)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """Plain HTTP on loopback."""
    yield from _registry()


@pytest.fixture(scope="session")
def tls_registry() -> Iterator[Registry]:
    """HTTPS with an authority that the system does not know."""
    yield from _registry(tls=True)


@pytest.fixture(scope="session")
def password_registry() -> Iterator[Registry]:
    """HTTPS and Basic authentication."""
    yield from _registry(tls=True, password=True)


def layer_tar(files: dict[str, bytes]) -> bytes:
    """A small layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Image(NamedTuple):
    """An image in memory: blobs by digest, its manifest and its descriptor."""

    blobs: dict[str, bytes]
    manifest: bytes
    descriptor: dict[str, Any]


def make_image(*layers: bytes, architecture: str = "amd64", suffix: str = "") -> Image:
    """An OCI image of uncompressed layers (suffix "+gzip": compressed)."""
    import gzip

    blobs = {}
    descriptors = []
    for layer in layers:
        content = gzip.compress(layer, 1) if suffix else layer
        blobs[digest(content)] = content
        descriptors.append({"mediaType": OCI_LAYER + suffix, "digest": digest(content), "size": len(content)})
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["sh"], "Labels": {"test": "yes"}},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
    ).encode()
    blobs[digest(config)] = config
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest(config), "size": len(config)},
            "layers": descriptors,
        }
    ).encode()
    descriptor = {"mediaType": OCI_MANIFEST, "digest": digest(manifest), "size": len(manifest)}
    return Image(blobs, manifest, descriptor)


class FakeRegistry:
    """Serves images from memory. `react(handler, path)`: answers a request in its own way, or returns False.

    requests: (path, headers) of all requests, in order.
    """

    def __init__(self) -> None:
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.react: Callable[[http.server.BaseHTTPRequestHandler, str], bool] = lambda handler, path: False
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.requests.append((self.path, dict(self.headers)))
                if not fake.react(self, self.path):
                    fake.serve(self, self.path)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def add(self, tag: str, image: Image) -> None:
        self.blobs.update(image.blobs)
        for name in (tag, str(image.descriptor["digest"])):
            self.manifests[name] = (OCI_MANIFEST, image.manifest)

    def add_index(self, tag: str, *descriptors: dict[str, Any]) -> bytes:
        raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}).encode()
        self.manifests[tag] = self.manifests[digest(raw)] = (OCI_INDEX, raw)
        return raw

    def serve(self, handler: http.server.BaseHTTPRequestHandler, path: str) -> None:
        kind, _, name = path.rpartition("/")
        if path == "/v2/":
            answer(handler, 200, b"{}")
        elif kind.endswith("/manifests") and name in self.manifests:
            media_type, raw = self.manifests[name]
            answer(handler, 200, raw, {"Content-Type": media_type})
        elif kind.endswith("/blobs") and name in self.blobs:
            blob = self.blobs[name]
            start = int(handler.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
            headers = {"Content-Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"} if start else {}
            answer(handler, 206 if start else 200, blob[start:], headers)
        else:
            answer(handler, 404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def answer(
    handler: http.server.BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    *,
    length: int | None = None,
) -> None:
    """Send one answer. length: what Content-Length says; when it is more than there is, the connection breaks."""
    handler.send_response(status)
    for key, value in (headers or {}).items():
        handler.send_header(key, value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)
    if length is not None and length != len(body):
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry in this process."""
    server = FakeRegistry()
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    """A second one, on another port: another host to the rules of authorization."""
    server = FakeRegistry()
    yield server
    server.close()


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no user's files."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", os.devnull)
