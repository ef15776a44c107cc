"""The verbs after `run`, restart policies, health checks, dead monitors, reboots and other hosts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rootless.paths import Lock
from tests.conftest import Runner, command_path, require
from tests.integration.engine.test_events import environment

NONE = "--network=none"


@pytest.fixture(autouse=True)
def no_containers_left(busybox: Runner) -> Iterator[None]:
    """What a failed test left must not fail the next one."""
    yield
    if names := busybox("ps", "-aq").stdout.split():
        busybox("rm", "-f", *names)


@pytest.fixture
def sleeper(busybox: Runner) -> Iterator[str]:
    """A running container that ends on SIGTERM."""
    busybox("run", "-d", "--name", "sleeper", "--init", NONE, "busybox", "sleep", "300")
    yield "sleeper"
    busybox("rm", "-f", "-v", "sleeper", check=False)


def state(busybox: Runner, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(busybox("inspect", name).stdout)[0]["State"]
    return found


def wait_for(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether `pid` is there and no zombie; /proc/PID/root would be refused where our own reaper is the init."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def test_several_starts_at_once_start_it_once(busybox: Runner) -> None:
    """The second to fourth were refused with "already running", or found the port of the first one busy."""
    busybox("create", "--name", "once", NONE, "busybox", "sleep", "300")
    with ThreadPoolExecutor() as pool:
        started = list(pool.map(lambda _: busybox("start", "once", check=False), range(4)))
    assert [(done.returncode, done.stdout) for done in started] == [(0, "once\n")] * 4, started
    assert (
        busybox("events", "--since=1h", "--until=0s", "-f", "container=once", "-f", "event=start").stdout.count("start")
        == 1
    )


def test_stop_start_restart(busybox: Runner, sleeper: str) -> None:
    busybox("stop", sleeper)
    assert state(busybox, sleeper)["ExitCode"] == 143
    busybox("stop", sleeper)  # of a stopped one: no effect
    assert busybox("wait", sleeper).stdout.strip() == "143"
    busybox("start", sleeper)
    first = state(busybox, sleeper)["Pid"]
    busybox("start", sleeper)  # of a running one: no effect
    assert state(busybox, sleeper)["Pid"] == first
    busybox("restart", sleeper)
    assert state(busybox, sleeper)["Pid"] != first


def test_stop_kills_after_its_patience(busybox: Runner) -> None:
    busybox("run", "-d", "--name", "stubborn", NONE, "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    began = time.monotonic()
    busybox("stop", "-t", "1", "stubborn")
    assert 0.9 < time.monotonic() - began < 5
    assert state(busybox, "stubborn")["ExitCode"] == 137
    busybox("rm", "stubborn")


@pytest.mark.once
def test_several_end_at_the_same_time(busybox: Runner) -> None:
    names = ["one", "two", "three", "four"]
    for name in names:
        script = "trap '' TERM; echo up; while :; do sleep 0.2; done"
        busybox("run", "-d", "--name", name, NONE, "busybox", "sh", "-c", script)
    for name in names:
        wait_for(lambda name=name: busybox("logs", name).stdout == "up\n")
    began = time.monotonic()
    done = busybox("stop", "-t", "2", "four", "none", "one", "two", "three", check=False)
    assert 1.9 < time.monotonic() - began < 8, "one waits for another"
    assert (done.returncode, done.stdout) == (1, "four\none\ntwo\nthree\n")
    assert done.stderr.startswith("rootless: no such container: 'none'") and done.stderr.count("\n") == 1
    busybox("start", *names)
    for name in names:
        wait_for(lambda name=name: busybox("logs", name).stdout == "up\nup\n")
    began = time.monotonic()
    assert busybox("restart", "-t", "2", *names).stdout.split() == names
    assert 1.9 < time.monotonic() - began < 8, "one waits for another"
    assert busybox("kill", *names[:2]).stdout.split() == names[:2]
    assert busybox("ps", "-q").stdout.count("\n") == 2
    assert busybox("rm", "-f", *names).stdout.split() == names
    assert not busybox("ps", "-aq").stdout


@pytest.mark.once
def test_signals_by_name(busybox: Runner) -> None:
    busybox(
        "run",
        "-d",
        "--name",
        "trapper",
        NONE,
        "busybox",
        "sh",
        "-c",
        "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done",
    )
    wait_for(lambda: "ready" in busybox("logs", "trapper").stdout)
    busybox("kill", "-s", "SIGUSR1", "trapper")
    assert busybox("wait", "trapper").stdout.strip() == "9"
    failed = busybox("kill", "trapper", check=False)
    assert failed.returncode == 1
    assert "is not running" in failed.stderr
    busybox("rm", "trapper")


def test_exec(busybox: Runner, sleeper: str, has_range: bool) -> None:
    assert busybox("exec", sleeper, "sh", "-c", "echo out; exit 7", check=False).returncode == 7
    assert busybox("exec", sleeper, "nosuch", check=False).returncode == 127
    assert busybox("exec", sleeper, "/etc/passwd", check=False).returncode == 126
    assert busybox("exec", "-i", sleeper, "cat", input="x" * 200_000).stdout == "x" * 200_000
    assert busybox("exec", "-w", "/tmp", "-e", "A=b", sleeper, "sh", "-c", "pwd; echo $A").stdout.split() == [
        "/tmp",
        "b",
    ]
    busybox("exec", "-d", sleeper, "touch", "/detached")
    wait_for(lambda: busybox("exec", sleeper, "ls", "/detached", check=False).returncode == 0)
    # CVE-2024-21626: no descriptor of ours; 3 is ls's own
    assert set(busybox("exec", sleeper, "ls", "/proc/self/fd").stdout.split()) <= {"0", "1", "2", "3"}
    status = busybox("exec", sleeper, "grep", "-E", "CapEff|CapAmb|Seccomp:", "/proc/self/status").stdout.split()
    assert status == ["CapEff:", "00000000a80425fb", "CapAmb:", "0" * 16, "Seccomp:", "2"]
    outside = busybox("exec", "-w", "/proc/self/fd/3", sleeper, "pwd", check=False)
    assert outside.returncode != 0
    missing = busybox("exec", "-w", "/missing", sleeper, "pwd", check=False)
    assert missing.returncode == 127
    assert 'chdir to cwd ("/missing") set in config.json failed: no such file or directory' in missing.stderr
    assert busybox("exec", "-u", "no-such-user", sleeper, "id", check=False).returncode == 125
    require(has_range, "one id: exec -u needs a range")
    assert busybox("exec", "-u", "33:44", sleeper, "sh", "-c", "id -u; id -g").stdout.split() == ["33", "44"]


def test_exec_tells_its_status_when_the_container_has_gone(busybox: Runner, sleeper: str, shared_root: Path) -> None:
    """A --rm container may be removed while the last of its commands ends."""
    directory = shared_root / "containers" / busybox("inspect", "-f", "{{.Id}}", sleeper).stdout.strip()
    process = subprocess.Popen(
        [*command_path(), "exec", "-i", sleeper, "sh", "-c", "echo up; read line; exit 7"],
        env=environment(busybox), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == b"up\n"
    directory.rename(shared_root / "away")
    try:
        _, errors = process.communicate(b"go\n", timeout=120)
    finally:
        (shared_root / "away").rename(directory)
    assert (process.returncode, errors) == (7, b"")


def test_exec_needs_a_running_container(busybox: Runner, sleeper: str) -> None:
    busybox("stop", "-t", "0", sleeper)
    failed = busybox("exec", sleeper, "true", check=False)
    assert failed.returncode == 125 or failed.returncode == 1
    assert "is not running" in failed.stderr


def test_pause(busybox: Runner, sleeper: str) -> None:
    busybox("pause", sleeper)
    assert state(busybox, sleeper)["Status"] == "paused"
    assert "(Paused)" in busybox("ps").stdout
    assert "is already paused" in busybox("pause", sleeper, check=False).stderr
    assert "is paused" in busybox("exec", sleeper, "true", check=False).stderr
    busybox("unpause", sleeper)
    busybox("exec", sleeper, "true")
    busybox("pause", sleeper)
    busybox("stop", sleeper)
    assert state(busybox, sleeper)["Status"] == "exited"


@pytest.mark.once
def test_logs(busybox: Runner) -> None:
    busybox(
        "run",
        "--name",
        "talker",
        NONE,
        "busybox",
        "sh",
        "-c",
        "echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three",
    )
    logs = busybox("logs", "talker")
    assert (logs.stdout, logs.stderr) == ("one\nthree\n", "two\n")
    assert busybox("logs", "--tail", "1", "talker").stdout == "three\n"
    assert busybox("logs", "-t", "talker").stdout.startswith("20")
    assert busybox("logs", "--since", "1h", "talker").stdout == "one\nthree\n"
    assert busybox("logs", "--until", "1h", "talker").stdout == ""
    busybox("rm", "talker")


@pytest.mark.once
def test_rename_and_names(busybox: Runner, sleeper: str) -> None:
    busybox("create", "--name", "other", NONE, "busybox", "true")
    taken = busybox("rename", sleeper, "other", check=False)
    assert "already in use" in taken.stderr
    busybox("rename", sleeper, "renamed")
    busybox("rename", "renamed", sleeper)
    assert busybox("create", "--name", "other", NONE, "busybox", "true", check=False).returncode == 125
    for bad in ("../x", "a/b", "-x", "a b", "x\n"):
        assert busybox("create", f"--name={bad}", NONE, "busybox", "true", check=False).returncode == 125
    prefix = busybox("inspect", "-f", "{{.Id}}", "other").stdout[:12]
    busybox("rm", prefix)


@pytest.mark.once
def test_a_rename_and_a_garbage_collection_take_turns(busybox: Runner, shared_root: Path) -> None:
    busybox("create", "--name", "one", NONE, "busybox", "true")
    with Lock(str(shared_root / "locks/store")):  # as a collection has it
        process = subprocess.Popen([*command_path(), "rename", "one", "two"], env=environment(busybox))
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        assert not (shared_root / "names/two").exists()
    assert process.wait(60) == 0 and (shared_root / "names/two").exists()


@pytest.mark.once
def test_a_renamed_container_goes_with_its_name(busybox: Runner, shared_root: Path) -> None:
    busybox("run", "-d", "--rm", "--name", "before", "--init", NONE, "busybox", "sleep", "60")
    busybox("rename", "before", "after")
    busybox("stop", "after")
    assert not {"before", "after"} & set(os.listdir(shared_root / "names"))


@pytest.mark.once
def test_ps_and_filters(busybox: Runner, sleeper: str) -> None:
    busybox("create", "--name", "made", "-l", "kind=x", "-v", "vol:/v", NONE, "busybox", "true")

    def names(*filters: str) -> set[str]:
        flags = [word for text in filters for word in ("--filter", text)]
        return set(busybox("ps", "-a", "--format", "{{.Names}}", *flags).stdout.split())

    assert names() == {"made", sleeper}
    assert names("status=running") == {sleeper}
    assert names("status=created") == {"made"}
    assert names("label=kind=x") == {"made"}
    assert names("name=mad") == {"made"}
    assert names("volume=vol") == {"made"}
    assert names("ancestor=busybox") == {"made", sleeper}
    assert names("before=made") == {sleeper}
    assert names(f"since={sleeper}") == {"made"}
    assert busybox("ps", "-q", "-n", "1").stdout.strip() == busybox("ps", "-lq").stdout.strip()
    assert busybox("ps", "--filter", "bogus=1", check=False).returncode != 0
    busybox("rm", "made")
    busybox("volume", "rm", "vol")


@pytest.mark.once
def test_rm_of_a_running_container_needs_force(busybox: Runner, sleeper: str) -> None:
    refused = busybox("rm", sleeper, check=False)
    assert refused.returncode == 1
    assert "stop the container before removing or force remove" in refused.stderr
    busybox("rm", "-f", sleeper)
    assert busybox("inspect", sleeper, check=False).returncode == 1


def test_top_and_port(busybox: Runner, sleeper: str) -> None:
    assert "sleep 300" in busybox("top", sleeper).stdout
    assert busybox("top", sleeper, "-o", "nspid,args").stdout.split()[0] == "NSPID"
    assert busybox("port", sleeper).stdout == ""


@pytest.mark.once
def test_prune(busybox: Runner, sleeper: str) -> None:
    busybox("run", "--name", "ended", "-l", "keep=1", NONE, "busybox", "true")
    busybox("container", "prune", "-f", "--filter", "label!=keep")
    assert busybox("ps", "-aq", "--filter", "name=ended").stdout
    busybox("container", "prune", "-f")
    assert busybox("ps", "-a", "--format", "{{.Names}}").stdout.split() == [sleeper]


@pytest.mark.once
def test_restart_policy_and_its_end(busybox: Runner) -> None:
    busybox("run", "-d", "--name", "failing", "--restart", "on-failure:2", NONE, "busybox", "false")
    wait_for(lambda: state(busybox, "failing")["Status"] == "exited", 20)
    assert json.loads(busybox("inspect", "failing").stdout)[0]["RestartCount"] == 2
    busybox("rm", "failing")
    busybox("run", "-d", "--name", "again", "--restart", "always", NONE, "busybox", "sh", "-c", "sleep 0.2")
    wait_for(lambda: json.loads(busybox("inspect", "again").stdout)[0]["RestartCount"] >= 1)
    busybox("stop", "-t", "1", "again")
    assert state(busybox, "again")["Status"] == "exited"
    busybox("rm", "again")


@pytest.mark.once
def test_health(busybox: Runner) -> None:
    check = ["--health-cmd", "test -e /ok", "--health-interval", "200ms", "--health-retries", "1"]
    busybox("run", "-d", "--name", "sick", "--init", *check, NONE, "busybox", "sleep", "60")
    wait_for(lambda: "unhealthy" in busybox("ps").stdout)
    assert busybox("container", "healthcheck", "sick", check=False).returncode == 1
    busybox("exec", "sick", "touch", "/ok")
    wait_for(lambda: "(healthy)" in busybox("ps").stdout)
    busybox("rm", "-f", "sick")


def test_a_killed_monitor_is_noticed(busybox: Runner, sleeper: str, shared_root: Path) -> None:
    container_id = busybox("inspect", "-f", "{{.Id}}", sleeper).stdout.strip()
    path = shared_root / "containers" / container_id / "state.json"
    before = json.loads(path.read_text())
    os.kill(before["monitor_pid"], signal.SIGKILL)
    wait_for(lambda: not runs(before["pid"]))
    found = state(busybox, sleeper)
    assert (found["Status"], found["ExitCode"]) == ("exited", 137)
    busybox("start", sleeper)
    assert state(busybox, sleeper)["Running"]


def test_a_reboot_is_noticed(busybox: Runner, sleeper: str, shared_root: Path) -> None:
    """The state says it runs, of another boot: its pids mean nothing now."""
    busybox("stop", "-t", "0", sleeper)
    container_id = busybox("inspect", "-f", "{{.Id}}", sleeper).stdout.strip()
    path = shared_root / "containers" / container_id / "state.json"
    saved = json.loads(path.read_text())
    path.write_text(
        json.dumps({**saved, "status": "running", "pid": os.getpid(), "pid_start": 1, "boot_id": "another"})
    )
    assert state(busybox, sleeper)["Status"] == "exited"


@pytest.mark.once
def test_a_container_of_another_host_is_left_alone(busybox: Runner, sleeper: str, shared_root: Path) -> None:
    busybox("stop", "-t", "0", sleeper)
    container_id = busybox("inspect", "-f", "{{.Id}}", sleeper).stdout.strip()
    path = shared_root / "containers" / container_id / "state.json"
    saved = path.read_text()
    path.write_text(json.dumps({**json.loads(saved), "status": "running", "host": "node7"}))
    try:
        for verb in (["stop"], ["rm", "-f"], ["kill"], ["exec", sleeper, "true"][:1]):
            arguments = [*verb, sleeper, *(["true"] if verb == ["exec"] else [])]
            failed = busybox(*arguments, check=False)
            assert failed.returncode != 0
            assert "node7" in failed.stderr
        assert "on node7" in busybox("ps").stdout
    finally:
        path.write_text(saved)


def test_attach_and_start_attached(busybox: Runner) -> None:
    busybox("create", "--name", "once", "-i", NONE, "busybox", "cat")
    assert busybox("start", "-ai", "once", input="through\n").stdout == "through\n"
    stopped = busybox("attach", "once", check=False)
    assert "cannot attach to a stopped container" in stopped.stderr
    busybox("rm", "once")


@pytest.mark.once
def test_two_at_once_with_one_name(busybox: Runner) -> None:
    from tests.conftest import command_path

    environment = {**os.environ, "ROOTLESS_ROOT": busybox("info", "-f", "{{.RootDir}}").stdout.strip()}
    racers = [
        subprocess.Popen(
            [*command_path(), "create", "--name", "raced", NONE, "busybox", "true"],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for _ in range(4)
    ]  # fmt: skip
    assert sorted(racer.wait(60) for racer in racers) == [0, 125, 125, 125]
    busybox("rm", "raced")
    assert not busybox("ps", "-aq").stdout
