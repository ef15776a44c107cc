"""One blob on its way into a registry (distribution-spec "Pushing blobs"): begun, sent, resumed, closed or cancelled.

A small blob goes in one request, a large one as a stream of PATCH; after a failure the registry is asked what it has
and the rest follows. Bytes are hashed while they are sent.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from urllib.parse import quote

from rootless.errors import DigestMismatch, RegistryError, RootlessError
from rootless.image.distribution.answers import error_text, reason_of, retry_after
from rootless.units import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from urllib3 import BaseHTTPResponse

    from rootless.image.content import BlobContent
    from rootless.image.distribution.http_session import RegistrySession
    from rootless.image.source import Reader

MONOLITHIC = 4 << 20  # bytes up to which a blob goes as one PUT
CHUNK = 16 << 20  # bytes of a chunk where chunks must be used
_MOST = 64 << 20  # bytes of the largest chunk of a blob of unknown size, which is kept in memory to be counted
_PIECE = 1 << 18
_STALLS = 6  # failures in a row after which the registry has no byte more
_RESTARTS = 3  # how often a registry may forget an upload
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
_LONGEST_PAUSE = 60.0
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_STREAM = {"Content-Type": "application/octet-stream"}


class Sent(NamedTuple):
    """The digest and the size in bytes of the blob that the registry has now."""

    digest: str
    size: int


def _tell_nobody(count: int) -> None:
    """Do nothing: the default of `UploadOptions.on_bytes`, where nobody shows progress."""


class UploadOptions(NamedTuple):
    """How one blob is sent.

    chunk_size: the most bytes of one request (None: all that is left, unless the registry wants less). on_bytes: called
    with the number of bytes that were sent so far; what it raises ends the upload.
    """

    chunk_size: int | None = None
    on_bytes: Callable[[int], None] = _tell_nobody


class UploadLost(Exception):
    """The registry no longer knows the upload, or counts its bytes otherwise than we do: it must begin anew."""


def begin_upload(session: RegistrySession, repository: str, query: str = "") -> BaseHTTPResponse:
    """Begin an upload, and return the registry's answer, whose body is to be read.

    Its status is 202, with a Location where the bytes go, or 201 when `query` asked for a mount and the registry made
    it (distribution-spec "Mounting a blob from another repository"). Raises RegistryError, AuthenticationError.
    """
    response = session.send("POST", f"{repository}/blobs/uploads/{query}", headers={"Content-Length": "0"})
    if response.status in (201, 202):
        return response
    raise session.refusal(response)


def upload_blob(
    session: RegistrySession,
    repository: str,
    content: BlobContent,
    options: UploadOptions,
    begun: BaseHTTPResponse | None = None,
) -> Sent:
    """Send one blob. begun: the answer to a mount that the registry did not make, beginning an upload instead.

    Raises RegistryError, AuthenticationError, DigestMismatch (the bytes are not those of the content's digest).
    """
    for attempt in range(_RESTARTS):
        response = begun or begin_upload(session, repository)
        begun = None
        one = _Upload(session, repository, content, response, options)
        try:
            return one.send()
        except UploadLost:
            session.sleep(_PAUSES[attempt])
        except BaseException:
            one.cancel()
            raise
    raise RegistryError(f"registry '{session.host}' forgets what is uploaded to it")


class _Upload:
    """One upload session (distribution-spec "Pushing blobs"), from the registry's Location to the closing PUT."""

    def __init__(
        self,
        session: RegistrySession,
        repository: str,
        content: BlobContent,
        response: BaseHTTPResponse,
        options: UploadOptions,
    ) -> None:
        self._session = session
        self._repository = repository
        self._content = content
        self._chunk = options.chunk_size
        self._location = ""
        self._offset = 0  # bytes that the registry has
        self._stalls = 0
        self._feed = _Feed(content, options.on_bytes)
        base = session.url_of(f"{repository}/blobs/uploads/")
        self._take_location(response, base)
        self._least = min(whole_number(response.headers.get("OCI-Chunk-Min-Length", "")) or 0, _MOST)
        error_text(response)
        if not self._location:
            raise RegistryError(f"registry '{session.host}' begins an upload without saying where")

    def send(self) -> Sent:
        """Send all bytes and close the upload. Raises UploadLost when the registry forgot the upload."""
        size = self._content.size
        digest = self._content.digest
        if size is not None and size <= MONOLITHIC and digest and not self._chunk and self._send_whole(digest, size):
            return Sent(digest, size)
        while self._feed.end is None or self._offset < self._feed.end:
            self._send_some()
        return self._close()

    def cancel(self) -> None:
        """Tell the registry that nothing more comes. Registries without DELETE for uploads forget them by their age."""
        from urllib3.exceptions import HTTPError

        self._feed.close()
        try:
            error_text(self._session.send_once("DELETE", self._location))
        except (HTTPError, OSError, RootlessError):
            pass  # the registry forgets it by itself

    def _send_whole(self, digest: str, size: int) -> bool:
        """Send a small blob as one PUT; False when that did not go through, and PATCH requests must find out why."""
        body = b"".join(self._feed.pieces(0, size + 1))
        self._feed.check()
        headers = {**_STREAM, "Content-Length": str(size)}
        response = self._session.send("PUT", with_digest(self._location, digest), headers=headers, body=body)
        if response.status in (201, 204):
            error_text(response)
            return True
        if response.status not in (404, 411, 413, 416):
            raise self._session.refusal(response)
        error_text(response)
        # A 404 comes also when an earlier try has put the blob, which ended the upload, and only its answer was lost
        if has_blob(self._session, self._repository, digest, size):
            return True
        self._ask()
        return False

    def _send_some(self) -> None:
        """Send one PATCH with all that is left, or with one chunk; after a failure ask what has arrived."""
        from urllib3.exceptions import HTTPError

        used = self._session.authorization
        start = self._offset
        headers, body = self._request(start)
        if body is None:
            return
        try:
            response = self._session.send_once("PATCH", self._location, headers=headers, body=body)
        except (HTTPError, OSError) as e:
            self._failed(reason_of(e))
            return
        if response.status in (201, 202, 204):
            self._stalls = 0
            self._take_location(response, self._location)
            self._offset = self._accepted(response, self._feed.position)
            error_text(response)
        elif response.status == 401:
            self._session.authorize(response, used, final=self._stalls >= _STALLS)
            self._failed("it wants a new token again and again")
        else:
            self._after(response)

    def _request(self, start: int) -> tuple[dict[str, str], Callable[[], Iterator[bytes]] | bytes | None]:
        """Headers and body of the next PATCH from byte `start` on; the body is None when nothing is left.

        A body that the content can give again is a callable, which needs no memory. A chunk of a blob of unknown size
        is read whole, since its length must stand before it.
        """
        chunk = max(self._chunk, self._least) if self._chunk else None
        size = self._content.size
        if size is not None:
            length = size - start if chunk is None else min(chunk, size - start)
            return _ranged(start, length), lambda: self._feed.pieces(start, length)
        if chunk is None:
            return dict(_STREAM), lambda: self._feed.pieces(start, None)
        whole = b"".join(self._feed.pieces(start, min(chunk, _MOST)))
        return _ranged(start, len(whole)), whole or None

    def _after(self, response: BaseHTTPResponse) -> None:
        """Find a way on after an answer that is no success. Raises RegistryError when there is none, UploadLost."""
        status, location = response.status, response.headers.get("Location")
        if status in (307, 308) and location:
            error_text(response)
            self._location = self._session.url_of(location, base=self._location)
            self._stalls += 1
            if self._stalls > _STALLS:
                raise RegistryError(f"registry '{self._session.host}' redirects an upload for ever")
        elif status == 404:
            error_text(response)
            raise UploadLost
        elif status == 416 or status in _BUSY:
            pause = retry_after(response.headers.get("Retry-After"))
            refused = self._offset
            self._failed(f"it answers {status} {error_text(response)}".rstrip(), pause)
            if status == 416 and self._offset == refused and self._offset != self._feed.end:
                # The registry refuses to go on from the very count that it gives: "0-0" stands for one byte as well as
                # for none, and only a new upload gets away from that
                raise UploadLost
        elif status in (411, 413) and (self._chunk or _MOST) > (1 << 20):
            # A proxy in between wants requests to have a length (411), or a smaller one (413)
            error_text(response)
            self._chunk = min(CHUNK, (self._chunk or 2 * CHUNK) // 2)
            self._failed("it takes no request of this size")
        else:
            raise self._session.refusal(response)

    def _failed(self, why: str, pause: float = 0.0) -> None:
        """Wait, then ask the registry what it has. Raises RegistryError after _STALLS failures without progress."""
        before = self._offset
        if self._stalls >= _STALLS:
            raise RegistryError(f"cannot upload to registry '{self._session.host}': {why}")
        self._session.sleep(min(max(pause, _PAUSES[min(self._stalls, len(_PAUSES) - 1)]), _LONGEST_PAUSE))
        self._stalls += 1
        self._ask()
        if self._offset > before:
            self._stalls = 0
        if self._content.size is None and not self._chunk:
            # A blob of unknown size was sent as one endless request: in chunks, the registry acknowledges each of them
            self._chunk = CHUNK

    def _ask(self) -> None:
        """Ask for the upload's status: how much has arrived, and where the rest goes (distribution-spec "Pushing a
        blob in chunks"). Raises UploadLost, RegistryError."""
        response = self._session.send("GET", self._location)
        if response.status == 404:
            error_text(response)
            raise UploadLost
        if response.status not in (200, 202, 204):
            raise self._session.refusal(response)
        self._take_location(response, self._location)
        self._offset = self._accepted(response, None)
        error_text(response)
        if self._offset > self._feed.hashed:
            raise UploadLost  # the registry claims bytes that nobody has sent

    def _accepted(self, response: BaseHTTPResponse, sent: int | None) -> int:
        """How many bytes the registry says it has; `sent` when it says nothing."""
        first, dash, last = response.headers.get("Range", "").removeprefix("bytes=").partition("-")
        end = whole_number(last.strip())
        if not dash or first.strip() != "0" or end is None:
            if sent is not None:
                return sent
            raise UploadLost
        # Registries say "0-0" of an upload without bytes as well as of one byte: it is taken for none
        count = end + 1 if end else 0
        if sent is not None and (count > sent or not end):
            return sent
        return count

    def _take_location(self, response: BaseHTTPResponse, base: str) -> None:
        if location := response.headers.get("Location"):
            self._location = self._session.url_of(location, base=base)

    def _close(self) -> Sent:
        """End the upload by a PUT with the digest of all bytes. Raises DigestMismatch, UploadLost, RegistryError."""
        sent = self._feed.check()
        url = with_digest(self._location, sent.digest)
        response = self._session.send("PUT", url, headers={"Content-Length": "0"})
        status = response.status
        if status in (201, 202, 204):
            error_text(response)
            return sent
        if status in (404, 416) and has_blob(self._session, self._repository, sent.digest, sent.size):
            error_text(response)
            return sent  # an earlier try has ended the upload, and only its answer was lost
        if status in (404, 416):
            error_text(response)
            raise UploadLost
        raise self._session.refusal(response)


def _ranged(start: int, length: int) -> dict[str, str]:
    return {**_STREAM, "Content-Length": str(length), "Content-Range": f"{start}-{start + length - 1}"}


class _Feed:
    """The content as pieces from any byte on; each byte is hashed once and in order, however often it is sent.

    position: the offset after the last piece. hashed: how many bytes the hash has. end: how many bytes the content has,
    None until its end was seen.
    """

    def __init__(self, content: BlobContent, on_bytes: Callable[[int], None]) -> None:
        self._content = content
        self._on_bytes = on_bytes
        self._hash = hashlib.new((content.digest or "sha256:").partition(":")[0])
        self._reader: Reader | None = None
        self.position = 0
        self.hashed = 0
        self.end: int | None = None

    def pieces(self, start: int, limit: int | None) -> Iterator[bytes]:
        """At most `limit` bytes from `start` on (None: all), which is at most `hashed`: no byte may miss the hash."""
        if self._reader is None or start != self.position:
            self.close()
            self._reader = self._content.open(start)
            self.position = start
        while limit is None or limit > 0:
            piece = self._reader.read(_PIECE if limit is None else min(_PIECE, limit))
            if not piece:
                self.end = self.position
                break
            fresh = self.hashed - self.position
            if fresh < len(piece):
                self._hash.update(piece[fresh:] if fresh else piece)
                self.hashed = self.position + len(piece)
            self.position += len(piece)
            if limit is not None:
                limit -= len(piece)
            yield piece
            self._on_bytes(self.position)
        if self._content.size is not None and self.position >= self._content.size:
            self.end = self.position

    def check(self) -> Sent:
        """The digest and size of all bytes. Raises DigestMismatch when they are not the content's."""
        wanted = self._content
        found = f"{(wanted.digest or 'sha256:').partition(':')[0]}:{self._hash.hexdigest()}"
        self.close()
        if wanted.size is not None and self.hashed != wanted.size:
            raise DigestMismatch(f"content of '{wanted.digest}' has {self.hashed} bytes instead of {wanted.size}")
        if wanted.digest is not None and found != wanted.digest:
            raise DigestMismatch(f"content has digest '{found}' instead of '{wanted.digest}'")
        return Sent(found, self.hashed)

    def close(self) -> None:
        """Close the reader; `pieces` opens another one when it is asked for more."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def has_blob(session: RegistrySession, repository: str, digest: str, size: int | None = None) -> bool:
    """Whether the repository has the blob. One that the registry has with another size than `size` must be sent again.

    Raises RegistryError, AuthenticationError.
    """
    response = session.get(f"{repository}/blobs/{digest}", method="HEAD")
    length = whole_number(response.headers.get("Content-Length", ""))
    error_text(response)
    return response.status == 200 and (size is None or length is None or length == size)


def with_digest(location: str, digest: str) -> str:
    """The URL that closes an upload: the registry's Location with the digest as one more parameter.

    The Location's own query is kept byte for byte: registries keep the upload's signed state there.
    """
    return f"{location}{'&' if '?' in location else '?'}digest={quote(digest, safe='')}"
