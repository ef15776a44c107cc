"""An upload against a registry in memory that breaks off, forgets and lies: every byte once, in order, or an error."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import urllib3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rootless.errors import DigestMismatch, RegistryError
from rootless.image.content import BlobContent
from rootless.image.digest import digest_of
from rootless.image.distribution.upload import MONOLITHIC, UploadOptions, upload_blob


class Answer:
    """As much of urllib3's response as is used."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = headers or {}
        self.closed = True

    def read(self, *unused: object, **also: object) -> bytes:
        return b""

    def close(self) -> None:
        pass

    def release_conn(self) -> None:
        pass


class Memory:
    """A registry with one upload; `plan` says what happens to each PATCH: how many bytes arrive, and the status."""

    host = "registry.test"
    authorization = None

    def __init__(self, plan: list[tuple[int, int]]) -> None:
        self.plan = plan
        self.blobs: dict[str, bytes] = {}
        self.upload: bytearray | None = None
        self.requests: list[str] = []
        self.slept = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def url_of(self, path: str, *, base: str | None = None) -> str:
        return path

    def authorize(self, *unused: object, **also: object) -> None:
        pass

    def refusal(self, response: Answer) -> RegistryError:
        return RegistryError(f"answers {response.status}")

    def get(self, path: str, *, method: str = "GET", **unused: object) -> Answer:
        return Answer(200 if path.rpartition("/")[2] in self.blobs else 404)

    def send(self, method: str, url: str, *, headers: Any = None, body: Any = None) -> Answer:
        self.requests.append(method)
        if method == "POST":
            self.upload = bytearray()
            return Answer(202, {"Location": "/u?s=1"})
        if self.upload is None:
            return Answer(404)
        if method == "GET":
            return Answer(204, {"Range": f"0-{max(0, len(self.upload) - 1)}", "Location": "/u?s=2"})
        if isinstance(body, bytes):
            self.upload += body
        digest = url.rpartition("digest=")[2].replace("%3A", ":")
        if digest_of(bytes(self.upload)) != digest:
            return Answer(400)
        self.blobs[digest] = bytes(self.upload)
        return Answer(201)

    def send_once(
        self, method: str, url: str, *, headers: Any = None, body: Callable[[], Iterable[bytes]] | bytes = b""
    ) -> Answer:
        self.requests.append(method)
        if method == "DELETE" or self.upload is None:
            self.upload = None
            return Answer(404)
        most, status = self.plan.pop(0) if self.plan else (1 << 60, 202)
        content = body if isinstance(body, bytes) else b"".join(body())
        ranged = headers.get("Content-Range")
        if ranged and int(ranged.partition("-")[0]) != len(self.upload):
            return Answer(416)
        if ranged:
            assert (
                int(ranged.partition("-")[2]) - len(self.upload) + 1 == int(headers["Content-Length"]) == len(content)
            )
        self.upload += content[: max(most, 2) if status == 202 else most]
        if status == 0:
            raise urllib3.exceptions.ProtocolError("Connection broken")
        if status == 404:
            self.upload = None
        if status == 202:
            return Answer(202, {"Range": f"0-{len(self.upload) - 1}"})
        return Answer(status)


# A registry's "Range: 0-0" means no byte as well as one, so the fake is never left with exactly one byte: the client
# cannot tell the two apart, and what it does then is to begin anew a bounded number of times.
PLANS = st.lists(
    st.tuples(st.integers(0, 1 << 20).filter(lambda count: count != 1), st.sampled_from([0, 202, 416, 429, 500, 503])),
    max_size=5,
)  # fewer than the failures in a row that end it


@given(
    plan=PLANS,
    size=st.integers(0, 3 << 20).filter(lambda n: n != 1),
    known=st.booleans(),
    chunk=st.sampled_from([None, 70_000, 1 << 20]),
)
@example(
    plan=[(0, 416)] * 3, size=0, known=False, chunk=None
)  # nothing to send, and each request of nothing is refused
@settings(max_examples=80, deadline=None)
def test_every_byte_arrives_whatever_breaks(
    plan: list[tuple[int, int]], size: int, known: bool, chunk: int | None
) -> None:
    content = random.Random(size).randbytes(size)
    registry: Any = Memory(plan)
    digest = digest_of(content)
    opened = BlobContent(
        lambda offset: io.BytesIO(content[offset:]), digest if known else None, size if known else None
    )
    sent = upload_blob(registry, "x", opened, UploadOptions(chunk))
    assert sent == (digest, size) and registry.blobs == {digest: content}


def test_an_upload_that_is_forgotten_again_and_again_ends() -> None:
    registry: Any = Memory([(0, 404)] * 9)
    with pytest.raises(RegistryError, match="forgets"):
        upload_blob(registry, "x", BlobContent(lambda offset: io.BytesIO(b"x" * 100), None, None), UploadOptions())
    assert registry.requests.count("POST") == 3


def test_a_registry_that_never_takes_a_byte_is_given_up_and_told() -> None:
    registry: Any = Memory([(0, 500)] * 99)
    with pytest.raises(RegistryError, match="cannot upload"):
        upload_blob(registry, "x", BlobContent(lambda offset: io.BytesIO(b"x" * 100), None, None), UploadOptions())
    assert registry.requests[-1] == "DELETE" and registry.slept > 5


def test_content_that_is_not_what_its_digest_says_is_not_finished() -> None:
    for size in (100, MONOLITHIC + 1):
        registry: Any = Memory([])
        wrong = BlobContent(lambda offset, size=size: io.BytesIO(bytes(size)[offset:]), digest_of(b"x"), size)  # type: ignore[misc]
        with pytest.raises(DigestMismatch):
            upload_blob(registry, "x", wrong, UploadOptions())
        assert not registry.blobs and "PUT" not in registry.requests
