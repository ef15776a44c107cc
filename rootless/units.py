"""docker's words for time and size: "1h30m", "64m", since and until, "3 minutes ago". Pure."""

from __future__ import annotations

import time

from rootless.errors import UsageError

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_duration(text: str, flag: str) -> float:
    """Seconds of a Go duration ("30s", "1m30s", "500ms"). Raises UsageError naming `flag`."""
    rest, total = text.strip(), 0.0
    if rest == "0":
        return 0.0
    while rest:
        length = 0
        while length < len(rest) and (rest[length].isascii() and (rest[length].isdigit() or rest[length] == ".")):
            length += 1
        unit_end = length
        while unit_end < len(rest) and not (rest[unit_end].isdigit() or rest[unit_end] == "."):
            unit_end += 1
        unit = _UNITS.get(rest[length:unit_end])
        try:
            if unit is None:
                raise ValueError
            total += float(rest[:length]) * unit
        except ValueError:
            total = -1.0
            break
        rest = rest[unit_end:]
    if total < 0 or not text.strip():
        raise UsageError(f"'{text}' is not a duration ({flag})", hint="write it like 30s, 1m30s or 500ms")
    return total


def parse_size(text: str, flag: str) -> int:
    """Bytes of docker's size ("64m", "1.5g", "1024"). Raises UsageError naming `flag`."""
    lowered = text.strip().lower()
    number = lowered.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = lowered[len(number) :].removesuffix("ib") or "b"
    if len(unit) == 2 and unit[1] == "b":
        unit = unit[0]
    try:
        size = float(number.strip()) * _SIZES[unit]
        if not 0 <= size < 1 << 63:
            raise ValueError
        return int(size)
    except (KeyError, ValueError):
        raise UsageError(f"'{text}' is not a size ({flag})", hint="write it like 64m, 1g or 1048576") from None


def human_duration(seconds: float) -> str:
    """docker's rounded words: "Less than a second", "About a minute", "3 hours", "2 weeks"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = round(seconds / 3600)
    if hours == 1:
        return "About an hour"
    for limit, size, unit in ((48, 1, "hours"), (24 * 7 * 2, 24, "days"), (24 * 30 * 2, 168, "weeks")):
        if hours < limit:
            return f"{hours // size} {unit}"
    return f"{hours // 720} months" if hours < 24 * 365 * 2 else f"{hours // 8760} years"


def parse_timestamp(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time with up to nine decimals; 0.0 for docker's zero time or none."""
    if not text or text.startswith("0001-"):
        return 0.0
    from datetime import datetime

    head, dot, tail = text.partition(".")
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}.{(tail[:digits] + '000000')[:6]}{tail[digits:]}"
    return datetime.fromisoformat(text).timestamp()


def timestamp(seconds: float | None = None) -> str:
    """RFC 3339 with nanoseconds in UTC, as docker writes times (None: now)."""
    nanoseconds = time.time_ns() if seconds is None else round(seconds * 1e6) * 1000
    whole, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{fraction:09d}Z"


def parse_moment(text: str, flag: str) -> float:
    """Seconds since the epoch of what --since, --until and `until=` take.

    A Unix time ("1700000000.5"), a date or RFC 3339 time (local time when it has no zone), or a duration before now
    ("10m"). Raises UsageError naming `flag`.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return parse_timestamp(text)
    except ValueError:
        pass
    try:
        return time.time() - parse_duration(text, flag)
    except UsageError:
        raise UsageError(
            f"'{text}' is not a time ({flag})",
            hint="write 2024-05-01T12:00:00Z, seconds since 1970, or 10m for ten minutes ago",
        ) from None
