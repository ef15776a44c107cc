"""How property tests run: without a clock that a busy machine could fail, and in CI with the same inputs each time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "rootless",
    deadline=None,
    derandomize=os.environ.get("REQUIRE") == "1",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("rootless")
