"""The registry client against a registry that misbehaves: retries, ranges, redirects, tokens (TRAPS 1.3, 2)."""

from __future__ import annotations

import http.server
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from rootless.errors import (
    AuthenticationError,
    DigestMismatch,
    ImageNotFound,
    InvalidInput,
    RegistryError,
    RootlessError,
)
from rootless.image.distribution.http_session import Access
from rootless.image.distribution.registry import RegistrySource, open_registry
from rootless.image.distribution.shortnames import load_registries
from rootless.image.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest
from rootless.image.platform import Platform
from rootless.image.reference import parse_reference
from tests.integration.image.conftest import FakeRegistry, answer, layer_tar, make_image

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("no_proxy")]
AMD64 = Platform("linux", "amd64")
Handler = http.server.BaseHTTPRequestHandler
BIG = os.urandom(400_000)


class Opened:
    """A source and what it said and waited."""

    def __init__(
        self, fake: FakeRegistry, name: str = "a/b:1", *, conf: Path | None = None, access: Access | None = None
    ) -> None:
        self.pauses: list[float] = []
        self.warnings: list[str] = []
        registries = load_registries(None, [str(conf)] if conf else [])
        self.source: RegistrySource = open_registry(
            parse_reference(f"{fake.address}/{name}"),
            registries,
            access or Access(),
            warn=self.warnings.append,
            sleep=self.pauses.append,
        )

    def manifest(self) -> Manifest:
        return self.source.manifest(AMD64)

    def blob(self, number: int = 0, offset: int = 0) -> bytes:
        return read(self.source, self.manifest().layers[number], offset)


def read(source: RegistrySource, descriptor: Descriptor, offset: int = 0) -> bytes:
    reader = source.open_blob(descriptor, offset)
    pieces = []
    while piece := reader.read(50_000):
        pieces.append(piece)
    reader.close()
    return b"".join(pieces)


@pytest.fixture
def image(fake: FakeRegistry) -> bytes:
    """`a/b:1` in the fake registry; the bytes of its layer."""
    layer = layer_tar({"big": BIG})
    fake.add("1", make_image(layer))
    return layer


def test_manifest_config_and_blob(fake: FakeRegistry, image: bytes) -> None:
    opened = Opened(fake)
    manifest = opened.manifest()
    assert json.loads(opened.source.config(manifest))["os"] == "linux"
    assert opened.blob() == image and opened.blob(offset=1000) == image[1000:]
    headers = fake.requests[-1][1]
    assert headers["User-Agent"].startswith("rootless/") and opened.pauses == []


def test_busy_and_broken_servers_are_asked_again(fake: FakeRegistry, image: bytes) -> None:
    answers = [(429, {"Retry-After": "7"}), (503, {}), (500, {})]

    def react(handler: Handler, path: str) -> bool:
        if "manifests" not in path or not answers:
            return False
        status, headers = answers.pop(0)
        answer(handler, status, b"busy", headers)
        return True

    fake.react = react
    opened = Opened(fake)
    assert opened.blob() == image
    assert opened.pauses == [7.0, 14.0, 28.0]


def test_retries_end(fake: FakeRegistry, image: bytes) -> None:
    fake.react = lambda handler, path: "manifests" in path and answer(handler, 429, b"slow down") is None
    with pytest.raises(RegistryError, match=r"too many requests.*slow down"):
        Opened(fake)
    assert len([path for path, _ in fake.requests if "manifests" in path]) == 5


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_broken_blob_is_resumed_where_it_broke(fake: FakeRegistry, image: bytes, has_ranges: bool) -> None:
    def react(handler: Handler, path: str) -> bool:
        if "blobs" not in path:
            return False
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1]) if has_ranges else 0
        end = start + 150_000 if has_ranges else min(len(image), 150_000 * len(fake.requests))
        headers = {"Content-Range": f"bytes {start}-{len(image) - 1}/{len(image)}"} if start else {}
        answer(handler, 206 if start else 200, image[start:end], headers, length=len(image) - start)
        return True

    opened = Opened(fake)
    manifest = opened.manifest()
    fake.requests.clear()
    fake.react = react
    assert read(opened.source, manifest.layers[0]) == image
    ranges = [headers.get("Range") for path, headers in fake.requests if "blobs" in path]
    assert ranges[0] is None and ranges[1] and ranges[1] != "bytes=0-"


def test_a_server_that_sends_nothing_is_given_up(fake: FakeRegistry, image: bytes) -> None:
    opened = Opened(fake)
    manifest = opened.manifest()
    fake.react = lambda handler, path: "blobs" in path and answer(handler, 200, b"", length=len(image)) is None
    with pytest.raises(RegistryError, match="cannot download blob"):
        read(opened.source, manifest.layers[0])
    assert len(opened.pauses) == 5


def test_another_range_than_asked_for_is_refused(fake: FakeRegistry, image: bytes) -> None:
    opened = Opened(fake)
    manifest = opened.manifest()
    fake.react = lambda handler, path: (
        "blobs" in path and answer(handler, 206, image, {"Content-Range": "bytes 0-5/6"}) is None
    )
    with pytest.raises(RegistryError, match="another range"):
        read(opened.source, manifest.layers[0], 10)


def test_more_bytes_than_promised_are_not_read(fake: FakeRegistry, image: bytes) -> None:
    fake.blobs = {key: value + b"trailing" for key, value in fake.blobs.items()}
    opened = Opened(fake)
    with pytest.raises(RootlessError):
        opened.source.config(opened.manifest())  # shorter than what comes: the digest cannot be right
    fake.blobs = {key: value[: -len(b"trailing")] for key, value in fake.blobs.items()}


def test_authorization_is_dropped_on_a_redirect_to_another_host(
    fake: FakeRegistry, other: FakeRegistry, image: bytes
) -> None:
    other.blobs = fake.blobs

    def react(handler: Handler, path: str) -> bool:
        if handler.headers.get("Authorization") is None:
            answer(handler, 401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
        elif "blobs" in path:
            answer(handler, 307, b"", {"Location": f"http://{other.address}{path}"})
        else:
            return False
        return True

    fake.react = react
    opened = Opened(fake, access=Access(credentials="me:secret"))
    assert opened.blob() == image
    assert fake.requests[-1][1].get("Authorization", "").startswith("Basic ")
    assert other.requests and all("Authorization" not in headers for _, headers in other.requests)


def test_a_challenge_from_where_a_redirect_led_gets_nothing(
    fake: FakeRegistry, other: FakeRegistry, image: bytes
) -> None:
    fake.react = lambda handler, path: (
        "blobs" in path and answer(handler, 307, b"", {"Location": f"http://{other.address}{path}"}) is None
    )
    other.react = lambda handler, path: answer(handler, 401, b"", {"WWW-Authenticate": 'Basic realm="x"'}) is None
    opened = Opened(fake, access=Access(credentials="me:secret"))
    with pytest.raises(AuthenticationError):
        opened.blob()
    assert all("Authorization" not in headers for _, headers in other.requests)


@pytest.mark.parametrize("target", ["ftp://x/", "http://u:p@127.0.0.1/", "http://169.254.169.254/latest", "http://[x"])
def test_redirects_that_are_refused(fake: FakeRegistry, image: bytes, target: str) -> None:
    fake.react = lambda handler, path: "blobs" in path and answer(handler, 307, b"", {"Location": target}) is None
    with pytest.raises(RegistryError):
        Opened(fake).blob()


def test_redirects_end(fake: FakeRegistry, image: bytes) -> None:
    fake.react = lambda handler, path: "manifests" in path and answer(handler, 302, b"", {"Location": path}) is None
    with pytest.raises(RegistryError, match="redirects more than"):
        Opened(fake)


def token_server(fake: FakeRegistry, realm: str, seen: list[dict[str, str]]) -> None:
    """Let `fake` want a token from `realm`; the token server is the fake itself at /token."""

    def react(handler: Handler, path: str) -> bool:
        if path.startswith("/token"):
            seen.append({"path": path, "authorization": handler.headers.get("Authorization", "")})
            answer(handler, 200, b'{"token": "good"}')
        elif handler.headers.get("Authorization") != "Bearer good":
            answer(handler, 401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})
        else:
            return False
        return True

    fake.react = react


def test_tokens(fake: FakeRegistry, image: bytes) -> None:
    seen: list[dict[str, str]] = []
    token_server(fake, f"http://{fake.address}/token", seen)
    opened = Opened(fake, access=Access(credentials="me:secret"))
    assert opened.blob() == image
    assert len(seen) == 1 and "scope=repository%3Aa%2Fb%3Apull" in seen[0]["path"]
    assert seen[0]["authorization"].startswith("Basic ")


def test_anonymous_tokens_and_expiry(fake: FakeRegistry, image: bytes) -> None:
    seen: list[dict[str, str]] = []
    token_server(fake, f"http://{fake.address}/token", seen)
    opened = Opened(fake)
    manifest = opened.manifest()
    valid = fake.react
    expired = [True]

    def react(handler: Handler, path: str) -> bool:
        if "blobs" in path and expired:
            expired.clear()
            answer(handler, 401, b"", {"WWW-Authenticate": f'Bearer realm="http://{fake.address}/token"'})
            return True
        return valid(handler, path)

    fake.react = react
    assert read(opened.source, manifest.layers[0]) == image
    assert [each["authorization"] for each in seen] == ["", ""]


def test_cve_2020_15157_a_realm_on_a_link_local_address_gets_no_request(fake: FakeRegistry, image: bytes) -> None:
    token_server(fake, "http://169.254.169.254/token", [])
    with pytest.raises(RegistryError, match="link-local"):
        Opened(fake, access=Access(credentials="me:secret"))


def test_the_password_is_not_sent_to_a_foreign_realm(
    fake: FakeRegistry, other: FakeRegistry, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rootless.image.distribution import token

    monkeypatch.setattr(token, "is_trusted_realm", lambda realm, host: False)  # both are loopback here
    token_server(fake, f"http://{other.address}/token", [])
    seen: list[dict[str, str]] = []
    token_server(other, "", seen)
    opened = Opened(fake, access=Access(credentials="me:secret"))
    assert opened.blob() == image
    assert [each["authorization"] for each in seen] == [""]


def test_a_wrong_password(fake: FakeRegistry, image: bytes) -> None:
    fake.react = lambda handler, path: answer(handler, 401, b"", {"WWW-Authenticate": 'Basic realm="x"'}) is None
    with pytest.raises(AuthenticationError, match="does not accept") as caught:
        Opened(fake, access=Access(credentials="me:secret"))
    assert "secret" not in str(caught.value)
    with pytest.raises(AuthenticationError, match="wants credentials"):
        Opened(fake)


def test_an_index_leads_to_the_platform_and_its_digest_is_kept(fake: FakeRegistry) -> None:
    amd64, arm64 = make_image(layer_tar({"a": b"1"})), make_image(layer_tar({"a": b"2"}), architecture="arm64")
    fake.add("x", amd64)
    fake.add("y", arm64)
    inner = fake.add_index(
        "inner", {**arm64.descriptor, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}
    )
    fake.add_index(
        "1",
        {**amd64.descriptor, "platform": {"os": "linux", "architecture": "amd64"}},
        {
            "mediaType": OCI_INDEX,
            "digest": make_digest(inner),
            "size": len(inner),
            "platform": {"os": "linux", "architecture": "arm64"},
        },
    )
    opened = Opened(fake)
    assert opened.manifest().raw == amd64.manifest
    assert opened.source.digests[-1] == amd64.descriptor["digest"] and len(opened.source.digests) == 2
    assert opened.source.manifest(Platform("linux", "arm64")).raw == arm64.manifest
    with pytest.raises(InvalidInput, match="no variant"):
        opened.source.manifest(Platform("linux", "s390x"))


def make_digest(raw: bytes) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def test_a_manifest_that_is_not_its_digest(fake: FakeRegistry) -> None:
    image = make_image(layer_tar({}))
    name = str(image.descriptor["digest"])
    fake.manifests[name] = (OCI_MANIFEST, image.manifest + b" ")
    with pytest.raises(DigestMismatch):
        Opened(fake, f"a/b@{name}")


def test_a_manifest_that_is_not_what_the_header_says(fake: FakeRegistry, image: bytes) -> None:
    raw = fake.manifests["1"][1]
    headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": "sha256:" + "0" * 64}
    fake.react = lambda handler, path: "manifests" in path and answer(handler, 200, raw, headers) is None
    with pytest.raises(DigestMismatch):
        Opened(fake)


def test_cve_2021_41190_content_type_and_media_type(fake: FakeRegistry, image: bytes) -> None:
    fake.manifests["1"] = (OCI_INDEX, fake.manifests["1"][1])
    with pytest.raises(InvalidInput, match="delivered as"):
        Opened(fake).manifest()


def test_a_manifest_without_end(fake: FakeRegistry) -> None:
    fake.react = lambda handler, path: "manifests" in path and answer(handler, 200, b" " * (5 << 20)) is None
    with pytest.raises(InvalidInput, match="larger"):
        Opened(fake)


def test_unknown_images_and_lost_blobs(fake: FakeRegistry, image: bytes) -> None:
    with pytest.raises(ImageNotFound, match="manifest unknown"):
        Opened(fake, "a/b:2")
    opened = Opened(fake)
    manifest = opened.manifest()
    fake.blobs.clear()
    with pytest.raises(RegistryError, match="has lost the blob"):
        read(opened.source, manifest.layers[0])


def test_artifacts_are_no_images(fake: FakeRegistry) -> None:
    empty: dict[str, Any] = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": make_digest(b"{}"), "size": 2}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty, "layers": [empty]}
    fake.manifests["1"] = (OCI_MANIFEST, json.dumps(document).encode())
    with pytest.raises(InvalidInput, match="not a container image"):
        Opened(fake).manifest()


def test_warnings_are_shown_once_and_bounded(fake: FakeRegistry, image: bytes) -> None:
    def react(handler: Handler, path: str) -> bool:
        if "manifests" not in path and "blobs" not in path:
            return False
        name = path.rpartition("/")[2]
        body = fake.manifests[name][1] if "manifests" in path else fake.blobs[name]
        answer(handler, 200, body, {"Warning": '299 - "this registry moves"'})
        return True

    fake.react = react
    opened = Opened(fake)
    opened.blob()
    opened.blob()
    assert len(opened.warnings) == 1 and "this registry moves" in opened.warnings[0]


def test_foreign_layers_are_fetched_without_credentials_and_only_by_https(
    fake: FakeRegistry, other: FakeRegistry, image: bytes
) -> None:
    document = json.loads(fake.manifests["1"][1])
    document["layers"][0]["urls"] = [f"http://{other.address}/layer"]
    fake.manifests["1"] = (OCI_MANIFEST, json.dumps(document).encode())
    opened = Opened(fake, access=Access(credentials="me:secret"))
    manifest = opened.manifest()
    fake.blobs.clear()
    with pytest.raises(RegistryError, match="not https"):
        read(opened.source, manifest.layers[0])
    assert other.requests == []


def test_mirrors_come_first_and_may_fail(fake: FakeRegistry, other: FakeRegistry, image: bytes, tmp_path: Path) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f'[[registry]]\nlocation = "{fake.address}"\n[[registry.mirror]]\nlocation = "{other.address}/mirror"\n'
    )
    opened = Opened(fake, conf=conf)
    assert opened.blob() == image
    assert any("mirror" in text for text in opened.warnings) and other.requests[-1][0] == "/v2/mirror/a/b/manifests/1"
    other.manifests, other.blobs = fake.manifests, fake.blobs
    fake.requests.clear()
    assert Opened(fake, conf=conf, access=Access(credentials="me:secret")).blob() == image
    assert fake.requests == [] and all("Authorization" not in headers for _, headers in other.requests)


def test_plain_http_is_only_for_loopback_or_with_leave(fake: FakeRegistry, image: bytes) -> None:
    with pytest.raises(RegistryError, match=r"plain HTTP|cannot reach"):
        Opened(fake, access=Access(verify=True))
    assert Opened(fake, access=Access(verify=False)).blob() == image


def test_a_registry_that_is_not_there(fake: FakeRegistry) -> None:
    fake.close()
    with pytest.raises(RegistryError, match="connection refused"):
        Opened(fake)


def test_several_threads_share_a_session(fake: FakeRegistry) -> None:
    layers = [layer_tar({"f": os.urandom(200_000)}) for _ in range(6)]
    fake.add("1", make_image(*layers))
    opened = Opened(fake)
    manifest = opened.manifest()
    found: dict[int, bytes] = {}

    def work(number: int) -> None:
        found[number] = read(opened.source, manifest.layers[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(6)] == layers
