"""Attestations as BuildKit stores them (its attestation-storage.md): manifests beside an image in the image's index."""

from __future__ import annotations

import json
from typing import NamedTuple

from rootless.image.digest import digest_of
from rootless.image.fields import as_mapping, as_sequence, load_json, text_member
from rootless.image.manifest import OCI_CONFIG, OCI_MANIFEST, REFERENCE_TYPE, Descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.image.fields import Fields
    from rootless.image.manifest import Manifest

REFERENCE_DIGEST = "vnd.docker.reference.digest"  # on a descriptor in an index: the image that it is about
STATEMENT_TYPE = "application/vnd.in-toto+json"
_PREDICATE_TYPE = "in-toto.io/predicate-type"
_MADE_HERE = "rootless.attestation"  # annotation of a manifest whose unsigned statement a build of rootless has made
_UNKNOWN = {"architecture": "unknown", "os": "unknown"}  # the platform, so that nobody runs it as an image


class Attestation(NamedTuple):
    """One attestation: the bytes of its manifest, and those of the config and the statement that the manifest names."""

    manifest: bytes
    config: bytes
    statement: bytes

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of the manifest, without the annotations that it has in an index."""
        return Descriptor(OCI_MANIFEST, digest_of(self.manifest), len(self.manifest))


def make_attestation(statement: Fields) -> Attestation:
    """The attestation that holds `statement`, an in-toto statement. Its config is that of an image, as old registries
    accept no other."""
    # Not with ensure_ascii=False: a name that is no UTF-8, or the text of a stranger's statement, may hold surrogates,
    # which UTF-8 cannot encode and JSON escapes
    raw = json.dumps(statement, indent=2).encode()
    layer = digest_of(raw)
    config = _bytes({**_UNKNOWN, "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer]}})
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [
            {
                "mediaType": STATEMENT_TYPE,
                "digest": layer,
                "size": len(raw),
                "annotations": {_PREDICATE_TYPE: text_member(statement, "predicateType")},
            }
        ],
        "annotations": {_MADE_HERE: "unsigned"},
    }
    return Attestation(_bytes(manifest), config, raw)


def index_entry(attestation: Descriptor, image: str) -> Fields:
    """The descriptor of an attestation as an index has it. image: the digest of the manifest that it is about."""
    return {
        "mediaType": attestation.media_type,
        "digest": attestation.digest,
        "size": attestation.size,
        "annotations": {REFERENCE_DIGEST: image, REFERENCE_TYPE: "attestation-manifest"},
        "platform": dict(_UNKNOWN),
    }


def moved_attestation(
    manifest: Manifest, read: Callable[[Descriptor], bytes], old: str, new: str
) -> Attestation | None:
    """The attestation about the image with the digest `new`, made of one about the same image with the digest `old`.

    The digest of an image changes with the compression of its layers, and a statement about the old one would be about
    nothing. None for an attestation that no build of rootless has made: what others state is not rewritten. read: gives
    the content of a layer of `manifest`. Raises InvalidInput for a statement that is none, and what `read` raises.
    """
    if _MADE_HERE not in manifest.annotations or [each.media_type for each in manifest.layers] != [STATEMENT_TYPE]:
        return None
    statement = load_json(read(manifest.layers[0]), "the statement of an attestation")
    algorithm, _, digits = old.partition(":")
    subjects: list[object] = []
    for each in as_sequence(statement.get("subject"), "subject"):
        subject = as_mapping(each, "subject")
        if as_mapping(subject.get("digest"), "digest").get(algorithm) == digits:
            algorithm_now, _, digits_now = new.partition(":")
            subject = {**subject, "digest": {algorithm_now: digits_now}}
        subjects.append(subject)
    return make_attestation({**statement, "subject": subjects})


def _bytes(document: Fields) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
