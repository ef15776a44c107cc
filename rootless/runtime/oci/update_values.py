"""What `rootless-oci update` and `events` are told, as values: OCI resources from a file or flags, a time. Pure but
for reading the file."""

from __future__ import annotations

import sys

from rootless.errors import InvalidInput, UsageError
from rootless.runtime.oci.flags import LIMITS, FlagValues

_MAX = 1 << 20  # bytes of the file
_WORDS = ("cpu.cpus", "cpu.mems")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def changes(values: FlagValues) -> dict[str, object]:
    """The resources to change: of --resources, else of the other flags. Raises UsageError, InvalidInput."""
    file = values.optional_text("resources")
    if file:
        return _read(file)
    found: dict[str, dict[str, str | int]] = {}
    for flag, _, origin in LIMITS:
        text = values.optional_text(flag.lstrip("-").replace("-", "_"))
        if text is None:
            continue
        group, _, key = origin.partition(".")
        found.setdefault(group, {})[key] = text if origin in _WORDS else _number(flag, text)
    if not found:
        raise UsageError("update needs something to change", hint="give --resources or a limit")
    return {**found}


def _number(flag: str, text: str) -> int:
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        raise UsageError(f"{flag} '{text}' is no number")
    return int(text)


def _read(path: str) -> dict[str, object]:
    from rootless.records.fields import parse_json

    if path == "-":
        text = sys.stdin.buffer.read(_MAX + 1)
    else:
        try:
            with open(path, "rb") as file:
                text = file.read(_MAX + 1)
        except OSError as e:
            raise InvalidInput(f"cannot read '{path}': {e.strerror}") from e
    try:
        value = parse_json(text[:_MAX])
    except ValueError as e:
        raise InvalidInput(f"'{path}' is no JSON: {e}") from e
    if not isinstance(value, dict):
        raise InvalidInput(f"'{path}' holds no object of OCI resources")
    return value


def seconds(text: str) -> float:
    """`5s`, `500ms`, `1m`. Raises UsageError."""
    for unit, factor in _UNITS.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isascii() and number.replace(".", "", 1).isdigit():
            value = float(number) * factor
            if value > 0:
                return value
    raise UsageError(f"--interval '{text}' is no time", hint="write it like 5s or 500ms")
