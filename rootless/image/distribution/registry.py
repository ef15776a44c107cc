"""Images in a registry, read by the distribution specification: manifests by tag or digest, blobs with Range resume."""

from __future__ import annotations

from rootless.errors import DigestMismatch, ImageNotFound, InvalidInput, RegistryError, RootlessError
from rootless.image.digest import check_digest, digest_of, verify_content
from rootless.image.distribution.answers import after_colon, error_text, reason_of
from rootless.image.distribution.http_session import Access, RegistrySession
from rootless.image.manifest import (
    CONFIG_LIMIT,
    INDEX_TYPES,
    MANIFEST_LIMIT,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
)
from rootless.image.source import Reader, read_verified, resolve_manifest
from rootless.units import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import BaseHTTPResponse

    from rootless.image.distribution.shortnames import Endpoint, Registries
    from rootless.image.platform import Platform
    from rootless.image.reference import Reference

_ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES + INDEX_TYPES)}
_STALLS = 5  # attempts in a row that bring no byte
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds between attempts


class RegistrySource:
    """One image in one registry. sleep: called with the seconds of each pause between attempts."""

    __slots__ = ("_digests", "_raw", "_reference", "_repository", "_session", "_sleep")

    def __init__(
        self, reference: Reference, session: RegistrySession, repository: str, sleep: Callable[[float], None]
    ) -> None:
        self._reference = reference
        self._session = session
        self._repository = repository
        self._raw: tuple[bytes, str | None] | None = None
        self._digests: tuple[str, ...] = ()
        self._sleep = sleep

    @property
    def session(self) -> RegistrySession:
        """The session with the registry, for callers that ask it for more than this image."""
        return self._session

    @property
    def repository(self) -> str:
        """The repository as this registry calls it."""
        return self._repository

    @property
    def names(self) -> tuple[str, ...]:
        """The full name that was asked for, as the only one."""
        return (str(self._reference),)

    @property
    def digests(self) -> tuple[str, ...]:
        """What the registry calls it: the digest of the tag (index or manifest), then those below."""
        return self._digests

    def top(self) -> tuple[bytes, str | None]:
        """The manifest or index that the reference means, and its Content-Type; the registry is asked once.

        Raises ImageNotFound, AuthenticationError, RegistryError, DigestMismatch.
        """
        if self._raw is None:
            what = self._reference.digest or self._reference.tag or "latest"
            raw, media_type = self._manifest(what)
            if self._reference.digest:
                verify_content(raw, self._reference.digest)
            self._raw = (raw, media_type)
        return self._raw

    def manifest(self, platform: Platform) -> Manifest:
        """The manifest for `platform`. Raises what `top` raises, and InvalidInput when there is none."""
        raw, media_type = self.top()
        manifest, digests = resolve_manifest(raw, media_type, platform, self.fetch)
        self._digests = tuple(digests)
        return manifest

    def config(self, manifest: Manifest) -> bytes:
        """The image config's bytes, verified."""
        if manifest.config.data is not None:
            return manifest.config.data
        return read_verified(self.open_blob(manifest.config), manifest.config, CONFIG_LIMIT)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Reader:
        """The content of `descriptor` from byte `offset` on; broken connections are resumed inside `read`."""
        check_digest(descriptor.digest)
        return BlobReader(lambda start: self._blob(descriptor, start), descriptor, offset, self._sleep)

    def close(self) -> None:
        """Close all connections to the registry."""
        self._session.close()

    def fetch(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest below an index, verified. Raises InvalidInput, DigestMismatch, RegistryError."""
        if descriptor.data is not None:
            return descriptor.data
        if descriptor.size > MANIFEST_LIMIT:
            raise InvalidInput(f"manifest of {descriptor.size} bytes is larger than {MANIFEST_LIMIT}")
        return verify_content(self._manifest(descriptor.digest)[0], descriptor.digest, descriptor.size)

    def _manifest(self, what: str) -> tuple[bytes, str | None]:
        from urllib3.exceptions import HTTPError

        last: BaseException | None = None
        for pause in _PAUSES:
            response = self._session.get(f"{self._repository}/manifests/{what}", headers=_ACCEPT)
            if response.status == 404:
                text = after_colon(error_text(response))
                raise ImageNotFound(
                    f"no image '{self._reference.familiar()}' in registry '{self._reference.registry}'{text}",
                    hint="check the name and the tag",
                )
            try:
                raw = read_all(response, MANIFEST_LIMIT)
            except (HTTPError, OSError) as e:
                last = e
                self._sleep(pause)
                continue
            finally:
                response.close()
            self._check_header(response, raw)
            return raw, response.headers.get("Content-Type")
        assert last is not None
        raise RegistryError(f"registry '{self._reference.registry}' breaks off: {reason_of(last)}") from last

    def _check_header(self, response: BaseHTTPResponse, raw: bytes) -> None:
        """Raise DigestMismatch when the bytes are not those of the header Docker-Content-Digest.

        The manifest of a tag has no digest to compare it with; where the header is, a proxy that changed it shows.
        """
        promised = response.headers.get("Docker-Content-Digest")
        if promised and promised.startswith("sha256:") and promised != digest_of(raw):
            verify_content(raw, promised)

    def _blob(self, descriptor: Descriptor, start: int) -> BaseHTTPResponse:
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = self._session.get(f"{self._repository}/blobs/{descriptor.digest}", headers=headers)
        if response.status == 404 and descriptor.urls:
            error_text(response)
            errors: list[RootlessError] = []
            for url in descriptor.urls:
                try:
                    return self._session.fetch_foreign(url, headers)
                except RootlessError as e:
                    errors.append(e)
            raise errors[0]
        if response.status == 404:
            raise RegistryError(
                f"registry '{self._reference.registry}' has lost the blob '{descriptor.digest}'"
                f" of '{self._reference.familiar()}'{after_colon(error_text(response))}"
            )
        return response


class BlobReader:
    """A blob as a stream: opened at the first read, resumed by Range where a connection broke.

    Whoever reads can hash the bytes as they come: each is delivered once and in order, whatever the connections did.
    """

    __slots__ = ("_descriptor", "_left", "_open", "_position", "_response", "_sleep", "_stalls")

    def __init__(
        self,
        open_at: Callable[[int], BaseHTTPResponse],
        descriptor: Descriptor,
        offset: int,
        sleep: Callable[[float], None],
    ) -> None:
        self._open = open_at
        self._descriptor = descriptor
        self._position = offset
        self._left = 0  # bytes to skip: a server without Range begins at 0 again
        self._response: BaseHTTPResponse | None = None
        self._sleep = sleep
        self._stalls = 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, empty after as many as the descriptor says: what a registry sends beyond is not read.

        Raises RegistryError when several attempts bring no byte, DigestMismatch when another size is announced.
        """
        from urllib3.exceptions import HTTPError

        wanted = self._descriptor.size - self._position
        if wanted <= 0:
            return b""
        size = wanted if size < 0 else min(size, wanted)
        while True:
            reason: BaseException | None = None
            try:
                response = self._response or self._begin()
                piece = response.read(size, decode_content=False)
                if piece and self._left:
                    skipped = min(self._left, len(piece))
                    self._left -= skipped
                    piece = piece[skipped:]
                    if not piece:
                        continue
            except (HTTPError, OSError) as e:
                reason, piece = e, b""
            if piece:
                self._stalls = 0
                self._position += len(piece)
                return piece
            self._retry(reason)

    def close(self) -> None:
        """Give the connection back when the blob was read to its end, else close it."""
        if self._response is not None:
            response, self._response = self._response, None
            if self._position >= self._descriptor.size:
                response.release_conn()
            else:
                response.close()

    def _begin(self) -> BaseHTTPResponse:
        response = self._open(self._position)
        self._left = 0
        length = whole_number(response.headers.get("Content-Length", ""))
        if response.status == 200 and length is not None and length != self._descriptor.size:
            response.close()
            raise DigestMismatch(
                f"registry sends {length} bytes for '{self._descriptor.digest}' instead of {self._descriptor.size}"
            )
        if self._position and response.status == 200:
            self._left = self._position
        elif self._position and not _starts_at(response, self._position):
            response.close()
            raise RegistryError(f"registry sends another range of '{self._descriptor.digest}' than was asked for")
        self._response = response
        return response

    def _retry(self, reason: BaseException | None) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None
        if self._stalls >= _STALLS:
            why = reason_of(reason) if reason else f"it ends after {self._position} of {self._descriptor.size} bytes"
            raise RegistryError(f"cannot download blob '{self._descriptor.digest}': {why}") from reason
        self._sleep(_PAUSES[min(self._stalls, len(_PAUSES) - 1)])
        self._stalls += 1


def _starts_at(response: BaseHTTPResponse, position: int) -> bool:
    """Whether a 206 answer begins at the byte that was asked for."""
    content_range = response.headers.get("Content-Range", "")
    return response.status == 206 and content_range.startswith(f"bytes {position}-")


def read_all(response: BaseHTTPResponse, limit: int) -> bytes:
    """The whole body. Raises InvalidInput when it is larger than `limit` bytes, HTTPError when it breaks off."""
    pieces = []
    left = limit + 1
    while left > 0 and (piece := response.read(min(left, 1 << 16), decode_content=False)):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise InvalidInput(f"the registry sends a manifest larger than {limit} bytes")
    return b"".join(pieces)


def open_registry(
    reference: Reference,
    registries: Registries,
    access: Access,
    *,
    warn: Callable[[str], None] | None = None,
    sleep: Callable[[float], None] | None = None,
) -> RegistrySource:
    """The first place that has the image: a mirror, else the reference's own registry. Its manifest is fetched already.

    Raises what the registry itself raised: a mirror that fails is passed over, with a warning.
    """
    import time

    pause = sleep or time.sleep
    endpoints: list[Endpoint] = registries.endpoints(reference)
    for endpoint in endpoints[:-1]:
        source = _source(reference, endpoint, access, warn, pause)
        try:
            source.top()
        except RootlessError as e:
            source.close()
            if warn is not None:
                warn(f"mirror '{endpoint.host}' is passed over: {e.message}")
            continue
        return source
    source = _source(reference, endpoints[-1], access, warn, pause)
    try:
        source.top()
    except BaseException:
        source.close()
        raise
    return source


def open_repository(
    reference: Reference, registries: Registries, access: Access, *, warn: Callable[[str], None] | None = None
) -> RegistrySource:
    """The registry itself, for blobs by digest: nothing is fetched yet, and the reference's tag does not count."""
    import time

    return _source(reference, registries.endpoints(reference)[-1], access, warn, time.sleep)


def _source(
    reference: Reference,
    endpoint: Endpoint,
    access: Access,
    warn: Callable[[str], None] | None,
    sleep: Callable[[float], None],
) -> RegistrySource:
    # The user's flags (--creds, --tls-verify) are about the registry that the user named: a mirror must not get its
    # password, and may speak plain HTTP only where registries.conf says so
    own = Access(authfile=access.authfile) if endpoint.is_mirror else access
    return RegistrySource(reference, RegistrySession(endpoint, own, warn=warn, sleep=sleep), endpoint.repository, sleep)
