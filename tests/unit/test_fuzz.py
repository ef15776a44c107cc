"""A short, reproducible run of each fuzz target; `python -m tests.fuzz TARGET SECONDS` goes on from here."""

from __future__ import annotations

import pytest

from tests.fuzz.engine import Failure, Target, fuzz
from tests.fuzz.targets import TARGETS

COUNTS = {"dockerfile": 1500, "dockerignore": 2000, "reference": 3000, "manifest": 3000, "tar": 250}


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str) -> None:
    assert fuzz(TARGETS[name], 1, lambda count: count < COUNTS[name]) == COUNTS[name]


def test_the_fuzzer_finds_what_is_there() -> None:
    def run(content: bytes) -> None:
        if b"bc" in content and len(content) > 6:
            raise ZeroDivisionError

    with pytest.raises(Failure, match="ZeroDivisionError"):
        fuzz(Target(run, (ValueError,), (b"abc",), (b"bc", b"x")), 1, lambda count: count < 20_000)
