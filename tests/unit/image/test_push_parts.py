"""The pure parts of push and copy: compression, conversion, names of places, the signature policy, pages, scopes."""

from __future__ import annotations

import gzip
import io
import json
import random
import zlib
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.errors import UsageError
from rootless.image.compress import Compressed, Compression, make_encoder, parse_compression
from rootless.image.convert import format_of, layer_compression, layer_type, rebuild_index, rebuild_manifest
from rootless.image.digest import digest_of
from rootless.image.distribution.answers import next_link
from rootless.image.distribution.auth import Secret
from rootless.image.distribution.policy import PolicyError, check_policy, requirements_for, scopes_of
from rootless.image.distribution.referrers import artifact_manifest, referrers_tag
from rootless.image.distribution.token import Challenge, refresh_form
from rootless.image.distribution.token import scopes_of as token_scopes
from rootless.image.distribution.upload import with_digest
from rootless.image.manifest import (
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
)
from rootless.image.places import STORE, parse_place

DIGEST = "sha256:" + "ab" * 32
COMPRESSIONS = [
    Compression("gzip"),
    Compression("gzip", 1),
    Compression("gzip", 9),
    Compression("zstd"),
    Compression("none"),
]


class Dribble:
    """Gives its bytes in pieces of any size."""

    def __init__(self, content: bytes, seed: int) -> None:
        self._stream = io.BytesIO(content)
        self._random = random.Random(seed)

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(self._random.randint(1, max(1, size if size > 0 else 1 << 20)))

    def close(self) -> None:
        pass


def pack(content: bytes, compression: Compression, *, seed: int | None = None, size: int = 1 << 16) -> bytes:
    reader = Compressed(io.BytesIO(content) if seed is None else Dribble(content, seed), compression)
    pieces = []
    while piece := reader.read(size):
        assert len(piece) <= size
        pieces.append(piece)
    reader.close()
    return b"".join(pieces)


def unpack(content: bytes, name: str) -> bytes:
    if name == "gzip":
        return gzip.decompress(content)
    if name == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return content


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=str)
@given(
    words=st.lists(st.binary(min_size=1, max_size=40), max_size=20),
    repeat=st.integers(1, 3000),
    seed=st.integers(0, 1000),
    size=st.integers(1, 1 << 20),
)
@settings(max_examples=25, deadline=None)
def test_the_same_layer_always_gives_the_same_bytes(
    compression: Compression, words: list[bytes], repeat: int, seed: int, size: int
) -> None:
    content = b"".join(words) * repeat
    packed = pack(content, compression)
    assert pack(content, compression, seed=seed, size=size) == packed
    assert unpack(packed, compression.name) == content


def test_a_layer_of_many_pieces() -> None:
    """What ISA-L makes depends on the pieces it is fed: a pipe's must not show in the digest."""
    content = random.Random(1).randbytes(3 << 20) + bytes(2 << 20) + b"end"
    for compression in COMPRESSIONS:
        assert pack(content, compression, seed=1) == pack(content, compression, seed=2) == pack(content, compression)


def test_gzip_has_nothing_that_varies_in_its_header() -> None:
    packed = pack(b"x", Compression())
    assert packed[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    assert packed[-8:] == zlib.crc32(b"x").to_bytes(4, "little") + b"\1\0\0\0"
    pipe = make_encoder(Compression())
    assert gzip.decompress(pipe.feed(b"x") + pipe.finish()) == b"x"


def test_keys_of_compressions_differ() -> None:
    assert len({each.key for each in COMPRESSIONS}) == len(COMPRESSIONS)


@pytest.mark.parametrize(("name", "level"), [("xz", None), ("gzip", 0), ("gzip", 10), ("zstd", 23), ("none", 1)])
def test_what_is_no_compression(name: str, level: int | None) -> None:
    with pytest.raises(UsageError):
        parse_compression(name, level)


def manifest(*types: str, media_type: str = OCI_MANIFEST, **more: Any) -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": OCI_CONFIG, "digest": DIGEST, "size": 2},
        "layers": [{"mediaType": each, "digest": digest_of(each.encode()), "size": 5} for each in types],
        **more,
    }
    found = parse_manifest(json.dumps(document, indent=3).encode())
    assert isinstance(found, Manifest)
    return found


KINDS = st.sampled_from(["", "+gzip", "+zstd"])


@given(suffixes=st.lists(KINDS, max_size=5))
def test_what_does_not_change_keeps_its_very_bytes(suffixes: list[str]) -> None:
    here = manifest(*(OCI_LAYER + suffix for suffix in suffixes), annotations={"a": "b"}, unknown=[1])
    assert rebuild_manifest(here, here.layers, "oci") == (here.raw, OCI_MANIFEST)


@given(suffixes=st.lists(st.sampled_from(["", "+gzip"]), max_size=5))
def test_to_dockers_types_and_back(suffixes: list[str]) -> None:
    here = manifest(*(OCI_LAYER + suffix for suffix in suffixes), unknown=[1])

    def convert(old: Manifest, form: str) -> Manifest:
        layers = [
            each._replace(media_type=layer_type(each, layer_compression(each.media_type), form)) for each in old.layers
        ]
        raw, media_type = rebuild_manifest(old, layers, form)
        new = parse_manifest(raw, media_type)
        assert isinstance(new, Manifest) and format_of(new.media_type) == form
        assert [each.digest for each in new.layers] == [each.digest for each in old.layers]
        return new

    there = convert(here, "v2s2")
    assert there.media_type == DOCKER_MANIFEST and "container.image" in there.config.media_type
    back = convert(there, "oci")
    assert [each.media_type for each in back.layers] == [each.media_type for each in here.layers]
    assert json.loads(back.raw) == json.loads(here.raw)


def test_foreign_layers_stay_foreign_in_both_formats() -> None:
    foreign = Descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", DIGEST, 1)
    oci = foreign._replace(media_type=layer_type(foreign, "gzip", "oci"))
    assert oci.is_foreign and layer_type(oci, "gzip", "v2s2") == foreign.media_type
    with pytest.raises(UsageError):
        layer_type(foreign, "zstd", "v2s2")


def test_an_index_with_other_manifests() -> None:
    child = {
        "mediaType": OCI_MANIFEST,
        "digest": DIGEST,
        "size": 7,
        "platform": {"os": "linux", "architecture": "arm64"},
    }
    index = parse_manifest(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode())
    assert isinstance(index, Index)
    assert rebuild_index(index, {}, "oci") == (index.raw, OCI_INDEX)
    assert rebuild_index(index, {DIGEST: index.manifests[0]}, "oci")[0] == index.raw
    other = Descriptor(DOCKER_MANIFEST, digest_of(b""), 9)
    raw, _ = rebuild_index(index, {DIGEST: other}, "v2s2")
    (entry,) = json.loads(raw)["manifests"]
    assert entry == {**child, "mediaType": DOCKER_MANIFEST, "digest": other.digest, "size": 9}


@pytest.mark.parametrize(
    ("text", "transport", "path", "name"),
    [
        ("docker://a.io/b:1", "docker", "", "a.io/b:1"),
        ("oci:dir/x:tag", "oci", "dir/x", "tag"),
        ("oci:dir", "oci", "dir", ""),
        ("oci-archive:/a/b.tar:r.io/x:1", "oci-archive", "/a/b.tar", "r.io/x:1"),
        ("docker-archive:f:n:1", "docker-archive", "f", "n:1"),
        ("dir:/a:b", "dir", "/a:b", ""),
        ("rootless:busybox", STORE, "", "busybox"),
        ("containers-storage:busybox:1", STORE, "", "busybox:1"),
        ("busybox:1", STORE, "", "busybox:1"),
        ("localhost:5000/x:1", STORE, "", "localhost:5000/x:1"),
    ],
)
def test_places(text: str, transport: str, path: str, name: str) -> None:
    assert parse_place(text) == (transport, path, name)


@pytest.mark.parametrize(
    "text", ["", "docker:a", "docker://", "oci:", "oci::tag", "dir:", "rootless:", "docker-daemon:x"]
)
def test_no_places(text: str) -> None:
    with pytest.raises(UsageError):
        parse_place(text)


@given(st.text(max_size=60))
def test_any_text_is_a_place_or_an_error(text: str) -> None:
    try:
        place = parse_place(text)
    except UsageError:
        return
    assert place.path or place.name


def test_scopes_of_the_policy_are_the_longest_first() -> None:
    assert scopes_of("docker", "a.b.io:5000/x/y:1") == [
        "a.b.io:5000/x/y:1",
        "a.b.io:5000/x/y",
        "a.b.io:5000/x",
        "a.b.io:5000",
        "*.b.io",
        "*.io",
        "",
    ]
    assert scopes_of("docker", f"a.io/x@{DIGEST}")[:3] == [f"a.io/x@{DIGEST}", "a.io/x", "a.io"]
    assert scopes_of("dir", "/a/b") == ["/a/b", "/a", ""]
    # CVE-2026-48785: components, not characters
    assert "a.io/foo" not in scopes_of("docker", "a.io/foobar:1")


def test_the_most_specific_scope_decides() -> None:
    accept, reject = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
    document = {"default": reject, "transports": {"docker": {"a.io": accept, "a.io/x": reject, "": accept}}}
    for identity, wanted in (("a.io/x/y:1", reject), ("a.io/z:1", accept), ("b.io/z:1", accept)):
        assert requirements_for(document, "docker", identity)[1] is wanted
    assert requirements_for(document, "oci", "/x") == ("", reject)


@pytest.mark.parametrize("kind", ["signedBy", "sigstoreSigned", "signedBaseLayer"])
def test_what_cannot_be_verified_is_not_let_in(kind: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2022-39237 and its kin: never say that something was verified which was not."""
    (tmp_path / "containers").mkdir()
    requirements = [{"type": "insecureAcceptAnything"}, {"type": kind}]
    (tmp_path / "containers" / "policy.json").write_text(json.dumps({"default": requirements}))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(PolicyError, match="cannot be verified here"):
        check_policy("docker", "a.io/x:1")


def test_scopes_of_tokens_are_joined() -> None:
    challenge = Challenge("bearer", {"realm": "https://a.io/t", "scope": "repository:x:pull registry:catalog:*"})
    assert token_scopes(challenge, ["repository:x:pull,push", "repository:y:pull"]) == [
        "repository:x:pull,push",
        "registry:catalog:*",
        "repository:y:pull",
    ]
    assert b"scope=a+b" in refresh_form(challenge, ["a", "b"], Secret("s"))


@pytest.mark.parametrize(
    ("location", "wanted"),
    [
        ("https://a.io/u/1", "https://a.io/u/1?digest=sha256%3Aab"),
        ("https://a.io/u/1?_state=x%3D%3D", "https://a.io/u/1?_state=x%3D%3D&digest=sha256%3Aab"),
    ],
)
def test_a_location_keeps_its_query(location: str, wanted: str) -> None:
    """distribution-spec: append `digest`, never rebuild."""
    assert with_digest(location, "sha256:ab") == wanted


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ('</v2/_catalog?last=b&n=2>; rel="next"', "/v2/_catalog?last=b&n=2"),
        ("<x>; rel=prev, <y>; rel=next", "y"),
        ("nonsense", None),
    ],
)
def test_links_to_the_next_page(header: str | None, wanted: str | None) -> None:
    assert next_link(header) == wanted


def test_the_tag_of_referrers() -> None:
    assert referrers_tag(DIGEST) == "sha256-" + "ab" * 32
    assert referrers_tag("sha512:" + "cd" * 64) == "sha512-" + "cd" * 32


def test_an_artifact_is_a_manifest_with_a_subject() -> None:
    subject = Descriptor(OCI_MANIFEST, DIGEST, 5)
    found = parse_manifest(artifact_manifest(subject, "application/x", [], {"k": "v"}))
    assert isinstance(found, Manifest) and found.config.data == b"{}" and found.annotations == {"k": "v"}
    assert json.loads(found.raw)["subject"] == {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 5}
