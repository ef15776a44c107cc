"""SCMP_ACT_NOTIFY: the listener reaches the agent at `listenerPath` before the command runs, and the agent decides."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rootless.kernel import seccomp_notify
from rootless.runtime.seccomp.emulation_filter import compile_filters
from tests.conftest import REPOSITORY, Runner

from .bundle import Bundle

PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "listenerMetadata": "who=test",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
}


class Agent:
    """Takes listeners at `path` and answers every call with ENOANO; `messages` are the process states it got."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[dict[str, Any]] = []
        self.calls = 0
        self._directory = os.open(path.parent, os.O_PATH)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(f"/proc/self/fd/{self._directory}/{path.name}")
        self._socket.listen(5)
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        poll = select.poll()
        for fd in (self._stop, self._socket.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, events in poll.poll():
                if fd == self._stop:
                    return
                if fd == self._socket.fileno():
                    poll.register(self._take(), select.POLLIN)
                elif not events & select.POLLIN:
                    poll.unregister(fd)
                    os.close(fd)
                elif (notice := seccomp_notify.receive_notice(fd)) is not None:
                    self.calls += 1
                    seccomp_notify.answer_call(fd, notice.id, errno.ENOANO)

    def _take(self) -> int:
        connection, _ = self._socket.accept()
        with connection:
            content, fds, _, _ = socket.recv_fds(connection, 65536, 4)
            while piece := connection.recv(65536):
                content += piece
        assert len(fds) == 1
        self.messages.append(json.loads(content))
        return fds[0]

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """The messages, once there are `count`: a command may run before our thread has read to the end."""
        deadline = time.monotonic() + 60
        while len(self.messages) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.messages) == count
        return self.messages

    def close(self) -> None:
        os.write(self._stopper, b"x")
        self._thread.join(60)
        self._socket.close()
        for fd in (self._stop, self._stopper, self._directory):
            os.close(fd)


@pytest.fixture
def agent(bundle: Bundle) -> Any:
    made = Agent(bundle.path / "agent.sock")
    bundle.config["linux"]["seccomp"] = {**PROFILE, "listenerPath": str(made.path)}
    yield made
    made.close()


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_run(bundle: Bundle, agent: Agent, no_new_privileges: bool) -> None:
    bundle.config["process"]["noNewPrivileges"] = no_new_privileges
    bundle.config["annotations"] = {"a": "b"}
    done = bundle.sh("mkdir /x 2>&1; test ! -e /x && echo refused", check=False)
    assert "No anode" in done.stdout and "refused" in done.stdout, done.stdout + done.stderr
    (message,) = agent.wait_for(1)
    assert message["fds"] == ["seccompFd"] and message["metadata"] == "who=test"
    assert message["pid"] == message["state"]["pid"] > 0
    state = message["state"]
    assert (state["id"], state["status"], state["bundle"]) == ("c", "created", str(bundle.path))
    assert state["annotations"] == {"a": "b"} and message["ociVersion"] == state["ociVersion"]


def test_create_start_and_exec(bundle: Bundle, agent: Agent) -> None:
    """Nothing is sent before the start: the filter is the last thing before execve. Each exec has one of its own."""
    state = bundle.up("mkdir /x; sleep 60")
    (message,) = agent.wait_for(1)
    assert message["pid"] == state["pid"]
    done = bundle.oci("exec", "c", "sh", "-c", "mkdir /y", check=False)
    assert done.returncode != 0 and "No anode" in done.stderr
    second = agent.wait_for(2)[1]
    assert second["pid"] != second["state"]["pid"] == state["pid"]
    assert second["state"]["status"] == "running"


def test_startcontainer_hooks_have_a_listener_too(bundle: Bundle, agent: Agent) -> None:
    """runc's test of it: the filter of the container holds for its hooks, and the agent answers for them as well."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "mkdir /hook; test ! -e /hook"]}
    bundle.config["hooks"] = {"startContainer": [hook]}
    done = bundle.sh("mkdir /x 2>&1; echo ran", check=False)
    assert done.returncode == 0 and done.stdout.endswith("ran\n"), done.stdout + done.stderr
    agent.wait_for(2)
    assert agent.calls == 2 and not (bundle.root / "hook").exists()


def test_without_its_agent_the_command_does_not_run(bundle: Bundle) -> None:
    bundle.config["linux"]["seccomp"] = {**PROFILE, "listenerPath": str(bundle.path / "nobody.sock")}
    done = bundle.sh("echo ran", check=False)
    assert done.returncode != 0 and "ran" not in done.stdout
    assert "cannot pass the seccomp listener on to" in done.stderr and "nobody.sock" in done.stderr


def test_every_flag_loads(bundle: Bundle, agent: Agent) -> None:
    bundle.config["linux"]["seccomp"]["flags"] = [
        "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ]  # fmt: skip
    bundle.sh("true")
    agent.wait_for(1)


def test_features_name_the_action(bundle: Bundle) -> None:
    features = json.loads(bundle.oci("features").stdout)
    assert "SCMP_ACT_NOTIFY" in features["linux"]["seccomp"]["actions"]


def test_a_profile_of_the_engine_has_an_agent_too(busybox: Runner, tmp_path: Path) -> None:
    agent = Agent(tmp_path / "agent.sock")
    try:
        profile = tmp_path / "profile.json"
        profile.write_text(json.dumps({**PROFILE, "listenerPath": str(agent.path)}))
        words = ("--network", "none", "--security-opt", f"seccomp={profile}")
        busybox("run", "-d", "--name", "agent", *words, "busybox", "sleep", "60")
        done = busybox("exec", "agent", "mkdir", "/x", check=False)
        assert done.returncode == 1 and "No anode" in done.stderr
        assert [message["state"]["status"] for message in agent.wait_for(2)] == ["created", "running"]
        busybox("rm", "-f", "agent")
    finally:
        agent.close()


def test_emulated_root_and_an_agent_exclude_each_other(busybox: Runner, tmp_path: Path) -> None:
    """The kernel allows one listener around a process; which of the two is lost is said."""
    agent = Agent(tmp_path / "agent.sock")
    try:
        profile = tmp_path / "profile.json"
        profile.write_text(json.dumps({**PROFILE, "listenerPath": str(agent.path)}))
        words = ("--network", "none", "--root-emulation", "on", "--security-opt", f"seccomp={profile}")
        done = busybox("create", *words, "busybox", check=False)
        assert done.returncode == 125 and "one listener" in done.stderr
    finally:
        agent.close()


@pytest.mark.parametrize("before", ["fd = load_filter(waiting, 8)", "waiting = b''"], ids=["busy", "old"])
def test_without_a_listener_owners_are_not_noted(before: str) -> None:
    """Inside of another listener, or where no call can wait: the calls succeed, and one line says what is lost."""
    waiting, plain, _ = compile_filters()
    code = f"""
import os, socket, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from rootless.kernel.process import set_no_new_privs
from rootless.kernel.process import load_filter
from rootless.runtime.seccomp import emulation
set_no_new_privs()
waiting, plain = bytes.fromhex({waiting.hex()!r}), bytes.fromhex({plain.hex()!r})
{before}
emulation.load(emulation.Emulation(waiting, plain, None), socket.socket(), print)
os.chown("/etc/passwd", 5, 5)
os.setresuid(7, 7, 7)
print("went on as", os.getuid())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "not recorded" in done.stdout, done.stderr
    assert f"went on as {os.getuid()}" in done.stdout
