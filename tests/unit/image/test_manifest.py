"""Manifests, indexes and configs from hostile bytes (TRAPS 1.3 and 2 "Image")."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import DigestMismatch, InvalidInput, RootlessError
from rootless.image.digest import Hasher, check_digest, digest_of, is_digest
from rootless.image.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_LIMIT,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    ImageConfig,
    Index,
    Manifest,
    chain_ids,
    parse_manifest,
    select_manifest,
)
from rootless.image.platform import Platform, parse_platform

D = "sha256:" + "a" * 64


def descriptor(**more: Any) -> dict[str, Any]:
    return {"mediaType": OCI_LAYER, "digest": D, "size": 3, **more}


def manifest(**more: Any) -> dict[str, Any]:
    config = {"mediaType": OCI_CONFIG, "digest": D, "size": 2}
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [descriptor()], **more}


def parse(document: object, media_type: str | None = None) -> Manifest | Index:
    return parse_manifest(json.dumps(document).encode(), media_type)


def index_of(*platforms: dict[str, Any] | None) -> Index:
    manifests = []
    for number, platform in enumerate(platforms):
        each = {"mediaType": OCI_MANIFEST, "digest": f"sha256:{number:064x}", "size": number}
        manifests.append(each if platform is None else {**each, "platform": platform})
    found = parse({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
    assert isinstance(found, Index)
    return found


def chosen(index: Index, platform: str) -> int:
    return select_manifest(index, parse_platform(platform)).size


def test_raw_bytes_are_kept() -> None:
    raw = json.dumps(manifest(), indent=3).encode() + b"\n"
    found = parse_manifest(raw, OCI_MANIFEST)
    assert isinstance(found, Manifest)
    assert found.raw == raw and found.digest == "sha256:" + hashlib.sha256(raw).hexdigest()


def test_null_is_absent_and_unknown_fields_are_fine() -> None:
    found = parse(manifest(annotations=None, subject=None, artifactType="x/y", future={"a": [1]}))
    assert isinstance(found, Manifest) and found.annotations == {}


def test_cve_2021_41190_type_and_carrier_must_agree() -> None:
    with pytest.raises(InvalidInput, match="delivered as"):
        parse(manifest(), OCI_INDEX)
    assert parse(manifest(), f"{OCI_MANIFEST}; charset=utf-8")  # parameters of a Content-Type are ignored
    assert parse(manifest(), "application/json")
    assert parse(manifest(), "text/plain")


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, OCI_INDEX])
def test_cve_2021_41190_both_layers_and_manifests(media_type: str) -> None:
    with pytest.raises(InvalidInput, match="both"):
        parse({**manifest(), "mediaType": media_type, "manifests": []})


def test_type_is_guessed_when_nobody_says() -> None:
    document = manifest()
    del document["mediaType"]
    assert isinstance(parse(document), Manifest)
    assert isinstance(parse({"schemaVersion": 2, "manifests": []}), Index)
    assert parse({**document, "mediaType": DOCKER_MANIFEST}).media_type == DOCKER_MANIFEST
    assert isinstance(parse({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": []}), Index)


@pytest.mark.parametrize(
    "change",
    [
        {"config": descriptor(digest="sha256:../../etc/passwd")},  # CVE-2024-3727
        {"config": descriptor(digest="sha256:" + "A" * 64)},
        {"config": descriptor(digest=None)},
        {"config": []},
        {"layers": {}},
        {"layers": [None]},
        {"layers": [descriptor(size=-1)]},
        {"layers": [descriptor(size=1.0)]},
        {"layers": [descriptor(size=True)]},
        {"layers": [descriptor(size="3")]},
        {"layers": [descriptor(size=1 << 63)]},
        {"layers": [descriptor(mediaType=5)]},
        {"layers": [descriptor(annotations={"a": 5})]},
        {"layers": [descriptor(data="!!!")]},
        {"layers": [descriptor()] * 1001},
        {"schemaVersion": 3},
        {"schemaVersion": 1},
        {"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"},
        {"mediaType": ["x"]},
        {"mediaType": "x/y"},
    ],
)
def test_bad_manifests(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        parse({**manifest(), **change})


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b"1" * 10_000])
def test_bytes_that_are_no_json_object(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_manifest(raw)


def test_a_manifest_has_a_limit() -> None:
    with pytest.raises(InvalidInput, match="larger"):
        parse_manifest(b" " * (MANIFEST_LIMIT + 1))


def test_embedded_data_is_verified() -> None:
    content = b"abc"
    digest = digest_of(content)
    good = descriptor(digest=digest, data=base64.b64encode(content).decode())
    found = parse(manifest(layers=[good]))
    assert isinstance(found, Manifest) and found.layers[0].data == content
    with pytest.raises(DigestMismatch):
        parse(manifest(layers=[{**good, "digest": D}]))
    with pytest.raises(DigestMismatch):
        parse(manifest(layers=[{**good, "size": 2}]))


def test_first_match_wins_and_variants_fall_back() -> None:
    arm = index_of(
        {"os": "linux", "architecture": "arm", "variant": "v5"},
        {"os": "linux", "architecture": "arm", "variant": "v6"},
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64", "variant": "v8"},
        {"os": "windows", "architecture": "amd64", "os.version": "10"},
    )
    assert chosen(arm, "linux/amd64") == 2
    assert chosen(arm, "linux/arm/v7") == 1
    assert chosen(arm, "linux/arm/v5") == 0
    assert chosen(arm, "arm64") == 4
    assert chosen(arm, "windows/amd64") == 5
    with pytest.raises(InvalidInput, match="no variant for platform 'linux/s390x'") as caught:
        chosen(arm, "linux/s390x")
    assert "linux/arm/v6" in str(caught.value.hint)


def test_newer_variants_are_not_chosen_for_an_older_machine() -> None:
    index = index_of(
        {"os": "linux", "architecture": "amd64", "variant": "v3"}, {"os": "linux", "architecture": "amd64"}
    )
    assert chosen(index, "linux/amd64") == 1
    assert chosen(index, "linux/amd64/v3") == 0
    assert chosen(index, "linux/amd64/v2") == 1


def test_os_features_and_attestations_are_passed_over() -> None:
    index = index_of(
        {"os": "linux", "architecture": "amd64", "os.features": ["x"]},
        {"os": "unknown", "architecture": "unknown"},
        {"os": "linux", "architecture": "amd64"},
    )
    assert chosen(index, "linux/amd64") == 2
    assert chosen(index_of(None), "linux/amd64") == 0


def test_chain_ids() -> None:
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    expected = "sha256:" + hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    assert chain_ids([first, second]) == [first, expected]
    assert chain_ids([]) == []


def test_config_fields() -> None:
    document = {
        "created": "2024-05-06T07:08:09.5Z",
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
        "config": {
            "Env": ["A=1"],
            "Cmd": ["sh"],
            "Entrypoint": None,
            "User": "1:2",
            "Volumes": {"/v": {}},
            "Labels": {"a": "b"},
            "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {"Test": ["NONE"]},
        },
        "rootfs": {"type": "layers", "diff_ids": [D]},
        "history": [{"created_by": "x", "empty_layer": True}],
    }
    config = ImageConfig(json.dumps(document).encode())
    assert (config.env, config.cmd, config.entrypoint, config.user) == (["A=1"], ["sh"], None, "1:2")
    assert (config.volumes, config.labels, config.exposed_ports) == (["/v"], {"a": "b"}, ["80/tcp"])
    assert config.platform == Platform("linux", "arm64", "v8")
    assert config.created_time == 1714979289.5


@pytest.mark.parametrize(
    "document",
    [
        {"rootfs": {"type": "squashfs", "diff_ids": []}},
        {"rootfs": {"diff_ids": ["sha256:x"]}},
        {"rootfs": []},
        {"config": {"Env": "A=1"}},
        {"config": {"Cmd": [1]}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"User": 5}},
        {"history": ["x"]},
        {"os": 5},
    ],
)
def test_bad_configs(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        ImageConfig(json.dumps(document).encode())


def test_digest_grammar() -> None:
    assert is_digest(D) and is_digest("sha512:" + "0" * 128) and is_digest("blake3:abc") and is_digest("a+b.c:x=_-")
    for text in ("", "sha256:", "sha256:" + "a" * 63, "sha256:" + "g" * 64, "sha512:" + "0" * 64, "a:b/c", "a:..", 5):
        assert not is_digest(text)
    with pytest.raises(InvalidInput):
        check_digest("x")


def test_a_hasher_refuses_what_it_cannot_compute_and_what_is_too_long() -> None:
    with pytest.raises(InvalidInput, match="cannot be verified"):
        Hasher("md5:0123")
    hasher = Hasher(digest_of(b"abc"), 3)
    hasher.update(b"ab")
    with pytest.raises(DigestMismatch, match="bytes instead of"):
        hasher.finish()
    with pytest.raises(DigestMismatch, match="longer"):
        hasher.update(b"cd")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just(D),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["mediaType", "digest", "size", "platform", "os", "config", "layers", "data", "urls", "x"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from([*manifest(), "manifests", "annotations"]), json_values, max_size=7))
def test_any_json_is_a_manifest_or_an_error_of_ours(document: dict[str, Any]) -> None:
    for media_type in (None, OCI_MANIFEST, OCI_INDEX):
        try:
            parse(document, media_type)
        except RootlessError:
            continue


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_politely(raw: bytes) -> None:
    for parser in (parse_manifest, ImageConfig):
        try:
            parser(raw)
        except RootlessError:
            continue


@given(
    st.dictionaries(
        st.sampled_from(["rootfs", "config", "history", "os", "created", "architecture"]), json_values, max_size=5
    )
)
def test_any_json_is_a_config_or_an_error_of_ours(document: dict[str, Any]) -> None:
    try:
        config = ImageConfig(json.dumps(document).encode())
    except RootlessError:
        return
    assert isinstance(config.created_time, float)


def test_members_of_the_wrong_type_are_named() -> None:
    from rootless.image import fields

    assert fields.as_strings({"a": None, "b": "c"}, "Labels") == {"a": "", "b": "c"}
    assert (
        fields.text_member({}, "User") == ""
        and fields.texts_member({}, "Cmd") is None
        and fields.as_sequence(None, "layers") == []
    )
    for call in (
        lambda: fields.text_member({"User": 7}, "User"),
        lambda: fields.texts_member({"User": ["a", 7]}, "User"),
        lambda: fields.as_strings({"a": 7}, "User"),
        lambda: fields.as_sequence({}, "User"),
        lambda: fields.as_mapping([], "User"),
    ):
        with pytest.raises(InvalidInput, match="'User'"):
            call()


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"history": [{}] * 10001}, "a history of 10001 steps"),
        ({"rootfs": {"type": "layers", "diff_ids": [D] * 1001}}, "1001 layers"),
    ],
)
def test_a_config_has_bounded_lists(document: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        ImageConfig(json.dumps(document).encode())
