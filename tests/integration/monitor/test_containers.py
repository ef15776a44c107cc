"""The monitor with real containers, of our runtime and of others: the same behaviour whoever runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless.engine.container import attach_client
from rootless.errors import CommandNotExecutable, CommandNotFound
from rootless.monitor import reap
from tests.conftest import require, runs
from tests.integration.monitor.bundle import busybox, container
from tests.integration.monitor.fake_run import Attached


@pytest.fixture(params=[None, "crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> str | None:
    """Our runtime, and two others where the host has them."""
    require(busybox(), "no static busybox")
    name: str | None = request.param
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    require(name is None or shutil.which(name, path=path), f"no {name}")
    return name


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that other ids of the user's map can reach too."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.owner() == Path("/proc/self").owner() and parent.stat().st_uid == os.getuid():
            parent.chmod(parent.stat().st_mode | 0o111)
    return tmp_path


def state(directory: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(Path(directory, "state.json").read_text())
    return value


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def stop(directory: str) -> None:
    os.kill(state(directory)["monitor_pid"], signal.SIGTERM)
    until(lambda: not reap.is_supervised(directory))


def run(directory: str, given: bytes | None = b"", **options: Any) -> Attached:
    client = Attached((attach_client.spawn_monitor(), directory), given=given, **options)
    if given:
        client.close_input()
    return client


def test_streams_and_exit_code(place: Path, runtime: str | None) -> None:
    directory = container(
        place, "sh", "-c", "cat; echo err >&2; id -u; exit 7", runtime=runtime, open_stdin=True, stdin_once=True
    )
    client = run(directory, b"typed\n")
    assert client.outcome().exit_code == 7
    assert client.output == [b"typed\n0\n", b"err\n"]
    assert (state(directory)["status"], state(directory)["exit_code"]) == ("exited", 7)
    logged = [json.loads(line) for line in Path(directory, "log").read_text().splitlines()]
    assert {(r["stream"], r["log"]) for r in logged} == {("stdout", "typed\n"), ("stdout", "0\n"), ("stderr", "err\n")}


def test_terminal(place: Path, runtime: str | None) -> None:
    directory = container(
        place,
        *("sh", "-c", "tty; read x; echo got $x"),
        runtime=runtime,
        terminal=True,
        open_stdin=True,
        stdin_once=True,
    )
    client = run(directory, b"abc\n", terminal=True)
    assert client.outcome().exit_code == 0
    assert b"/dev/" in client.output[0]
    assert client.output[0].endswith(b"got abc\r\n")


@pytest.mark.parametrize(("command", "kind"), [("missing", CommandNotFound), ("/bin/text", CommandNotExecutable)])
def test_command_that_cannot_run(place: Path, runtime: str | None, command: str, kind: type[Exception]) -> None:
    directory = container(place, command, runtime=runtime)
    with pytest.raises(kind):
        run(directory).outcome()
    until(lambda: not reap.is_supervised(directory))
    assert state(directory)["status"] == "created"


def test_big_output_is_complete(place: Path, runtime: str | None) -> None:
    client = run(container(place, "sh", "-c", "seq 1 100000; seq 1 100000 >&2", runtime=runtime))
    assert client.outcome().exit_code == 0
    wanted = "".join(f"{n}\n" for n in range(1, 100001)).encode()
    assert client.output == [wanted, wanted]


def test_detached_then_stopped(place: Path, runtime: str | None) -> None:
    script = "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.05; done"
    directory = container(place, "sh", "-c", script, runtime=runtime)
    pid = attach_client.launch_detached(attach_client.spawn_monitor(), directory)
    assert Path(f"/proc/{pid}/root/bin/busybox").exists() or state(directory)["status"] == "running"
    until(lambda: "up" in Path(directory, "log").read_text())
    stop(directory)
    assert state(directory)["exit_code"] == 4
    assert "bye" in Path(directory, "log").read_text()


def test_container_dies_with_its_monitor(place: Path, runtime: str | None) -> None:
    directory = container(place, "sleep", "100", runtime=runtime)
    pid = attach_client.launch_detached(attach_client.spawn_monitor(), directory)
    helpers = state(directory)["helpers"]
    os.kill(state(directory)["monitor_pid"], signal.SIGKILL)
    until(lambda: not runs(pid))
    assert reap.clean_up_after_monitor(directory)
    assert (state(directory)["exit_code"], state(directory)["error"]) == (137, "monitor died")
    until(lambda: not any(runs(helper) for helper, _ in helpers))


def test_rm_leaves_nothing(place: Path, runtime: str | None) -> None:
    directory = container(place, "sh", "-c", "echo x > /tmp/file", runtime=runtime)
    settings = json.loads(Path(directory, "launch.json").read_text())
    name = place / "name"
    name.write_text("c0ffee")
    settings["remove"] = {"name_file": str(name), "directory": directory, "volumes": []}
    Path(directory, "launch.json").write_text(json.dumps(settings))
    assert run(directory).outcome().exit_code == 0
    assert not name.exists()
    assert not os.path.exists(directory)
    assert os.listdir(place / "trash") == []
    assert os.listdir(place / "run/containers") == []


def test_rm_removes_also_what_never_started(place: Path, runtime: str | None) -> None:
    directory = container(place, "missing", runtime=runtime, remove={"directory": str(place / "containers/c0ffee")})
    with pytest.raises(CommandNotFound):
        run(directory).outcome()
    until(lambda: not os.path.exists(directory))


def test_restart_runs_it_anew(place: Path, runtime: str | None) -> None:
    restart = {"name": "on-failure", "maximum_retry_count": 2}
    directory = container(place, "sh", "-c", "echo run $$; exit 3", runtime=runtime, restart=restart)
    attach_client.launch_detached(attach_client.spawn_monitor(), directory)
    until(lambda: not reap.is_supervised(directory))
    assert Path(directory, "log").read_text().count("run 1") == 3
    assert state(directory)["restart_count"] == 2


def test_no_signal_is_ignored_or_blocked_inside(place: Path, runtime: str | None) -> None:
    """Python ignores SIGPIPE, and that is inherited: `yes | head` must end."""
    directory = container(
        place, "sh", "-c", "grep -E 'Sig(Blk|Ign)' /proc/self/status || cat /proc/self/status", runtime=runtime
    )
    client = run(directory)
    client.outcome()
    masks = {
        line.split()[0]: int(line.split()[1], 16) for line in client.output[0].decode().splitlines() if "Sig" in line
    }
    standard = (1 << 31) - 1  # glibc's own two above are as our caller had them
    assert masks["SigIgn:"] & standard == 0
    assert masks["SigBlk:"] & standard == 0


def test_no_descriptor_leaks_into_the_container(place: Path, runtime: str | None) -> None:
    """CVE-2024-21626."""
    client = run(container(place, "ls", "/proc/self/fd", runtime=runtime))
    client.outcome()
    assert client.output[0].split() == [b"0", b"1", b"2", b"3"]  # 3 is the directory that ls reads


def health(test: list[str], **settings: Any) -> dict[str, Any]:
    return {"test": test, "interval": 0.1, "timeout": 5, "retries": 2, "start_period": 0, **settings}


def status_of(directory: str) -> str:
    return str((state(directory)["health"] or {}).get("status"))


def test_health_becomes_healthy_then_unhealthy(place: Path) -> None:
    require(busybox(), "no static busybox")
    check = health(["CMD-SHELL", "echo checked; test ! -e /tmp/broken"])
    directory = container(place, "sleep", "100", health=check)
    pid = attach_client.launch_detached(attach_client.spawn_monitor(), directory)
    assert status_of(directory) == "starting"
    until(lambda: status_of(directory) == "healthy")
    result = state(directory)["health"]["log"][-1]
    assert (result["exit_code"], result["output"]) == (0, "checked\n")
    Path(directory, "rootfs/tmp/broken").touch()
    until(lambda: status_of(directory) == "unhealthy")
    until(lambda: len(state(directory)["health"]["log"]) == 5)
    assert state(directory)["health"]["failing_streak"] >= 2
    assert os.path.exists(f"/proc/{pid}")
    stop(directory)


def test_health_probe_that_hangs_is_killed_with_its_children(place: Path) -> None:
    require(busybox(), "no static busybox")
    check = health(["CMD-SHELL", "sleep 77 & sleep 88"], timeout=0.5, retries=1)
    directory = container(place, "sleep", "100", health=check)
    attach_client.launch_detached(attach_client.spawn_monitor(), directory)
    until(lambda: status_of(directory) == "unhealthy")
    result = state(directory)["health"]["log"][-1]
    assert result["exit_code"] == -1
    assert "exceeded timeout" in result["output"]
    stop(directory)


def test_health_probe_that_cannot_run_fails_with_the_reason(place: Path) -> None:
    require(busybox(), "no static busybox")
    directory = container(place, "sleep", "100", health=health(["CMD", "nothing-there"], retries=1))
    attach_client.launch_detached(attach_client.spawn_monitor(), directory)
    until(lambda: status_of(directory) == "unhealthy")
    assert "nothing-there" in state(directory)["health"]["log"][-1]["output"]
    stop(directory)


def test_output_of_a_probe_is_bounded(place: Path) -> None:
    require(busybox(), "no static busybox")
    directory = container(place, "sleep", "100", health=health(["CMD-SHELL", "yes | head -c 100000"]))
    attach_client.launch_detached(attach_client.spawn_monitor(), directory)
    until(lambda: status_of(directory) == "healthy")
    assert len(state(directory)["health"]["log"][-1]["output"]) == 4096
    stop(directory)


def test_another_user_of_the_container_may_open_dev_stdout(place: Path, has_range: bool) -> None:
    """Images such as nginx log to /dev/stdout as a user of their own."""
    require(busybox(), "no static busybox")
    require(has_range, "no subordinate ids")
    directory = container(place, "sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr")
    settings = json.loads(Path(directory, "config.json").read_text())
    settings["process"]["user"] = {"uid": 1000, "gid": 1000}
    Path(directory, "config.json").write_text(json.dumps(settings))
    client = run(directory)
    assert client.outcome().exit_code == 0
    assert client.output == [b"out\n", b"err\n"]


def test_process_that_outlives_the_first_one_does_not_hold_the_exit_back(place: Path) -> None:
    """Without a pid namespace of its own a daemon may keep the pipes open for ever."""
    require(busybox(), "no static busybox")
    directory = container(place, "sh", "-c", "sleep 300 & echo started; exit 6")
    settings = json.loads(Path(directory, "config.json").read_text())
    settings["linux"]["namespaces"] = [n for n in settings["linux"]["namespaces"] if n["type"] != "pid"]
    settings["mounts"] = [
        m if m["destination"] != "/proc" else {**m, "type": "bind", "source": "/proc", "options": ["rbind"]}
        for m in settings["mounts"]
    ]
    Path(directory, "config.json").write_text(json.dumps(settings))
    client = run(directory)
    assert client.outcome().exit_code == 6
    assert client.output[0] == b"started\n"
