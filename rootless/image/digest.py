"""Digests: their grammar, and hashing bytes while they pass. No file and no network is touched here."""

from __future__ import annotations

import re

from rootless.errors import DigestMismatch, InvalidInput
from rootless.hashing import sha256_of

# The grammar is that of image-spec descriptor.md ("Digests"). A registered algorithm also fixes the length and the
# alphabet of the encoded part
_GRAMMAR = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", re.ASCII)
_REGISTERED = {"sha256": re.compile(r"[a-f0-9]{64}", re.ASCII), "sha512": re.compile(r"[a-f0-9]{128}", re.ASCII)}
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
MAX_LENGTH = 256


def is_digest(text: object) -> bool:
    """Whether `text` obeys the grammar of digests, and has its algorithm's length where the algorithm is registered."""
    if not isinstance(text, str) or len(text) > MAX_LENGTH or not _GRAMMAR.fullmatch(text):
        return False
    algorithm, _, encoded = text.partition(":")
    registered = _REGISTERED.get(algorithm)
    return registered is None or registered.fullmatch(encoded) is not None


def check_digest(text: object) -> str:
    """`text` when it is a digest. Raises InvalidInput for anything else.

    To be called before a digest of a stranger becomes part of a path or a URL, where `../` in it would lead elsewhere
    (CVE-2024-3727).
    """
    if not is_digest(text):
        raise InvalidInput(f"'{str(text)[:MAX_LENGTH]}' is not a digest")
    assert isinstance(text, str)
    return text


def hex_of(digest: str) -> str:
    """The 64 hexadecimal digits of a sha256 digest. Raises InvalidInput for anything else, as `check_digest` does."""
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise InvalidInput(f"'{digest}' is not a digest of the form sha256:<64 hexadecimal digits>")
    return digest[7:]


def digest_of(content: bytes) -> str:
    """The sha256 digest of `content`, which is small: a manifest, a config, a key."""
    return f"sha256:{sha256_of(content).hex()}"


class Hasher:
    """Compares passing bytes with a digest and a size: `update` for each piece, `finish` at the end.

    Raises InvalidInput for an algorithm that we cannot compute (a weak or unknown one is never waved through).
    """

    __slots__ = ("_hash", "digest", "expected_size", "size")

    def __init__(self, digest: str, expected_size: int | None = None) -> None:
        algorithm = check_digest(digest).partition(":")[0]
        if algorithm not in _REGISTERED:
            raise InvalidInput(f"digest '{digest}' uses an algorithm that cannot be verified here")
        self.digest = digest
        self.expected_size = expected_size
        self.size = 0
        import hashlib

        self._hash = hashlib.new(algorithm)

    def update(self, content: bytes | memoryview) -> None:
        """Add the next bytes. Raises DigestMismatch as soon as there are more than expected."""
        self.size += len(content)
        if self.expected_size is not None and self.size > self.expected_size:
            raise DigestMismatch(f"content of '{self.digest}' is longer than its size of {self.expected_size} bytes")
        self._hash.update(content)

    def finish(self) -> None:
        """Compare all bytes with size and digest. Raises DigestMismatch when either is another."""
        if self.expected_size is not None and self.size != self.expected_size:
            raise DigestMismatch(f"content of '{self.digest}' has {self.size} bytes instead of {self.expected_size}")
        found = f"{self.digest.partition(':')[0]}:{self._hash.hexdigest()}"
        if found != self.digest:
            raise DigestMismatch(f"content has digest '{found}' instead of '{self.digest}'")


def verify_content(content: bytes, digest: str, size: int | None = None) -> bytes:
    """`content` when it has this digest and size; else DigestMismatch."""
    hasher = Hasher(digest, size)
    hasher.update(content)
    hasher.finish()
    return content
