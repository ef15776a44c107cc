"""A repository of a registry as the place where an image goes: blobs skipped, mounted or sent, manifests put last."""

from __future__ import annotations

from urllib.parse import quote

from rootless.errors import AuthenticationError, RegistryError
from rootless.image.content import BlobContent, Placed, begin_reading
from rootless.image.digest import check_digest, digest_of, is_digest
from rootless.image.distribution.answers import error_text
from rootless.image.distribution.http_session import Access, RegistrySession
from rootless.image.distribution.upload import UploadOptions, begin_upload, has_blob, upload_blob
from rootless.image.manifest import INDEX_TYPES, MANIFEST_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from urllib3 import BaseHTTPResponse

    from rootless.image.distribution.shortnames import Registries
    from rootless.image.reference import Reference

_MAX_MOUNTS = 3  # origins that are looked at for a mount


class RegistryDestination:
    """One repository that an image is pushed to; several threads may put blobs at once."""

    __slots__ = ("_seen", "reference", "repository", "session")

    def __init__(self, reference: Reference, session: RegistrySession, repository: str) -> None:
        self.reference = reference
        self.session = session
        self.repository = repository
        self._seen: set[str] = set()

    def has_blob(self, digest: str, size: int | None = None) -> bool:
        """Whether the repository has the blob; a yes is remembered. Raises InvalidInput, RegistryError."""
        check_digest(digest)
        if digest in self._seen:
            return True
        found = has_blob(self.session, self.repository, digest, size)
        if found:
            self._seen.add(digest)
        return found

    def put_blob(
        self,
        content: BlobContent,
        *,
        origins: Sequence[str] = (),
        chunk_size: int | None = None,
        on_bytes: Callable[[int], None] = lambda count: None,
    ) -> Placed:
        """Let the repository have these bytes. origins: repositories of the same registry that may have them.

        Raises RegistryError, AuthenticationError, DigestMismatch.
        """
        begun: BaseHTTPResponse | None = None
        if content.digest is not None:
            if self.has_blob(content.digest, content.size):
                return Placed(content.digest, content.size or 0, "there")
            for origin in list(origins)[:_MAX_MOUNTS]:
                if origin == self.repository:
                    continue
                begun = self._mount(content.digest, origin)
                if begun is None:
                    self._seen.add(content.digest)
                    return Placed(content.digest, content.size or 0, "mounted", origin)
                # The registry has begun an upload instead of the mount: the blob goes there, since asking once more
                # would leave that upload behind
                break
        if begun is None:
            content = begin_reading(content)  # what cannot be read must not leave an upload behind
        sent = upload_blob(self.session, self.repository, content, UploadOptions(chunk_size, on_bytes), begun)
        self._seen.add(sent.digest)
        return Placed(sent.digest, sent.size, "sent")

    def put_manifest(self, raw: bytes, media_type: str, *, tag: str | None = None) -> BaseHTTPResponse:
        """Put a manifest or index under its digest, or under `tag`, and return the answer, whose body was read.

        Raises RegistryError, also when the registry says that it has stored another digest than ours.
        """
        what = tag or digest_of(raw)
        headers = {"Content-Type": media_type, "Content-Length": str(len(raw))}
        response = self.session.send("PUT", f"{self.repository}/manifests/{what}", headers=headers, body=raw)
        if response.status not in (200, 201, 202):
            raise self.session.refusal(response)
        error_text(response)
        told = response.headers.get("Docker-Content-Digest")
        if told and told.startswith("sha256:") and told != digest_of(raw):
            raise RegistryError(f"registry '{self.session.host}' has stored another manifest: '{told[:100]}'")
        return response

    def digest_of_tag(self, tag: str) -> str | None:
        """The digest that the tag means now; None when there is no such tag, or the registry does not say (it may)."""
        accept = {"Accept": ", ".join(MANIFEST_TYPES + INDEX_TYPES)}
        response = self.session.get(f"{self.repository}/manifests/{tag}", headers=accept, method="HEAD")
        error_text(response)
        told = response.headers.get("Docker-Content-Digest")
        return told if response.status == 200 and is_digest(told) else None

    def close(self) -> None:
        """Close all connections to the registry."""
        self.session.close()

    def _mount(self, digest: str, origin: str) -> BaseHTTPResponse | None:
        """Mount the blob of another repository: None when the registry has done so, else its answer, which begins an
        upload instead (distribution-spec "Mounting a blob from another repository")."""
        scope = f"repository:{origin}:pull"
        self.session.want(scope)
        query = f"?mount={quote(digest, safe='')}&from={quote(origin, safe='')}"
        try:
            response = begin_upload(self.session, self.repository, query)
        except AuthenticationError:
            # We may not be allowed to read the other repository: the blob is then sent as any other
            self.session.want(scope, wanted=False)
            return begin_upload(self.session, self.repository)
        if response.status == 201:
            error_text(response)
            return None
        return response


def open_destination(
    reference: Reference,
    registries: Registries,
    access: Access,
    *,
    warn: Callable[[str], None] | None = None,
    actions: str = "pull,push",
) -> RegistryDestination:
    """The repository that `reference` names, reached once (threads may follow); mirrors are never written to."""
    endpoint = registries.endpoints(reference)[-1]
    session = RegistrySession(endpoint, access, actions=actions, warn=warn)
    session.url_of("")
    return RegistryDestination(reference, session, endpoint.repository)
