"""Attestations beside an image: what one is made of, and that one follows its image to another digest."""

from __future__ import annotations

import json

from rootless.image.attestation import index_entry, make_attestation, moved_attestation
from rootless.image.convert import rebuild_index
from rootless.image.manifest import OCI_MANIFEST, Descriptor, Index, Manifest, parse_manifest

OLD, NEW = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
STATEMENT: dict[str, object] = {
    "predicateType": "https://slsa.dev/provenance/v0.2",
    "subject": [{"name": "a", "digest": {"sha256": "1" * 64}}, {"name": "b", "digest": {"sha256": "3" * 64}}],
    "predicate": {"of": "a build"},
}


def parsed(raw: bytes) -> Manifest:
    manifest = parse_manifest(raw)
    assert isinstance(manifest, Manifest)
    return manifest


def test_a_statement_follows_its_image() -> None:
    made = make_attestation(STATEMENT)
    moved = moved_attestation(parsed(made.manifest), lambda _: made.statement, OLD, NEW)
    assert moved is not None
    statement = json.loads(moved.statement)
    assert [each["digest"]["sha256"][0] for each in statement["subject"]] == ["2", "3"]
    assert {**statement, "subject": STATEMENT["subject"]} == STATEMENT
    assert moved == make_attestation(statement)


def test_a_name_that_is_no_utf8_can_be_stated() -> None:
    made = make_attestation({**STATEMENT, "predicate": {"entryPoint": "D\udcff", "é": 1}})
    assert json.loads(made.statement)["predicate"] == {"entryPoint": "D\udcff", "é": 1}
    assert moved_attestation(parsed(made.manifest), lambda _: made.statement, OLD, NEW) is not None


def test_the_statement_of_somebody_else_does_not() -> None:
    document = json.loads(make_attestation(STATEMENT).manifest)
    del document["annotations"]
    foreign = parsed(json.dumps(document).encode())
    assert moved_attestation(foreign, lambda _: b"", OLD, NEW) is None


def test_the_index_says_what_the_moved_one_is_about() -> None:
    made = make_attestation(STATEMENT)
    image = {"mediaType": OCI_MANIFEST, "digest": OLD, "size": 1}
    raw = {"schemaVersion": 2, "manifests": [image, index_entry(made.descriptor, OLD)]}
    index = parse_manifest(json.dumps(raw).encode())
    assert isinstance(index, Index)

    def about(replaced: dict[str, Descriptor]) -> str:
        document = json.loads(rebuild_index(index, replaced, "oci")[0])
        return str(document["manifests"][1]["annotations"]["vnd.docker.reference.digest"])

    there = Descriptor(OCI_MANIFEST, NEW, 1)
    other = Descriptor(OCI_MANIFEST, f"sha256:{'4' * 64}", 1)
    assert about({OLD: there, made.descriptor.digest: other}) == NEW
    assert about({OLD: there, made.descriptor.digest: made.descriptor}) == OLD  # it was left as it is
