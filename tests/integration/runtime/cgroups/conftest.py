"""What the tests of limits need: a delegated cgroup, or a skip that says why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable

from rootless.host import cgroups
from tests.conftest import require

SECONDS = 120.0  # in a virtual machine without hardware help everything takes 10 to 30 times as long


def delegated(*controllers: str) -> cgroups.Delegation:
    """What was delegated, when that has `controllers`; else the test is skipped."""
    found = cgroups.find_delegation()
    reason = found.reason or "nothing was delegated"
    require(found.kind != "none" and cgroups.Host().is_unified, f"this host has no delegated cgroup v2: {reason}")
    missing = found.missing(set(controllers))
    require(not missing, f"this host has not delegated {', '.join(missing)}: {reason}")
    return found


def eventually(fact: Callable[[], object], seconds: float = SECONDS) -> bool:
    """Whether `fact` becomes true in time."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
