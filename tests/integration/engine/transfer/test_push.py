"""`push`: what registries and other tools see afterwards, and what happens when a registry misbehaves."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Runner, make_runner
from tests.integration.engine.transfer.conftest import root_tar
from tests.integration.engine.transfer.faulty_registry import Front, Handler, Tokens, is_request, times
from tests.integration.image.conftest import PASSWORD, Registry, digest, make_image
from tests.integration.image.test_pull import write_layout

pytestmark = pytest.mark.once


def skopeo(*arguments: str) -> str:
    """Run skopeo; it looks for signatures in a place that is not there (as "root" it cannot read its usual one)."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "default.yaml").write_text('{"default-docker": {"lookaside": "file:///nonexistent"}}')
        command = ["skopeo", "--registries.d", directory, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def raw_manifest(name: str) -> bytes:
    return skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}").encode()


def layer_types(name: str) -> list[str]:
    return [each["mediaType"] for each in json.loads(raw_manifest(name))["layers"]]


def is_here_again(rl: Runner, name: str, store: Path) -> bool:
    """Whether a fresh store pulls it, every digest verified, with the id that the pushed image has."""
    run = make_runner(store)
    run("pull", "-q", name)
    return run("images", "-q", "--no-trunc").stdout.split()[0] in rl("images", "-q", "--no-trunc").stdout


def test_skopeo_and_we_ourselves_read_what_was_pushed(
    rl: Runner, registry: Registry, tmp_path: Path, store_root: Path
) -> None:
    name = f"{registry.address}/push/plain:1"
    lines = rl("push", "--digestfile", str(tmp_path / "digest"), "small:1", name).stdout.splitlines()
    assert lines[0] == f"The push refers to repository [{registry.address}/push/plain]"
    raw = raw_manifest(name)
    assert lines[-1] == f"1: digest: {digest(raw)} size: {len(raw)}"
    assert (tmp_path / "digest").read_text() == digest(raw)
    skopeo("copy", "-q", "--insecure-policy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/d")
    assert is_here_again(rl, name, store_root)
    assert f"{registry.address}/push/plain@{digest(raw)}" in rl("image", "inspect", "small:1").stdout
    assert rl("push", "-q", "small:1", name).stdout.strip() == name
    assert raw_manifest(name) == raw


@pytest.mark.parametrize(
    ("options", "manifest", "layer"),
    [
        ((), "oci.image.manifest", "tar+gzip"),
        (("--format", "v2s2"), "docker.distribution.manifest.v2", "diff.tar.gzip"),
        (("--compression", "zstd", "--compression-level", "5"), "oci.image.manifest", "tar+zstd"),
        (("--compression", "none"), "oci.image.manifest", "v1.tar"),
        (("--compression", "gzip", "--compression-level", "9"), "oci.image.manifest", "tar+gzip"),
    ],
)
def test_formats_and_compressions(
    rl: Runner, registry: Registry, store_root: Path, options: tuple[str, ...], manifest: str, layer: str
) -> None:
    name = f"{registry.address}/push/forms:{len(''.join(options))}"
    rl("push", "-q", *options, "small:1", name)
    assert manifest in json.loads(raw_manifest(name))["mediaType"]
    assert [each.endswith(layer) for each in layer_types(name)] == [True]
    assert is_here_again(rl, name, store_root)


def test_impossible_wishes_are_told_before_anything_is_sent(rl: Runner, front: Front) -> None:
    name = f"{front.address}/no:1"
    assert (
        "no layers compressed with zstd"
        in rl("push", "--format", "v2s2", "--compression", "zstd", "small:1", name, check=False).stderr
    )
    assert "is not one of gzip" in rl("push", "--compression-level", "12", "small:1", name, check=False).stderr
    assert "no such image" in rl("push", "nothing:1", name, check=False).stderr
    assert "not to a digest" in rl("push", "small:1", f"{name}@{digest(b'')}", check=False).stderr
    assert not front.seen


def test_what_is_there_is_not_sent_again_and_neighbours_lend_their_layers(rl: Runner, front: Front) -> None:
    def sent() -> int:
        return sum(each.body for each in front.seen if "/blobs/" in each.path)

    assert "Pushed" in rl("push", "small:1", f"{front.address}/lend/one:1").stdout
    front.seen.clear()
    assert "Layer already exists" in rl("push", "small:1", f"{front.address}/lend/one:2").stdout
    assert sent() == 0 and front.count("POST") == 0
    front.seen.clear()
    assert "Mounted from lend/one" in rl("push", "small:1", f"{front.address}/lend/two:1").stdout
    assert front.count("POST", "mount=sha256") == 1
    # only the config was sent: its origin is not kept
    assert sent() < 1000
    # a registry that does not mount begins an upload, which is used
    front.seen.clear()
    front.faults.append(
        times(1, is_request("POST", "mount="), lambda handler: handler.forward(path=handler.path.partition("?")[0]))
    )
    assert "Pushed" in rl("push", "small:1", f"{front.address}/lend/three:1").stdout
    assert front.count("POST") == 2  # that one, and the config's


def test_429_with_retry_after_and_500(rl: Runner, front: Front, store_root: Path) -> None:
    def busy(handler: Handler) -> None:
        handler.refuse_body()
        handler.answer(429, b"slow down", {"Retry-After": "1"})

    def broken(handler: Handler) -> None:
        handler.refuse_body()
        handler.answer(500, b"<html>" + b"x" * 100_000)

    for method, part in (("PATCH", ""), ("PUT", "/manifests/")):
        front.faults += [times(1, is_request(method, part), act) for act in (busy, broken)]
    rl("push", "-q", "large:1", f"{front.address}/busy/large:1")
    assert front.count("PATCH") >= 3
    assert is_here_again(rl, f"{front.address}/busy/large:1", store_root)


def cut_once(front: Front, count: int) -> None:
    """The registry gets so many bytes of a PATCH, then the connection breaks; asked for the status, it tells.

    docker-registry takes an upload whose last Location was lost for broken, so the front remembers it.
    """
    status: dict[str, str] = {}

    def cut(handler: Handler) -> None:
        body = b"".join(handler.pieces(count))
        headers = {key: value for key, value in handler.headers.items() if key.lower() != "content-range"}
        status.update(front.ask("PATCH", handler.path, headers, body)[1])
        handler.reset()

    front.faults.append(times(1, is_request("PATCH", ""), cut))
    front.faults.append(times(1, is_request("GET", "/uploads/"), lambda handler: handler.answer(204, b"", status)))


@pytest.mark.parametrize("compression", [(), ("--compression", "none")])
def test_a_broken_upload_goes_on_where_the_registry_has_it(
    rl: Runner, front: Front, store_root: Path, compression: tuple[str, ...]
) -> None:
    cut_once(front, 3 << 20)
    name = f"{front.address}/cut/large:{len(compression)}"
    rl("push", "-q", *compression, "large:1", name)
    patches = [each for each in front.seen if each.method == "PATCH"]
    assert len(patches) == 2
    assert int(patches[1].headers["Content-Range"].partition("-")[0]) == patches[0].body >= 3 << 20
    assert is_here_again(rl, name, store_root)


def test_an_upload_that_breaks_for_good_is_begun_anew(rl: Runner, front: Front, store_root: Path) -> None:
    def cut(handler: Handler) -> None:
        front.ask("PATCH", handler.path, {}, b"".join(handler.pieces(3 << 20)))
        handler.reset()

    front.faults.append(times(2, is_request("PATCH", ""), cut))
    rl("push", "-q", "large:1", f"{front.address}/cut/anew:1")
    assert is_here_again(rl, f"{front.address}/cut/anew:1", store_root)


def test_416_is_answered_by_asking_what_is_there(rl: Runner, front: Front, store_root: Path) -> None:
    def wrong_range(handler: Handler) -> None:
        handler.refuse_body()
        handler.answer(416)

    front.faults.append(times(1, is_request("PATCH", ""), wrong_range))
    rl("push", "-q", "--chunk-size", "2m", "large:1", f"{front.address}/ranges:1")
    patches = [each for each in front.seen if each.method == "PATCH"]
    assert len(patches) >= 4 and all(each.body <= 2 << 20 for each in patches)
    assert front.count("GET", "/blobs/uploads/") >= 1
    assert is_here_again(rl, f"{front.address}/ranges:1", store_root)


def test_a_registry_that_forgets_the_upload_gets_it_anew(rl: Runner, front: Front, store_root: Path) -> None:
    def forgotten(handler: Handler) -> None:
        handler.refuse_body()
        handler.answer(404, b"{}")

    front.faults.append(times(1, is_request("PATCH", ""), forgotten))
    rl("push", "-q", "large:1", f"{front.address}/forget:1")
    assert is_here_again(rl, f"{front.address}/forget:1", store_root)


def test_a_lost_answer_to_the_last_put_is_no_failure(rl: Runner, front: Front) -> None:
    def silent(handler: Handler) -> None:
        body = b"".join(handler.pieces())
        handler.server.front.ask(handler.command, handler.path, dict(handler.headers), body)
        handler.reset()

    front.faults.append(times(2, is_request("PUT", "/blobs/uploads/"), silent))
    rl("push", "-q", "large:1", f"{front.address}/silent:1")
    assert layer_types(f"{front.address}/silent:1")


def test_credentials_do_not_follow_an_upload_to_another_host(
    rl: Runner, front: Front, stranger: Front, registry: Registry
) -> None:
    """CVE-2020-15157 and its kin, for uploads: Location and redirects to another host."""
    stranger.registry = registry.address
    stranger.address = front.address  # so that what it answers leads back

    def away(headers: dict[str, str]) -> None:
        port = stranger.server.server_address[1]
        headers["Location"] = headers["Location"].replace(front.address, f"127.0.0.1:{port}")

    front.faults.append(Tokens().fault(front))
    front.faults.append(times(1, is_request("POST", "/uploads/"), lambda handler: handler.forward(edit=away)))

    def redirect(handler: Handler) -> None:
        handler.refuse_body()
        port = stranger.server.server_address[1]
        handler.answer(307, b"", {"Location": f"http://127.0.0.1:{port}{handler.path}"})

    rl("push", "-q", "--creds", "me:secret", "large:1", f"{front.address}/away:1")
    front.faults.append(times(1, is_request("PATCH", ""), redirect))
    rl("push", "-q", "--creds", "me:secret", "--compression", "zstd", "large:1", f"{front.address}/away:2")
    assert stranger.count("PATCH") >= 2
    assert not any("authorization" in map(str.lower, each.headers) for each in stranger.seen)
    assert any("Authorization" in each.headers for each in front.seen)
    assert "secret" not in str(stranger.seen)


@pytest.mark.parametrize("location", ["http://me:pw@127.0.0.1:1/x", "http://169.254.169.254/x", "file:///etc/passwd"])
def test_hostile_locations_are_refused(rl: Runner, front: Front, location: str) -> None:
    def lie(headers: dict[str, str]) -> None:
        headers["Location"] = location

    front.faults.append(lambda handler: is_request("POST", "/uploads/")(handler) and not handler.forward(edit=lie))
    refused = rl("push", "-q", "small:1", f"{front.address}/lies:1", check=False)
    assert refused.returncode == 1 and "refused" in refused.stderr


def test_tokens_are_asked_for_pull_and_push_and_anew_when_they_expire(rl: Runner, front: Front) -> None:
    tokens = Tokens(lifetime=3)
    front.faults.append(tokens.fault(front))
    rl("push", "-q", "--chunk-size", "2m", "--creds", "me:secret", "large:1", f"{front.address}/tokens:1")
    assert len(tokens.scopes) >= 3
    assert all("repository:tokens:pull,push" in asked for asked in tokens.scopes)
    wrong = rl("push", "-q", "--creds", "me:wr0ng", "large:1", f"{front.address}/tokens:1", check=False)
    assert wrong.returncode == 1 and "does not accept" in wrong.stderr and "wr0ng" not in wrong.stderr


def test_a_neighbour_that_is_closed_to_us_does_not_stop_a_push(rl: Runner, front: Front) -> None:
    rl("push", "-q", "small:1", f"{front.address}/closed/one:1")
    tokens = Tokens()
    tokens.refused_scopes = ("closed/one",)
    front.faults.append(tokens.fault(front))
    rl("push", "-q", "--creds", "me:secret", "small:1", f"{front.address}/closed/two:1")
    assert layer_types(f"{front.registry}/closed/two:1")


def test_a_refused_upload_is_cancelled(rl: Runner, front: Front) -> None:
    def refuse(handler: Handler) -> None:
        handler.refuse_body()
        handler.answer(403, b'{"errors": [{"code": "DENIED", "message": "no more space"}]}')

    front.faults.append(lambda handler: is_request("PATCH", "")(handler) and not refuse(handler))
    refused = rl("push", "-q", "large:1", f"{front.address}/refused:1", check=False)
    assert refused.returncode == 1 and "no more space" in refused.stderr
    assert front.count("DELETE", "/blobs/uploads/") == 1 and front.count("PUT", "/manifests/") == 0


def test_a_registry_that_stores_another_manifest_is_caught(rl: Runner, front: Front) -> None:
    def lie(headers: dict[str, str]) -> None:
        headers["Docker-Content-Digest"] = digest(b"other")

    front.faults.append(lambda handler: is_request("PUT", "/manifests/")(handler) and not handler.forward(edit=lie))
    refused = rl("push", "-q", "small:1", f"{front.address}/other:1", check=False)
    assert refused.returncode == 1 and "has stored another manifest" in refused.stderr


def test_foreign_layers_are_not_pushed(rl: Runner, front: Front, tmp_path: Path) -> None:
    """image-spec: a nondistributable layer is downloaded, never pushed."""
    image = make_image(root_tar({"a": b"1"}), root_tar({"b": b"2"}), suffix="+gzip")
    document: dict[str, Any] = json.loads(image.manifest)
    foreign = document["layers"][1]
    foreign["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    foreign["urls"] = ["https://example.invalid/layer"]
    manifest = json.dumps(document).encode()
    descriptor = {**image.descriptor, "digest": digest(manifest), "size": len(manifest)}
    write_layout(tmp_path / "l", image._replace(manifest=manifest, descriptor=descriptor))
    image_id = rl("load", "-q", "-i", str(tmp_path / "l")).stdout.split()[-1]
    front.faults.append(
        lambda handler: (
            is_request("PUT", "/manifests/")(handler) and not (handler.refuse_body(), handler.answer(201))[1]
        )
    )
    assert "Skipped foreign layer" in rl("push", image_id, f"{front.address}/foreign:1").stdout
    assert not any(foreign["digest"][7:] in each.path for each in front.seen)
    assert any(document["layers"][0]["digest"][7:] in each.path for each in front.seen)


def test_tls_and_password(rl: Runner, password_registry: Registry) -> None:
    name = f"{password_registry.address}/secret/small:1"
    certificates = ("--cert-dir", str(password_registry.directory / "certs"))
    assert "cannot trust registry" in rl("push", "small:1", name, check=False).stderr
    without = rl("push", *certificates, "small:1", name, check=False)
    assert without.returncode == 1 and "rootless login" in without.stderr
    rl("push", "-q", *certificates, "--creds", f"me:{PASSWORD}", "small:1", name)
    rl(
        "push",
        "-q",
        "--tls-verify=false",
        "--authfile",
        str(password_registry.directory / "auth.json"),
        "small:1",
        name,
    )


def test_every_tag_of_a_repository(rl: Runner, registry: Registry) -> None:
    for tag in ("a", "b"):
        rl("tag", "small:1", f"{registry.address}/tags:{tag}")
    rl("push", "-q", "--all-tags", f"{registry.address}/tags")
    assert raw_manifest(f"{registry.address}/tags:a") == raw_manifest(f"{registry.address}/tags:b")


@pytest.mark.once
def test_what_a_registry_says_when_it_refuses_is_shown(rl: Runner, front: Front) -> None:
    """A push begins with HEAD, whose answer has no body: the words were lost."""
    words = b'{"errors": [{"code": "DENIED", "message": "the quota of project library is used up"}]}'

    def refuse(handler: Handler) -> bool:
        list(handler.pieces())
        handler.answer(403, words, {"Content-Type": "application/json"})
        return True

    front.faults.append(lambda handler: "/library/" in handler.path and refuse(handler))
    refused = rl("push", "small:1", f"{front.address}/library/busybox", check=False)
    assert refused.returncode == 1 and "the quota of project library is used up" in refused.stderr


@pytest.mark.once
def test_a_web_page_in_the_place_of_a_registry_is_called_so(rl: Runner, front: Front) -> None:
    """The message was "Expecting value: line 1 column 1"."""

    def greet(handler: Handler) -> bool:
        list(handler.pieces())
        handler.answer(200, b"<!DOCTYPE html><html><title>Log in</title></html>", {"Content-Type": "text/html"})
        return True

    front.faults.append(greet)
    for command in (
        ("pull", f"{front.address}/library/busybox"),
        ("push", "small:1", f"{front.address}/library/busybox"),
        ("search", f"{front.address}/busybox"),
    ):
        failed = rl(*command, check=False)
        assert failed.returncode and "a web page" in failed.stderr and "registry?" in failed.stderr
        assert "Expecting" not in failed.stderr
