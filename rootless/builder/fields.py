"""docker's `key=value,key=value` texts of flags (CSV, so that a value in quotes may have commas). Pure."""

from __future__ import annotations

import csv
from collections.abc import Set

from rootless.errors import UsageError


def parse_fields(text: str, flag: str, known: Set[str]) -> dict[str, str]:
    """The fields; a word without `=` is "". Raises UsageError that names the flag."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as e:
        raise UsageError(f"{flag}: '{text}': {e}") from None
    fields: dict[str, str] = {}
    for word in rows[0] if rows else []:
        name, _, value = word.partition("=")
        name = name.strip().lower()
        if name not in known:
            raise UsageError(
                f"{flag}: unknown field '{name}' in '{text}'", hint=f"known are {', '.join(sorted(known))}"
            )
        fields[name] = value
    return fields
