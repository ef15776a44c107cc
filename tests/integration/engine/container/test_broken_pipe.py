"""`run ... | head`: as with docker and podman the command dies by SIGPIPE, and the container goes on to its own end."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Runner, command_path

pytestmark = pytest.mark.once


def test_a_reader_that_leaves(busybox: Runner, shared_root: Path) -> None:
    script = (
        "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; while [ ! -e /tmp/go ]; do usleep 20000; done"
    )
    process = subprocess.Popen(
        [*command_path(), "run", "--rm", "--network=none", "--name", "p", "busybox", "sh", "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        env={**os.environ, "ROOTLESS_ROOT": str(shared_root)},
    )  # fmt: skip
    assert process.stdout and process.stderr
    with process.stderr:
        assert process.stdout.readline() == b"line 0\n"
        process.stdout.close()
        errors = process.stderr.read()
    assert process.wait(60) in (141, -13) and b"Traceback" not in errors, errors
    assert busybox("ps", "-q", "--no-trunc", "--filter", "name=p").stdout.strip()
    busybox("exec", "p", "touch", "/tmp/go")
    deadline = time.monotonic() + 60
    while busybox("ps", "-aq", "--filter", "name=p").stdout.strip():
        assert time.monotonic() < deadline, "the container does not end"
        time.sleep(0.05)
