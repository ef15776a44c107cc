"""The monitor that has executed itself anew does everything that the first image would have done."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from rootless.engine.container import attach_client
from rootless.monitor import reap
from tests.conftest import require, runs
from tests.integration.monitor.bundle import busybox, container
from tests.integration.monitor.fake_run import Attached
from tests.integration.monitor.test_containers import place, state, stop, until  # noqa: F401


def launch(directory: str) -> int:
    """Start it, wait for the second image, return the container's pid."""
    require(busybox(), "no static busybox")
    pid = attach_client.launch_detached(attach_client.spawn_monitor(), directory)
    monitor = Path(f"/proc/{state(directory)['monitor_pid']}")
    until(lambda: b"resume" in (monitor / "cmdline").read_bytes())
    until(lambda: (monitor / "comm").read_text() == "rootless-mon\n")
    return pid


def socket_path(root: Path) -> str:
    return str(root / "run/containers/c0ffee.sock")


def test_memory_of_an_idle_monitor_is_bounded(place: Path) -> None:  # noqa: F811
    directory = container(place, "sleep", "100")
    launch(directory)
    rollup = Path(f"/proc/{state(directory)['monitor_pid']}/smaps_rollup").read_text()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
    assert sizes["Pss"] <= 8192
    stop(directory)


def test_streams_lines_and_exit_go_on(place: Path) -> None:  # noqa: F811
    directory = container(
        place,
        "sh",
        "-c",
        "printf 'half '; read x; echo got $x; cat; echo err >&2; exit 9",
        open_stdin=True,
        stdin_once=True,
    )
    launch(directory)
    client = Attached(socket_path(place), given=b"line\nmore\n")
    client.close_input()
    assert client.outcome().exit_code == 9
    assert client.output == [b"got line\nmore\n", b"err\n"]
    logged = [json.loads(line)["log"] for line in Path(directory, "log").read_text().splitlines()]
    assert logged[0] == "half got line\n"
    assert sorted(logged[1:]) == ["err\n", "more\n"]
    assert (state(directory)["status"], state(directory)["exit_code"]) == ("exited", 9)
    assert not os.path.exists(socket_path(place))


def test_terminal_goes_on(place: Path) -> None:  # noqa: F811
    directory = container(place, "sh", "-c", "read x; echo got $x; exit 3", terminal=True, open_stdin=True)
    launch(directory)
    client = Attached(socket_path(place), given=b"abc\n", terminal=True)
    assert client.outcome().exit_code == 3
    assert client.output[0] == b"abc\r\ngot abc\r\n"


def test_it_still_holds_the_lock_and_stops_in_order(place: Path) -> None:  # noqa: F811
    directory = container(place, "sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.05; done")
    launch(directory)
    assert reap.is_supervised(directory)
    assert not reap.clean_up_after_monitor(directory)
    stop(directory)
    assert state(directory)["exit_code"] == 4


def test_the_container_still_dies_with_it(place: Path) -> None:  # noqa: F811
    directory = container(place, "sleep", "100")
    pid = launch(directory)
    os.kill(state(directory)["monitor_pid"], signal.SIGKILL)
    until(lambda: not runs(pid))
    assert reap.clean_up_after_monitor(directory)


def test_restart_and_removal_from_the_second_image(place: Path) -> None:  # noqa: F811
    script = "echo x >> /tmp/runs; read x; exit $x"
    restart = {"name": "on-failure", "maximum_retry_count": 1}
    remove = {"name_file": None, "directory": str(place / "containers/c0ffee"), "volumes": []}
    directory = container(place, "sh", "-c", script, open_stdin=True, restart=restart, remove=remove)
    launch(directory)
    first = Attached(socket_path(place), given=b"5\n")
    assert first.outcome().exit_code == 5
    until(lambda: state(directory)["status"] == "running")
    assert state(directory)["restart_count"] == 1
    assert Path(directory, "rootfs/tmp/runs").read_text() == "x\nx\n"
    second = Attached(socket_path(place), given=b"6\n")
    assert second.outcome().exit_code == 6
    assert not os.path.exists(directory)


def test_no_descriptor_is_left_behind(place: Path) -> None:  # noqa: F811
    directory = container(place, "sleep", "100")
    launch(directory)
    fds = Path(f"/proc/{state(directory)['monitor_pid']}/fd")
    # 0-2, epoll, wake-up pipe, lock, listener, log, stdout, stderr, pidfd, user namespace; some are closed only after
    # it has its new name
    until(lambda: len(list(fds.iterdir())) == 13)
    stop(directory)


@pytest.mark.parametrize("mode", ["pasta", "slirp4netns"])
def test_the_network_helper_is_taken_along(place: Path, mode: str) -> None:  # noqa: F811
    require(shutil.which(mode), f"no {mode}")
    require(os.access("/dev/net/tun", os.R_OK | os.W_OK), "no /dev/net/tun")
    directory = container(place, "sh", "-c", "read x; cat /proc/net/route", open_stdin=True, network={"mode": mode})
    launch(directory)
    [(helper, _)] = state(directory)["helpers"]
    assert state(directory)["network"]["ip"]
    client = Attached(socket_path(place), given=b"\n")
    assert client.outcome().exit_code == 0
    assert client.output[0].count(b"\n") > 1  # a route
    until(lambda: not runs(helper))
    launch(directory)
    [(helper, _)] = state(directory)["helpers"]
    os.kill(state(directory)["monitor_pid"], signal.SIGKILL)
    until(lambda: not runs(helper))
