"""Before and after a reboot: `scripts/vm -R` runs this file twice, and nobody is logged in in between."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, Runner, command_path
from tests.vm.conftest import eventually

SECOND = os.environ.get("ROOTLESS_VM_PHASE") == "2"
before = pytest.mark.skipif(SECOND, reason="of the time before the reboot")
after = pytest.mark.skipif(not SECOND, reason="of the time after the reboot")


def inspect(here: Runner, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(here("inspect", name).stdout)[0]
    return found


@before
def test_containers_and_the_unit_are_set_up(here: Runner) -> None:
    program = Path.home() / ".local/bin/rootless"
    program.parent.mkdir(parents=True)
    interpreter, *boot = command_path()
    program.write_text(f'#!/bin/sh\nexec {interpreter} {boot[0]} {boot[1]} "{boot[2]}" "$@"\n')
    program.chmod(0o755)
    units = Path.home() / ".config/systemd/user"
    units.mkdir(parents=True)
    shutil.copy(REPOSITORY / "contrib/systemd/rootless-restart.service", units)
    subprocess.run(["systemctl", "--user", "enable", "rootless-restart.service"], check=True)
    here("image", "bootstrap", "busybox")
    health = ("--health-cmd=true", "--health-interval=2s")
    here("run", "-d", "--name", "keep", "--restart=unless-stopped", *health, "busybox", "sleep", "100000")
    here("run", "-d", "--name", "again", "--restart=always", "busybox", "sh", "-c", "sleep 3; exit 7")
    here("run", "-d", "--name", "stopped", "--restart=unless-stopped", "busybox", "sleep", "100000")
    here("run", "-d", "--name", "plain", "busybox", "sleep", "100000")
    here("stop", "-t", "1", "stopped")


@after
def test_those_that_want_it_run_again(here: Runner) -> None:
    eventually(lambda: inspect(here, "keep")["State"]["Running"])
    assert inspect(here, "stopped")["State"]["Status"] == "exited"
    plain = inspect(here, "plain")["State"]
    assert (plain["Status"], plain["Running"]) == ("exited", False)


@after
def test_health_checks_and_restarts_need_nobody(here: Runner) -> None:
    eventually(lambda: inspect(here, "keep")["State"]["Health"]["Status"] == "healthy")
    eventually(lambda: inspect(here, "again")["RestartCount"] > 0)


@after
def test_they_were_started_before_anybody_logged_in(here: Runner) -> None:
    service = subprocess.run(
        ["systemctl", "--user", "show", "-p", "ActiveState", "rootless-restart.service"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert service.stdout.strip() in ("ActiveState=active", "ActiveState=activating")
    here("rm", "-f", "keep", "again", "stopped", "plain")
