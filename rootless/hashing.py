"""SHA-256 of small content without OpenSSL. Large content goes through hashlib, which is faster per byte.

The first digest by hashlib loads OpenSSL and its providers: 8 ms, in every command and every monitor. CPython has an
implementation of its own, which is enough for a manifest, a seccomp filter or a key of a cache.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha2 import sha256
    except ImportError:
        try:
            from _sha256 import sha256  # before Python 3.12
        except ImportError:
            from hashlib import sha256


def sha256_of(content: bytes) -> bytes:
    """The 32 bytes of the digest."""
    return sha256(content).digest()
