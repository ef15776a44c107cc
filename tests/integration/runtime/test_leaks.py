"""A hundred containers made, started, entered and deleted: what is left afterwards is what was there before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.integration.runtime.bundle import Bundle

pytestmark = pytest.mark.once

COUNT = 100
_LOOP = """
import json, os, sys, time
sys.path[:0] = [{repository!r}]
from rootless.kernel import procfs
from rootless.kernel.process import set_child_subreaper
from rootless.runtime.oci import life_verbs
from rootless.runtime.oci.oci_records import Records

set_child_subreaper()  # all orphans come to us: none can hide
records = Records({records!r})
warn = lambda text: None


def facts():
    keys = open("/proc/key-users").read().split()
    own = next((keys[i + 1] for i, w in enumerate(keys) if w == f"{{os.getuid()}}:"), "0")
    return {{
        "fds": len(os.listdir("/proc/self/fd")),
        "mounts": len(open("/proc/self/mountinfo").readlines()),
        "children": len(procfs.child_pids(os.getpid())),
        "records": len(os.listdir({records!r})) if os.path.isdir({records!r}) else 0,
        "keys": int(own),
        "bundle": sorted(os.listdir({bundle!r})),
    }}


def once(number):
    name = f"c{{number}}"
    life_verbs.create(records, name, life_verbs.CreateOptions({bundle!r}), warn)
    life_verbs.start(records, name, warn)
    while records.get(name).status() != "stopped":
        time.sleep(0.002)
    life_verbs.delete(records, name, warn)
    while True:
        try:
            if os.waitpid(-1, 0)[0] == 0:
                break
        except ChildProcessError:
            break


once(0)  # imports and caches are made by the first
before = facts()
for number in range(1, {count} + 1):
    once(number)
print(json.dumps([before, facts()]))
"""


def test_a_hundred_in_a_loop_leave_nothing(bundle: Bundle) -> None:
    bundle.config["process"]["args"] = ["/bin/true"]
    bundle.save()
    text = _LOOP.format(repository=str(REPOSITORY), records=str(bundle.records), bundle=str(bundle.path), count=COUNT)
    done = subprocess.run(
        [sys.executable, "-I", "-c", text], capture_output=True, text=True, env=bundle.environment, timeout=240
    )
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    # keys are collected by the kernel some time after their last user has ended
    keys = after.pop("keys") - before.pop("keys")
    assert after == before and keys < COUNT / 2


def test_failures_leave_nothing(bundle: Bundle) -> None:
    """Each way to fail, ten times: a mount, a hook, the command, the user."""
    failures = [
        {
            "mounts": [
                *bundle.config["mounts"],
                {"destination": "/x", "type": "bind", "source": "/no", "options": ["bind"]},
            ]
        },
        {"hooks": {"createContainer": [{"path": "/usr/bin/false"}]}},
        {"process": {**bundle.config["process"], "args": ["/no"]}},
        {"process": {**bundle.config["process"], "cwd": "/etc/passwd"}},
    ]
    before = _mine()
    good = dict(bundle.config)
    for change in failures:
        bundle.config = {**good, "process": {**good["process"], "args": ["/bin/true"]}, **change}
        bundle.save()
        for _ in range(5):
            assert bundle.oci("run", "c", check=False).returncode != 0
        assert not list(bundle.records.iterdir())
    assert _mine() == before


def _mine() -> set[int]:
    """Processes below this one."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                found.add(int(entry.name))
    return found
