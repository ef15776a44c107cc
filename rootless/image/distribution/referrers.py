"""Manifests that refer to another one as their subject (distribution-spec "Listing Referrers").

They are artifacts: signatures, bills of materials and the like. A registry lists them by an API; where it has none, an
index under a tag that is made of the subject's digest lists them ("Referrers Tag Schema"). What comes back is hostile
like any answer of a registry.
"""

from __future__ import annotations

import json
from typing import NamedTuple
from urllib.parse import quote

from rootless.errors import InvalidInput, RegistryError
from rootless.image.digest import check_digest, digest_of
from rootless.image.distribution.answers import error_text
from rootless.image.distribution.pagination import list_pages
from rootless.image.distribution.registry import read_all
from rootless.image.fields import as_sequence, load_json
from rootless.image.manifest import (
    MANIFEST_LIMIT,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    parse_manifest,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from urllib3 import BaseHTTPResponse

    from rootless.image.distribution.destination import RegistryDestination
    from rootless.image.distribution.http_session import RegistrySession
    from rootless.image.fields import Fields

EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_TRIES = 4  # how often the tagged index is written when other clients write it too
_NO_API = (400, 404, 405, 501)  # statuses with which registries answer that do not know the API


class Referrer(NamedTuple):
    """One artifact that refers to a manifest."""

    digest: str
    artifact_type: str
    media_type: str
    size: int
    annotations: dict[str, str]


def artifact_manifest(
    subject: Descriptor, artifact_type: str, layers: Sequence[Descriptor], annotations: Mapping[str, str]
) -> bytes:
    """The manifest of an artifact: an empty config, the files as layers (image-spec manifest.md, "Guidelines for
    Artifact Usage")."""
    empty = {"mediaType": EMPTY_TYPE, "digest": digest_of(EMPTY), "size": len(EMPTY), "data": "e30="}
    document: Fields = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": empty,
        "layers": [
            {"mediaType": each.media_type, "digest": each.digest, "size": each.size, "annotations": each.annotations}
            for each in layers
        ]
        or [empty],
        "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size},
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def referrers_tag(digest: str) -> str:
    """The tag of the index that lists what refers to `digest`, in a registry without an API for that.

    Its lengths are those of distribution-spec "Referrers Tag Schema": a tag has at most 128 characters, a digest may
    have more.
    """
    algorithm, _, encoded = check_digest(digest).partition(":")
    return f"{algorithm[:32]}-{encoded[:64]}"


def list_referrers(session: RegistrySession, repository: str, digest: str, artifact_type: str = "") -> list[Referrer]:
    """What refers to `digest`, of that type if one is given. Raises RegistryError, InvalidInput."""
    found: dict[str, Referrer] = {}
    for document in _pages(session, repository, digest, artifact_type):
        for each in _referrers(document):
            # The registry need not filter by the type; one that does says so (OCI-Filters-Applied). This suits both
            if not artifact_type or each.artifact_type == artifact_type:
                found.setdefault(each.digest, each)
    return list(found.values())


def add_to_tag(destination: RegistryDestination, subject: str, new: Referrer) -> None:
    """List a further artifact in the index under the referrers tag, which clients must do where the registry does not.

    Registries need not support conditional requests: of two clients that write the index at once one loses its entry.
    So the index is read again after it was written, and written again when the entry is not there. Raises
    RegistryError.
    """
    tag = referrers_tag(subject)
    for _ in range(_TRIES):
        document = _tagged(destination.session, destination.repository, tag)
        entries = _entries(document)
        if any(each.get("digest") == new.digest for each in entries):
            return
        entry: Fields = {"mediaType": new.media_type, "digest": new.digest, "size": new.size}
        entry["artifactType"] = new.artifact_type
        if new.annotations:
            entry["annotations"] = new.annotations
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*entries, entry]}
        destination.put_manifest(json.dumps(index, separators=(",", ":")).encode(), OCI_INDEX, tag=tag)
    document = _tagged(destination.session, destination.repository, tag)
    if not any(each.get("digest") == new.digest for each in _entries(document)):
        raise RegistryError(f"others change the list of referrers '{tag}' at the same time", hint="try again")


def _pages(session: RegistrySession, repository: str, digest: str, artifact_type: str) -> Iterator[Fields]:
    """The indexes that list what refers to `digest`; where the registry has no API for that, the tagged index."""
    query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
    path = f"{repository}/referrers/{check_digest(digest)}{query}"
    for response in list_pages(session, path, absent=_NO_API, headers={"Accept": OCI_INDEX}):
        if response.status == 200:
            yield _index(response)
        else:
            error_text(response)
            yield _tagged(session, repository, referrers_tag(digest))


def _tagged(session: RegistrySession, repository: str, tag: str) -> Fields:
    response = session.get(f"{repository}/manifests/{tag}", headers={"Accept": OCI_INDEX})
    if response.status == 404:
        error_text(response)
        return {"manifests": []}
    return _index(response)


def _index(response: BaseHTTPResponse) -> Fields:
    try:
        raw = read_all(response, MANIFEST_LIMIT)
    finally:
        response.close()
    document = parse_manifest(raw, response.headers.get("Content-Type"))
    if not isinstance(document, Index):
        raise InvalidInput("the list of referrers is not an index")
    return load_json(raw, "the list of referrers")


def _entries(document: Fields) -> list[Fields]:
    """The descriptors of an index; what is no object among them is left out."""
    return [each for each in as_sequence(document.get("manifests"), "manifests") if isinstance(each, dict)]


def _referrers(document: Fields) -> Iterator[Referrer]:
    for each in _entries(document):
        annotations = each.get("annotations")
        pairs = annotations.items() if isinstance(annotations, dict) else ()
        size = each.get("size")
        yield Referrer(
            check_digest(each.get("digest")),
            str(each.get("artifactType") or ""),
            str(each.get("mediaType") or ""),
            size if isinstance(size, int) else 0,
            {str(key): str(value) for key, value in pairs},
        )
