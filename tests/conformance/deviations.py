"""Where other runtimes are known to deviate, and why: found by this suite, never silently passed over."""

from __future__ import annotations

import fnmatch
from typing import NamedTuple


class Deviation(NamedTuple):
    """versions: shell pattern of the versions it was seen in; cases: pattern of case ids; reason: in words."""

    runtime: str
    versions: str
    cases: str
    reason: str


DEVIATIONS: tuple[Deviation, ...] = ()


def expected(runtime: str, version: str, case_id: str) -> str | None:
    """The reason why this runtime of this version is known not to pass, or None."""
    for deviation in DEVIATIONS:
        if (
            deviation.runtime == runtime
            and fnmatch.fnmatchcase(version, deviation.versions)
            and fnmatch.fnmatchcase(case_id, deviation.cases)
        ):
            return deviation.reason
    return None
