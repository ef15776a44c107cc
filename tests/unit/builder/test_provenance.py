"""What --provenance and --attest ask for, and the materials that a provenance lists."""

from __future__ import annotations

import pytest

from rootless.builder.build_options import BuildOptions, ProvenanceOptions, parse_provenance
from rootless.builder.session.materials import Materials, image_uri, without_password
from rootless.errors import UsageError
from rootless.image.platform import parse_platform
from rootless.image.reference import parse_reference

DIGEST = f"sha256:{'1' * 64}"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (BuildOptions(), None),
        (BuildOptions(provenance="false"), None),
        (BuildOptions(attest=("type=provenance,disabled=true",), sbom="0"), None),
        (BuildOptions(provenance="true"), ProvenanceOptions()),
        (BuildOptions(provenance="mode=min,inline-only=true"), ProvenanceOptions(is_inline_only=True)),
        (
            BuildOptions(attest=("type=provenance,mode=max,builder-id=https://ci.example/1",)),
            ProvenanceOptions(builder_id="https://ci.example/1", is_reduced=True),
        ),
        (
            BuildOptions(attest=('type=provenance,"builder-id=a,b",version=v1,reproducible=1',)),
            ProvenanceOptions("v1", "a,b", is_reproducible=True),
        ),
    ],
)
def test_what_is_asked_for(options: BuildOptions, wanted: ProvenanceOptions | None) -> None:
    assert parse_provenance(options) == wanted


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (BuildOptions(provenance="mode=max"), "mode=max is not made"),
        (BuildOptions(provenance="true", attest=("type=provenance",)), "the same attestation"),
        (BuildOptions(provenance="true", format="docker"), "hold no attestations"),
        (BuildOptions(provenance="disabled=perhaps"), "true or false"),
        (BuildOptions(sbom="true"), "makes no SBOM"),
    ],
)
def test_what_is_not_made(options: BuildOptions, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_provenance(options)


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("alpine", "pkg:docker/alpine@latest?platform=linux%2Farm64"),
        ("ghcr.io/foo/bar:v2", "pkg:docker/ghcr.io/foo/bar@v2?platform=linux%2Farm64"),
        (f"alpine:3@{DIGEST}", f"pkg:docker/alpine@3?digest={DIGEST}&platform=linux%2Farm64"),
        (f"alpine@{DIGEST}", f"pkg:docker/alpine?digest={DIGEST}&platform=linux%2Farm64"),
    ],
)
def test_the_package_url_of_an_image(name: str, uri: str) -> None:
    assert image_uri(parse_reference(name), parse_platform("linux/arm64")) == uri


def test_materials() -> None:
    materials = Materials()
    materials.add_fetched("https://user:secret@example.org/r.git#main", f"git:{'a' * 40}:sub:False")
    materials.add_image("pkg:docker/z", DIGEST)
    other = materials.copy()
    other.add_fetched("https://example.org/f", DIGEST)
    other.add_fetched("https://example.org/f", DIGEST)
    assert [each.to_json() for each in other.found] == [
        {"uri": "pkg:docker/z", "digest": {"sha256": "1" * 64}},
        {"uri": "https://example.org/f", "digest": {"sha256": "1" * 64}},
        {"uri": "https://xxxxx:xxxxx@example.org/r.git#main", "digest": {"sha1": "a" * 40}},
    ]
    assert len(materials.found) == 2
    assert without_password("https://token@example.org/x") == "https://xxxxx@example.org/x"
    for kept in ("ssh://git@example.org/x", "git@example.org:x", "https://example.org/x?a=b"):
        assert without_password(kept) == kept
