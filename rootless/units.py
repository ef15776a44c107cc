"""Sizes, durations and points in time: the one grammar that reads them and the one rounding that shows them. Pure.

What is read follows docker's flags ("64m", "1h30m", `--since`), what is shown follows its go-units library
("7.8MB", "3 hours ago"), and what is stored is RFC 3339. Durations are seconds, points in time are seconds since the
epoch unless a name ends in `_ns` (nanoseconds since the epoch).
"""

from __future__ import annotations

import time

from rootless.errors import UsageError

LAST_MOMENT = 253_402_300_799
"""The end of the year 9999, in seconds since the epoch: RFC 3339 writes no later time."""
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = (1 << 63) / 1e9  # seconds; docker's bound, since a duration of Go is a signed 64-bit number of nanoseconds
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


_MOST_DIGITS = 20  # of a 64-bit number; Python refuses to read a number of more than 4300 digits with ValueError


def whole_number(text: str, highest: int = (1 << 63) - 1) -> int | None:
    """The number from 0 to `highest` that `text` writes in the digits 0 to 9; None for every other text.

    str.isdigit() alone takes "²", which int() refuses, and "٣", which int() reads as 3 but which no other program takes
    for a number: whoever reads a number of an image, a registry or a command line asks here.
    """
    if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS:
        return None
    number = int(text)
    return number if number <= highest else None


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
    if not 0 <= total < _LONGEST or not text.strip():
        raise UsageError(f"'{text[:40]}' is not a duration ({flag})", hint="write it like 30s, 1m30s or 500ms")
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


def human_size(octets: float, *, digits: int = 3) -> str:
    """`octets` in powers of 1000, to `digits` significant digits: 7.8MB, 127MB (go-units' HumanSize)."""
    return _scaled(octets, 1000, digits, ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"))


def human_binary_size(octets: float, *, digits: int = 4) -> str:
    """`octets` in powers of 1024, to `digits` significant digits: 7.5MiB, 1.2GiB (go-units' BytesSize)."""
    return _scaled(octets, 1024, digits, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"))


def _scaled(octets: float, base: int, digits: int, names: tuple[str, ...]) -> str:
    exponent = 0
    while octets >= base and exponent < len(names) - 1:
        octets /= base
        exponent += 1
    return f"{octets:.{digits}g}{names[exponent]}"


def human_duration(seconds: float) -> str:
    """`seconds` rounded as go-units' HumanDuration rounds: "About a minute", "3 hours", "2 weeks".

    Hours are rounded to the nearest, halves up; days, weeks and months are whole ones of those hours; seconds, minutes
    and years are cut.
    """
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
    hours = int(seconds / 3600 + 0.5)  # not round(): that makes 2 hours of 2.5 and 4 of 3.5
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{whole // 3600 // 24 // 365} years"


def human_age(moment: float, now: float | None = None) -> str:
    """How long before `now` (None: this moment) `moment` was: "3 hours ago"; "N/A" when it is not known (0)."""
    if not moment:
        return "N/A"
    return f"{human_duration((time.time() if now is None else now) - moment)} ago"


def timestamp(seconds: float | None = None) -> str:
    """RFC 3339 with nanoseconds in UTC, as docker writes times (None: now)."""
    from rootless.records.state import timestamp_ns

    return timestamp_ns(None if seconds is None else round(seconds * 1e6) * 1000)


def whole_timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, cut to the second, as image configs and the runtime's state have it; at most LAST_MOMENT.

    The time of a stranger's file or commit, which an image gets for its own, may be any number of 64 bits.
    """
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(int(seconds), LAST_MOMENT)))


def local_timestamp(moment: float) -> str:
    """`moment` as RFC 3339 in local time: 2026-01-02T15:04:05+01:00."""
    zone = time.strftime("%z", time.localtime(moment))
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(moment))
    return stamp + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")


def local_timestamp_ns(moment_ns: int) -> str:
    """`moment_ns` as RFC 3339 in local time with all nine decimals."""
    whole, rest = divmod(moment_ns, 1_000_000_000)
    text = local_timestamp(whole)
    return f"{text[:19]}.{rest:09}{text[19:]}"


def local_time(moment: float) -> str:
    """`moment` as Go prints a time: 2026-01-02 15:04:05 +0100 CET; Go's zero time when it is not known (0)."""
    if not moment:
        return "0001-01-01 00:00:00 +0000 UTC"
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(moment))


def parse_timestamp(text: str) -> float:
    """Seconds since the epoch of a stored RFC 3339 time; 0.0 for Go's zero time or no text. Raises ValueError."""
    return 0.0 if not text or text.startswith("0001-") else _seconds(parse_timestamp_ns(text))


def parse_image_time(text: str) -> float:
    """Seconds since the epoch of the `created` of an image, which anybody may have written.

    0.0 where it is no RFC 3339 time with a zone, or lies before the epoch: such an image only has no known age.
    """
    if len(text) < 20 or not (text[-1] in "Zz" or text[-6] in "+-"):
        return 0.0
    try:
        return max(0.0, parse_timestamp(text))
    except ValueError:
        return 0.0


def parse_timestamp_ns(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time or date, local where it has no zone. Raises ValueError."""
    from datetime import datetime

    text = text.upper()
    if text[10:11] in ("Z", "+", "-"):
        text = f"{text[:10]}T00:00{text[10:]}"  # docker takes a date with a zone; datetime does not
    head, _, tail = text.partition(".")
    zone = tail.lstrip("0123456789")
    fraction = tail[: len(tail) - len(zone)]
    try:
        whole = int(datetime.fromisoformat(head + zone).timestamp())
    except OverflowError:
        raise ValueError(f"'{text}' is out of range") from None
    return whole * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])


def _seconds(nanoseconds: int) -> float:
    """`nanoseconds` as seconds; the whole ones exactly, which a division of so great a number would not keep."""
    whole, fraction = divmod(nanoseconds, 1_000_000_000)
    return whole + fraction / 1e9


def parse_moment(text: str, flag: str, *, now: float | None = None) -> float:
    """As `parse_moment_ns`, in seconds since the epoch."""
    return _seconds(parse_moment_ns(text, flag, now=now))


def parse_moment_ns(text: str, flag: str, *, now: float | None = None) -> int:
    """Nanoseconds since the epoch of what --since, --until and `until=` take.

    A Unix time with at most nine decimals ("1700000000.5"), a date or RFC 3339 time (local time when it has no zone),
    or a duration before `now` ("10m"; "-10m" lies after it, as docker has it). Raises UsageError naming `flag`.
    """
    text = text.strip()
    whole, dot, fraction = text.partition(".")
    seconds = whole_number(whole)
    if seconds is not None and (not dot or (fraction.isascii() and fraction.isdigit())):
        return seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
    if text[4:5] == "-":
        try:
            return parse_timestamp_ns(text)
        except ValueError:
            pass
    try:
        length = parse_duration(text.removeprefix("-"), flag)
    except UsageError:
        raise UsageError(
            f"'{text}' is not a time ({flag})",
            hint="write 2024-05-01T12:00:00Z, seconds since 1970, or 10m for ten minutes ago",
        ) from None
    return int(((time.time() if now is None else now) + (length if text.startswith("-") else -length)) * 1_000_000_000)
