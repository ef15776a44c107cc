"""How property tests run: without a clock that a busy machine could fail, and in CI with the same inputs each time."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from rootless.cli.container import attached
from rootless.runtime.oci import main as oci_main

settings.register_profile(
    "rootless",
    deadline=None,
    derandomize=os.environ.get("REQUIRE") == "1",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("rootless")


@pytest.fixture(autouse=True)
def stays_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep commands that a test calls as functions from executing the interpreter again, as `exec` does where its user
    can write to it: the tests would go on in the new program, and nobody would read what that prints."""
    for module in (attached, oci_main):
        monkeypatch.setattr(module, "restart_by_loader", lambda: None)
