"""Puts one runtime through one case and names the result. It prints nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.conformance.deviations import expected
from tests.conformance.harness import Box, Case, NotApplicable, Runtime

PASS, FAIL, KNOWN, SKIP = "pass", "FAIL", "deviates", "n/a"


class Verdict(NamedTuple):
    """word: one of the four; reason: of a failure, a known deviation or a case that cannot be shown here."""

    word: str
    reason: str = ""


def judge(runtime: Runtime, version: str, case: Case, place: Path, template: Path) -> Verdict:
    """Run `case` in a fresh bundle below `place`."""
    directory = Path(tempfile.mkdtemp(prefix="c", dir=place))
    box = Box(runtime, directory, template)
    try:
        case.function(box)
    except NotApplicable as e:
        return Verdict(SKIP, str(e))
    except Exception as e:
        known = expected(runtime.name, version, case.id)
        if known:
            return Verdict(KNOWN, known)
        frame = traceback.extract_tb(e.__traceback__)[-1]
        words = str(e) or frame.line or type(e).__name__
        return Verdict(FAIL, f"{type(e).__name__} at {Path(frame.filename).name}:{frame.lineno}: {words}")
    finally:
        box.close()
        # files of mapped ids stay, and go with `place`
        shutil.rmtree(directory, ignore_errors=True)
    return Verdict(PASS)


def judge_all(
    runtime: Runtime, version: str, cases: Sequence[Case], place: Path, template: Path
) -> tuple[ThreadPoolExecutor, dict[str, Future[Verdict]]]:
    """Begin to judge all cases, a few at a time: most of a case is waiting for processes to start and end."""
    pool = ThreadPoolExecutor(max_workers=(os.cpu_count() or 1) + 1)
    return pool, {case.id: pool.submit(judge, runtime, version, case, place, template) for case in cases}
