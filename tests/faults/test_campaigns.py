"""A short campaign of each kind that needs no root; `scripts/faults` goes on from here, and cuts the power too."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.conftest import require
from tests.faults.damage import spoil
from tests.faults.kinds import KINDS

SECONDS = 10


@pytest.mark.parametrize("kind", ["kill", "inject", "damage"])
def test_a_short_campaign_finds_nothing(kind: str) -> None:
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    campaign = KINDS[kind](None)
    require(not campaign.why_not(), campaign.why_not())
    campaign.run(1, time.monotonic() + SECONDS)
    assert campaign.tried
    assert not campaign.findings, "\n".join(map(str, campaign.findings))


@pytest.mark.parametrize("way", ["empty", "cut", "zeroes", "flip", "noise", "missing"])
def test_a_seed_damages_alike(way: str, tmp_path: Path) -> None:
    results = []
    for _ in range(2):
        path = tmp_path / "file"
        path.write_bytes(b"content" * 10)
        assert spoil(path, way, random.Random(7))
        results.append(path.read_bytes() if path.exists() else None)
    assert results[0] == results[1] != b"content" * 10
