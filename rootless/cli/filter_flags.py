"""`--filter key=value` as typed → what the engine takes. Which keys there are, and what they mean, the engine knows."""

from __future__ import annotations

from collections.abc import Iterable

from rootless.errors import UsageError


def parse_filters(texts: Iterable[str]) -> dict[str, list[str]]:
    """{"status": ["exited"], "label": ["a=b", "c"]}; a key given twice matches either value (docker: labels both).

    `key!=value` becomes the key "key!", as docker's prune takes it. Raises UsageError for text without a key.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().lower()
        if not equals or not key or key == "!":
            raise UsageError(f"invalid filter '{text}'", hint="a filter is KEY=VALUE, such as status=exited")
        found.setdefault(key, []).append(value.strip())
    return found
