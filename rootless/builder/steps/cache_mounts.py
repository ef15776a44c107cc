"""The directories behind RUN --mount=type=cache: kept below the cache directory, by id, until they are pruned.

    build/mounts/<hash of the id>[.N]/{data/, lock, id}

The lock is held, shared or exclusive, as long as a step uses the directory.
"""

from __future__ import annotations

import hashlib
import os

from rootless.errors import HostLimit
from rootless.paths import Lock, ensure_private

_MAX_PRIVATE = 1000


def claim(cache: str, id: str, sharing: str) -> tuple[str, Lock, bool]:
    """(directory, lock that is held, whether the directory is new) of the mounts with this id.

    cache: the user's cache directory; sharing: shared, private or locked. Raises HostLimit.

    locked waits for the other step; private takes another directory when the first one is in use.
    """
    name = hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    base = f"{cache}/build/mounts"
    for number in range(_MAX_PRIVATE):
        directory = f"{base}/{name}{f'.{number}' if number else ''}"
        ensure_private(directory)
        lock = Lock(f"{directory}/lock", shared=sharing == "shared")
        if not lock.acquire(blocking=sharing != "private"):
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
