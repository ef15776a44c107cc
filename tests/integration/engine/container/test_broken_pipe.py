"""`… | head`: who reads the output goes away. The command ends as by SIGPIPE (141), and without a traceback.

A container that stays runs on, as with docker and podman; one of --rm is ended, which docker does not (moby#38769).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, command_path

pytestmark = pytest.mark.once
NONE = "--network=none"
LINES = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; %s"


@pytest.fixture(autouse=True)
def nothing_left(busybox: Runner) -> Iterator[None]:
    yield
    if names := busybox("ps", "-aq").stdout.split():
        busybox("rm", "-f", *names)


def head(root: Path, *arguments: str) -> None:
    """Read the first line that `rootless ARGUMENTS` prints, go away, and see how it ends."""
    process = subprocess.Popen(
        [*command_path(), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        env={**os.environ, "ROOTLESS_ROOT": str(root)},
    )  # fmt: skip
    assert process.stdout and process.stderr
    with process.stderr:
        assert process.stdout.readline().startswith((b"line", b"y"))
        process.stdout.close()
        errors = process.stderr.read()
    assert process.wait(60) in (141, -13) and b"Traceback" not in errors, (arguments, process.returncode, errors)


def is_gone(busybox: Runner, name: str) -> bool:
    deadline = time.monotonic() + 30
    while busybox("ps", "-aq", "--filter", f"name={name}").stdout.strip():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_one_of_rm_is_ended(busybox: Runner, shared_root: Path) -> None:
    began = time.monotonic()
    head(shared_root, "run", "--rm", "--name", "p", "--stop-timeout=100", NONE, "busybox", "yes")
    busybox("create", "--rm", "--name", "q", "--init", "--stop-timeout=100", NONE, "busybox", "yes")
    head(shared_root, "start", "-a", "q")
    assert is_gone(busybox, "p") and is_gone(busybox, "q") and time.monotonic() - began < 60, (
        "who cannot hear is killed"
    )


def test_one_of_rm_that_hears_the_stop_signal_may_clean_up(busybox: Runner, shared_root: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    script = "trap 'echo bye > /out/said; exit' TERM; " + LINES % "while :; do usleep 20000; done"
    head(shared_root, "run", "--rm", "--name", "p", "-v", f"{tmp_path}:/out", NONE, "busybox", "sh", "-c", script)
    assert is_gone(busybox, "p") and (tmp_path / "said").read_text() == "bye\n"


def test_one_that_stays_runs_on(busybox: Runner, shared_root: Path) -> None:
    head(shared_root, "run", "--name", "p", NONE, "busybox", "yes")
    for command in (("attach", "p"), ("logs", "-f", "p"), ("start", "-a", "p")):
        head(shared_root, *command)
    assert busybox("ps", "--format", "{{.Names}}").stdout == "p\n"


@pytest.mark.parametrize("terminal", [(), ("-t",)], ids=["pipe", "terminal"])
def test_what_exec_began_ends(busybox: Runner, shared_root: Path, terminal: tuple[str, ...]) -> None:
    busybox("run", "-d", "--name", "p", NONE, "busybox", "sleep", "1000")
    head(shared_root, "exec", *terminal, "p", "yes")
    assert "yes" not in busybox("top", "p").stdout
    assert busybox("ps", "--format", "{{.Names}}").stdout == "p\n"
