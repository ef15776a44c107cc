"""Points in time as images write them (RFC 3339) and as we count them (seconds since the epoch). Pure."""

from __future__ import annotations

import re
import time

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)


def parse_time(text: str) -> float:
    """Seconds since the epoch of RFC 3339 `text`; 0.0 when it is empty or malformed (go's zero time too)."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return 0.0
    year, month, day, hour, minute, second = (int(each) for each in match.groups()[:6])
    if not (
        1970 <= year <= 9999 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60
    ):
        return 0.0
    import calendar

    seconds = float(calendar.timegm((year, month, day, hour, minute, second, 0, 1, 0)))
    if match[7]:
        seconds += int(match[7]) / 10 ** len(match[7])
    if match[8]:
        offset = (int(match[9]) * 60 + int(match[10])) * 60
        seconds += -offset if match[8] == "+" else offset
    return seconds


def format_time(seconds: float) -> str:
    """`seconds` as RFC 3339 in UTC, as image configs write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(seconds)))
