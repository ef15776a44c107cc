"""The directories behind RUN --mount=type=cache: kept below the cache directory, by identity, until they are pruned.

    build/mounts/<hash of the identity>[.N]/{data/, lock, id}

As in BuildKit, mounts share their files where they have the same id and the same origin: what the directory is first
made from, which is the files of `from`, or an empty directory with the owner and mode that are asked for. So a cache
that was made for one user is not given to another one, who could not write there.

The lock is held, shared or exclusive, as long as a step uses the directory: `prune` removes what it can lock.
"""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from rootless.errors import HostLimit
from rootless.paths import Lock, ensure_private

_MAX_PRIVATE = 1000  # directories of one identity with sharing=private


class CacheIdentity(NamedTuple):
    """Which mounts share one directory. origin: what tells mounts of one id apart, "" for a mount that asks for neither
    `from` nor owner nor mode."""

    id: str
    origin: str = ""

    @property
    def hash(self) -> str:
        """The name of the directory. Without an origin it is the hash of the id alone, by which earlier versions named
        their caches, so that these are found again."""
        text = f"{self.id}\0{self.origin}" if self.origin else self.id
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def claim_mount(cache: str, identity: CacheIdentity, sharing: str) -> tuple[str, Lock, bool]:
    """(directory, lock that is held, whether the directory is new) of the mounts with this identity.

    cache: the user's cache directory; sharing: shared, private or locked. Raises HostLimit.

    locked waits for the other step; private takes another directory when the first one is in use.
    """
    name, id = identity.hash, identity.id
    base = f"{cache}/build/mounts"
    for number in range(_MAX_PRIVATE):
        directory = f"{base}/{name}{f'.{number}' if number else ''}"
        lock = Lock(f"{directory}/lock", shared=sharing == "shared")
        while True:
            ensure_private(directory)
            try:
                if not lock.acquire(blocking=sharing != "private"):
                    break
            except FileNotFoundError:
                continue  # `builder prune` removed the directory since it was made
            if not lock.is_current():
                # It removed the cache while we waited: this lock is of a file that nobody else will find
                lock.release()
                continue
            try:
                return directory, lock, _begin(directory, id)
            except BaseException:
                lock.release()
                raise
    raise HostLimit(f"more than {_MAX_PRIVATE} steps use the private cache '{id}' at once")


def _begin(directory: str, id: str) -> bool:
    try:
        is_new = not os.path.isdir(f"{directory}/data")
        os.makedirs(f"{directory}/data", mode=0o755, exist_ok=True)
        with open(f"{directory}/id", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(id)
    except OSError as e:
        raise HostLimit(f"cannot make the cache directory '{directory}': {e.strerror}") from e
    return is_new
