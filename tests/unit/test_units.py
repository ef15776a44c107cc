"""Sizes, durations and times: one grammar, and the rounding of docker's go-units."""

from __future__ import annotations

import pytest

from rootless.engine.container.listing import status_text
from rootless.errors import UsageError
from rootless.records.state import ContainerState
from rootless.units import (
    human_age,
    human_binary_size,
    human_duration,
    human_size,
    parse_duration,
    parse_image_time,
    parse_moment,
    parse_moment_ns,
    parse_size,
    parse_timestamp,
    timestamp,
    whole_number,
    whole_timestamp,
)

HOUR, DAY = 3600, 86400


def test_durations() -> None:
    assert parse_duration("1h1m1s", "x") == 3661
    assert parse_duration("500ms", "x") == 0.5
    assert parse_duration("1.5h", "x") == 5400
    assert parse_duration("0", "x") == 0
    for text in ("", "5", "s", "1x", "-1s", "1s1"):
        with pytest.raises(UsageError):
            parse_duration(text, "--flag")


def test_sizes() -> None:
    assert [parse_size(t, "x") for t in ("1024", "64m", "1.5g", "1kb", "2KiB", "0")] == [
        1024,
        64 << 20,
        3 << 29,
        1024,
        2048,
        0,
    ]
    for text in ("", "m", "-1", "1x", "inf", "nan", "1e400"):
        with pytest.raises(UsageError):
            parse_size(text, "x")


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (7_800_000, "7.8MB"), (127_400_000, "127MB"), (1_230_000_000, "1.23GB")],
)
def test_human_size(octets: int, text: str) -> None:
    assert human_size(octets) == text


def test_human_binary_size() -> None:
    assert [human_binary_size(n) for n in (0, 1023, 1024, 7_864_320, 1 << 30)] == [
        "0B",
        "1023B",
        "1KiB",
        "7.5MiB",
        "1GiB",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (0.999, "Less than a second"),
        (1, "1 second"),
        (1.999, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (179, "2 minutes"),
        (59 * 60 + 59, "59 minutes"),
        (HOUR, "About an hour"),
        (1.5 * HOUR - 1, "About an hour"),
        (1.5 * HOUR, "2 hours"),
        (2.5 * HOUR - 1, "2 hours"),
        (2.5 * HOUR, "3 hours"),
        (3.5 * HOUR, "4 hours"),
        (47.5 * HOUR - 1, "47 hours"),
        (47.5 * HOUR, "2 days"),
        (3 * DAY, "3 days"),
        (14 * DAY - HOUR, "13 days"),
        (14 * DAY, "2 weeks"),
        (60 * DAY - HOUR, "8 weeks"),
        (60 * DAY, "2 months"),
        (120 * DAY, "4 months"),
        (730 * DAY - HOUR, "24 months"),
        (730 * DAY - 1, "1 years"),  # go-units rounds the hours but cuts the years, and so do we
        (730 * DAY, "2 years"),
        (800 * DAY, "2 years"),
    ],
)
def test_durations_are_rounded_as_go_units_does(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


@pytest.mark.parametrize("hours", [0.5, 1.5, 2.5, 3.5, 4.5, 47.5])
def test_a_row_of_ps_says_one_duration_for_one_moment(hours: float) -> None:
    """ "Up 2 hours" stood beside "3 hours ago" for 2.5 hours: two functions rounded, each its own way."""
    state = ContainerState.from_json({"started_at": timestamp(1000), "status": "running"})
    now = 1000 + hours * HOUR
    assert status_text(state, now).removeprefix("Up ") == human_age(1000, now).removesuffix(" ago")


def test_an_unknown_moment_has_no_age() -> None:
    assert human_age(0) == "N/A"


def test_timestamps_round_trip() -> None:
    assert parse_timestamp(timestamp(1700000000.25)) == 1700000000.25
    assert parse_timestamp(whole_timestamp(1700000000.75)) == 1700000000
    assert whole_timestamp((1 << 63) - 1) == "9999-12-31T23:59:59Z"  # of a commit, or of a file on btrfs
    assert parse_timestamp("0001-01-01T00:00:00Z") == 0.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14t22:13:20.5z", 1_700_000_000.5),
        ("2023-11-15T00:13:20.25+02:00", 1_700_000_000.25),
        ("2023-11-14T20:13:20-02:00", 1_700_000_000),
        ("", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59Z", 0),
        ("2023-11-14T22:13:20", 0),
        ("2023-11-14", 0),
        ("2023-11-14T22:13:20.12345", 0),
        ("2023-13-14T22:13:20Z", 0),
        ("the day before yesterday, Z", 0),
        ("9999-12-31T23:59:59-23:59", 253402387139),
    ],
)
def test_the_time_of_an_image_is_read_or_unknown(text: str, seconds: float) -> None:
    assert parse_image_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1700000000", 1_700_000_000_000_000_000),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ("2023-11-14T22:13:20.000000007Z", 1_700_000_000_000_000_007),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000_000_000_000),
        ("2023-11-14T22:13Z", 1_699_999_980_000_000_000),
        ("2023-11-14Z", 1_699_920_000_000_000_000),
        ("10m", (1_700_000_000 - 600) * 1_000_000_000),
        ("-10m", (1_700_000_000 + 600) * 1_000_000_000),
        ("1h30m", (1_700_000_000 - 5400) * 1_000_000_000),
    ],
)
def test_moments_are_read_as_docker_reads_them(text: str, wanted: int) -> None:
    assert parse_moment_ns(text, "--since", now=1_700_000_000) == wanted
    assert parse_moment(text, "--since", now=1_700_000_000) == pytest.approx(wanted / 1e9)


def test_a_date_alone_is_local_midnight() -> None:
    assert parse_moment_ns("2023-11-14", "--since") < parse_moment_ns("2023-11-15", "--since")


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2023-13-01", "10x", "2023-11-14T25:00:00Z", "--1", "nan", "1e5", "-5"]
)
def test_other_moments_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        parse_moment_ns(text, "--since")


@pytest.mark.parametrize("text", ["0", "007", "42", "9223372036854775807"])
def test_whole_numbers_are_decimal_digits(text: str) -> None:
    assert whole_number(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", "²", "٣", "１", "1_0", "+1", "-1", " 1", "1\n", "0x1", "9223372036854775808", "9" * 5000]
)
def test_what_only_python_takes_for_a_number_is_none(text: str) -> None:
    assert whole_number(text) is None


def test_a_whole_number_has_a_bound() -> None:
    assert (whole_number("65535", 65535), whole_number("65536", 65535)) == (65535, None)
