"""Ends that nobody asked for: the terminal is closed, the disk below the output is full, the monitor is killed."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, command_path, require, runs

NONE = "--network=none"


@pytest.fixture(autouse=True)
def no_containers_left(busybox: Runner) -> Iterator[None]:
    """What a failed test left must not fail the next one."""
    yield
    if names := busybox("ps", "-aq").stdout.split():
        busybox("rm", "-f", *names)


def wait_for(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


class Terminal:
    """`rootless ARGUMENTS` as leader of the session of a terminal of its own."""

    def __init__(self, root: Path, *arguments: str, ignores_hangup: bool = False) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            if ignores_hangup:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            argv = [*command_path(), *arguments]
            os.execve(argv[0], argv, {**os.environ, "ROOTLESS_ROOT": str(root)})

    def expect(self, text: bytes) -> None:
        """Read until `text` comes."""
        seen = b""
        while text not in seen:
            assert select.select([self.master], [], [], 60)[0], seen
            seen += os.read(self.master, 4096)

    def close(self) -> int:
        """Close the terminal, as the window does; the exit code, below 0 for a signal."""
        os.close(self.master)
        deadline = time.monotonic() + 30
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, "the client does not end"
            time.sleep(0.05)


@pytest.mark.once
@pytest.mark.parametrize("ignores_hangup", [False, True], ids=["hangup", "nohup"])
def test_a_closed_terminal_ends_the_client_and_not_the_container(
    busybox: Runner, shared_root: Path, ignores_hangup: bool
) -> None:
    shell = ["busybox", "sh", "-c", "echo ready; read word; echo got $word; exec sleep 300"]
    terminal = Terminal(shared_root, "run", "-it", "--rm", "--name", "t", NONE, *shell, ignores_hangup=ignores_hangup)
    terminal.expect(b"ready")
    assert terminal.close() in (129, -signal.SIGHUP)
    time.sleep(0.5)
    assert busybox("ps", "--format", "{{.Names}}").stdout == "t\n"
    terminal = Terminal(shared_root, "attach", "t", ignores_hangup=ignores_hangup)
    os.write(terminal.master, b"one\r")
    terminal.expect(b"got one")
    assert terminal.close() in (129, -signal.SIGHUP)
    time.sleep(0.5)
    assert busybox("ps", "--format", "{{.Names}}").stdout == "t\n"
    busybox("kill", "t")
    wait_for(lambda: not busybox("ps", "-aq").stdout)


@pytest.mark.once
def test_who_leaves_by_the_detach_keys_is_told(busybox: Runner, shared_root: Path) -> None:
    """Nothing was printed: the shell's prompt stood behind the container's, which looked alike."""
    script = "echo ready; while read word; do echo got $word; done"
    terminal = Terminal(shared_root, "run", "-it", "--name", "left", NONE, "busybox", "sh", "-c", script)
    terminal.expect(b"ready")
    os.write(terminal.master, b"\x10\x11")
    terminal.expect(b"read escape sequence")
    assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) == 0
    os.close(terminal.master)
    terminal = Terminal(shared_root, "attach", "left")
    os.write(terminal.master, b"one\r")
    terminal.expect(b"got one")
    os.write(terminal.master, b"\x10\x11")
    terminal.expect(b"read escape sequence")
    assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) == 0
    os.close(terminal.master)
    busybox("rm", "-f", "left")


@pytest.mark.once
def test_output_that_cannot_be_written_is_an_error(busybox: Runner, shared_root: Path) -> None:
    say = ["busybox", "sh", "-c", "echo out; echo err >&2"]
    busybox("create", "--name", "c", NONE, *say)
    busybox("run", "-d", "--name", "up", NONE, "busybox", "sh", "-c", "while :; do echo tick; sleep 0.1; done")
    environment = {**os.environ, "ROOTLESS_ROOT": str(shared_root)}
    commands = {
        ("run", "--rm", NONE, *say): 125,
        ("run", "--rm", "-t", NONE, *say): 125,
        ("exec", "up", "echo", "x"): 125,
        ("exec", "-t", "up", "echo", "x"): 125,
        ("start", "-a", "c"): 125,
        ("attach", "up"): 1,
        ("logs", "-f", "up"): 1,
        ("cp", "up:/etc", "-"): 1,
        ("export", "up"): 1,
        ("inspect", "up"): 1,
        ("ps",): 1,
        ("save", "busybox"): 1,
    }
    for command, code in commands.items():
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [*command_path(), *command], stdout=full, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                env=environment, timeout=60,
            )  # fmt: skip
        assert done.returncode == code, (command, done)
        assert b"No space left on device" in done.stderr, (command, done)
    for command in (("run", "--rm", NONE, *say), ("exec", "up", "sh", "-c", "echo x >&2")):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [*command_path(), *command], stderr=full, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                env=environment, timeout=60,
            )  # fmt: skip
        assert done.returncode == 125, (command, done)


def test_a_monitor_that_is_killed_at_once_is_told(busybox: Runner, shared_root: Path) -> None:
    client = subprocess.Popen(
        [*command_path(), "run", "-d", "--rm", NONE, "busybox", "sleep", "300"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        env={**os.environ, "ROOTLESS_ROOT": str(shared_root)},
    )  # fmt: skip
    children = Path(f"/proc/{client.pid}/task/{client.pid}/children")
    deadline = time.monotonic() + 30
    while not (found := children.read_text().split()):
        assert time.monotonic() < deadline
    os.kill(int(found[0]), signal.SIGKILL)
    out, err = client.communicate(timeout=60)
    assert (client.returncode, out) == (125, "")
    told = [line for line in err.splitlines() if not line.startswith("warning: you have one id only")]
    assert len(told) == 1 and "ended unexpectedly" in told[0]
    assert not busybox("ps", "-aq").stdout


def record(busybox: Runner, root: Path, name: str) -> tuple[Path, dict[str, object]]:
    """The directory and the state of a container."""
    directory = root / "containers" / busybox("inspect", "-f", "{{.Id}}", name).stdout.strip()
    return directory, json.loads((directory / "state.json").read_text())


@pytest.mark.parametrize("command", [["ps"], ["container", "prune", "-f"], ["run", "--rm", "--name", "gone"], ["boot"]])
def test_what_a_killed_monitor_leaves_is_collected(busybox: Runner, shared_root: Path, command: list[str]) -> None:
    busybox("run", "-d", "--rm", "--name", "gone", "-v", "/data", NONE, "busybox", "sleep", "300")
    directory, state = record(busybox, shared_root, "gone")
    runtime = json.loads((directory / "launch.json").read_text())["runtime_dir"]
    volumes = busybox("volume", "ls", "-q").stdout
    os.kill(int(str(state["monitor_pid"])), signal.SIGKILL)
    wait_for(lambda: not runs(int(str(state["pid"]))))
    assert directory.exists() and Path(runtime, "containers", f"{directory.name}.sock").exists()
    if command == ["boot"]:
        (directory / "state.json").write_text(json.dumps({**state, "boot_id": "another"}))
        command = ["start", "--after-boot"]
    busybox(*command, *([NONE, "busybox", "true"] if command[0] == "run" else []))
    assert not directory.exists()
    assert not Path(runtime, "containers", f"{directory.name}.sock").exists()
    assert not busybox("ps", "-aq").stdout
    assert len(busybox("volume", "ls", "-q").stdout) < len(volumes)


@pytest.mark.parametrize("driver", ["auto", "fuse-overlayfs"])
def test_a_killed_monitor_leaves_no_process_where_numbers_of_namespaces_return(
    busybox: Runner, shared_root: Path, driver: str
) -> None:
    """Before Linux 6.12 a namespace has an inode alone, which another one has later: a process proves whose it is by
    its root, or where that is FUSE, which nobody outside may look at, by its mounts."""
    flags = ("--pid=host", f"--storage-driver={driver}", NONE, "busybox")
    started = busybox(
        "run", "-d", "--name", "left", *flags, "sh", "-c", "sleep 301 & echo $!; exec sleep 300", check=False
    )
    require("does not work in" not in started.stderr, f"fuse-overlayfs: {started.stderr}")
    wait_for(lambda: bool(busybox("logs", "left").stdout))
    left = int(busybox("logs", "left").stdout)
    directory, state = record(busybox, shared_root, "left")
    os.kill(int(str(state["monitor_pid"])), signal.SIGKILL)
    wait_for(lambda: not runs(int(str(state["pid"]))))
    assert runs(left)
    namespaces = state["namespaces"]
    assert isinstance(namespaces, dict)
    inodes = {name: [[namespaces[name][0][0], 0]] for name in ("mount", "user")}
    (directory / "state.json").write_text(json.dumps({**state, "namespaces": {**namespaces, **inodes}}))
    busybox("ps", "-a")
    assert not runs(left)


@pytest.mark.once
def test_prune_removes_sockets_at_which_nobody_listens(busybox: Runner, shared_root: Path) -> None:
    busybox("run", "-d", "--name", "up", NONE, "busybox", "sleep", "300")
    directory, _ = record(busybox, shared_root, "up")
    place = Path(json.loads((directory / "launch.json").read_text())["runtime_dir"], "containers")
    sockets = {}
    here = os.getcwd()
    os.chdir(place)  # a test user's runtime directory may be longer than an address
    try:
        for letter in "abc":
            sockets[letter] = socket.socket(socket.AF_UNIX)
            sockets[letter].bind(f"{letter * 64}.sock")
            os.utime(f"{letter * 64}.sock", (1, 1))
        sockets["a"].listen()
        os.utime(f"{'c' * 64}.sock")  # perhaps of a monitor that just begins
        sockets["b"].close()
        busybox("container", "prune", "-f")
        left = {name[0] for name in os.listdir(".") if name[:64] in {letter * 64 for letter in "abc"}}
        assert left == {"a", "c"}
        assert Path(f"{directory.name}.sock").exists()
    finally:
        for letter, each in sockets.items():
            each.close()
            Path(f"{letter * 64}.sock").unlink(missing_ok=True)
        os.chdir(here)
