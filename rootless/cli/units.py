"""Sizes and times for people, in docker's words. Pure."""

from __future__ import annotations

import time

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")


def size(octets: float, *, digits: int = 3) -> str:
    """`octets` in powers of 1000: 7.8MB, 127MB (docker's HumanSize)."""
    at = 0
    while octets >= 1000 and at < len(_SIZES) - 1:
        octets /= 1000
        at += 1
    return f"{octets:.{digits}g}{_SIZES[at]}"


def duration(seconds: float) -> str:
    """`seconds` as docker's HumanDuration: "About a minute", "3 weeks"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = int(seconds / 60)
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
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
    return f"{int(seconds / 3600) // 24 // 365} years"


def ago(moment: float, now: float | None = None) -> str:
    """How long ago `moment` (seconds since the epoch) was; "N/A" when it is not known (0)."""
    if not moment:
        return "N/A"
    return f"{duration((time.time() if now is None else now) - moment)} ago"


def local_time(moment: float) -> str:
    """`moment` as Go prints a time: 2026-01-02 15:04:05 +0100 CET."""
    if not moment:
        return "0001-01-01 00:00:00 +0000 UTC"
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(moment))


def iso_time(moment: float) -> str:
    """`moment` as RFC 3339 in local time: 2026-01-02T15:04:05+01:00."""
    zone = time.strftime("%z", time.localtime(moment))
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(moment))
    return stamp + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")


def shorten(text: str, width: int) -> str:
    """`text` cut to `width` characters, the last an ellipsis where something was cut (docker's Ellipsis)."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def short_id(text: str) -> str:
    """The first twelve digits of an id or digest."""
    return text.removeprefix("sha256:")[:12]


def binary_size(octets: float, *, digits: int = 4) -> str:
    """`octets` in powers of 1024: 7.5MiB, 1.2GiB (docker's BytesSize)."""
    at = 0
    while octets >= 1024 and at < 8:
        octets /= 1024
        at += 1
    return f"{octets:.{digits}g}{('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB', 'ZiB', 'YiB')[at]}"


def iso_nanoseconds(moment: int) -> str:
    """A time in nanoseconds since the epoch as RFC 3339 with all its digits, in local time."""
    whole, rest = divmod(moment, 1_000_000_000)
    text = iso_time(whole)
    return f"{text[:19]}.{rest:09}{text[19:]}"
