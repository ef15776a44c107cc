"""Keys of the build cache: what a step's result depends on, as one digest. Pure.

A key covers the whole chain of layers below (their content digests, so FROM scratch cannot be poisoned,
CVE-2024-24557), what of the image's config the step can see, the instruction's final words, and the content of every
file it takes. Times of files are in none.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

FORMAT = "rootless build cache 1"


def key(kind: str, chain: str, **facts: Any) -> str:
    """64 hexadecimal digits. kind: of the step; chain: the topmost chain id below ("" = none); facts: JSON values."""
    document = json.dumps([FORMAT, kind, chain, facts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(document.encode("utf-8", "surrogateescape")).hexdigest()
