"""The command lines of contrib/slurm/oci.conf, with its patterns filled in as slurmstepd does."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, oci_command_path
from tests.integration.runtime.bundle import Bundle

CONF = REPOSITORY / "contrib/slurm/oci.conf"
Step = Callable[..., "subprocess.CompletedProcess[str]"]


def lines() -> dict[str, str]:
    """The settings, those that are commented out too."""
    found = {}
    for line in CONF.read_text().splitlines():
        name, separator, value = line.removeprefix("#").partition("=")
        if separator and name.isalpha():
            found[name] = value.strip('"')
    return found


@pytest.fixture
def step(bundle: Bundle) -> Step:
    """Run one of the lines for a step of a job."""
    values = {
        "%U": str(os.geteuid()), "%n": "node1", "%u": "me", "%j": "4711", "%s": "0", "%t": "3",
        "%b": str(bundle.path), "%e": str(bundle.path / "environment"), "%r": str(bundle.root),
    }  # fmt: skip

    def run(name: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        # the records of a test are not those of the user's jobs
        text = lines()[name].replace("/run/user/%U/rootless-oci-slurm", str(bundle.records))
        for pattern, value in values.items():
            text = text.replace(pattern, value)
        program, *words = shlex.split(text)
        assert program == "rootless-oci" and "%" not in text
        with (bundle.path / "out").open("w") as out:
            done = subprocess.run(
                [*oci_command_path(), *words], cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                env=bundle.environment, timeout=60,
            )  # fmt: skip
        answer = (bundle.path / "out").read_text()
        assert not check or done.returncode == 0, answer
        return subprocess.CompletedProcess(words, done.returncode, answer, "")

    return run


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_run(bundle: Bundle, step: Step) -> None:
    bundle.config["process"]["args"] = ["sh", "-c", "echo task; exit 5"]
    bundle.save()
    done = step("RunTimeRun", check=False)
    assert (done.returncode, done.stdout) == (5, "task\n")
    assert step("RunTimeQuery", check=False).returncode != 0
    step("RunTimeDelete")


def test_create_query_start_kill_delete(bundle: Bundle, step: Step) -> None:
    bundle.config["process"]["args"] = ["sh", "-c", "sleep 100 & touch /up; wait"]
    bundle.save()
    step("RunTimeCreate")
    assert json.loads(step("RunTimeQuery").stdout)["status"] == "created"
    step("RunTimeStart")
    until((bundle.root / "up").exists)
    state = json.loads(step("RunTimeQuery").stdout)
    assert state["status"] == "running" and state["id"] == "node1.me.4711.0.3"
    step("RunTimeKill")
    until(lambda: json.loads(step("RunTimeQuery").stdout)["status"] == "stopped")
    until(lambda: not Path(f"/proc/{state['pid']}").exists() or _is_zombie(state["pid"]))
    step("RunTimeDelete")
    assert step("RunTimeQuery", check=False).returncode != 0


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_no_cgroup_beside_that_of_the_step(bundle: Bundle, step: Step) -> None:
    """The container's processes are where slurmstepd put its own."""
    bundle.config["process"]["args"] = ["cat", "/proc/self/cgroup"]
    bundle.config["linux"]["namespaces"] = [n for n in bundle.config["linux"]["namespaces"] if n["type"] != "cgroup"]
    bundle.config["linux"]["resources"] = {"memory": {"limit": 1 << 30}}
    bundle.save()
    assert Path("/proc/self/cgroup").read_text() in step("RunTimeRun").stdout
