"""An agent of the build's own holds the keys of files, and ends with the build."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from rootless.builder.steps.key_agent import KeyAgent
from rootless.builder.steps.ssh_agent import AgentSource, agent_for
from rootless.errors import UsageError
from tests.conftest import require, runs

ASK_FOR_IDENTITIES = b"\0\0\0\1\x0b"  # draft-ietf-sshm-ssh-agent, section 4.4


@pytest.fixture
def openssh() -> None:
    """OpenSSH's client, which is the agent."""
    programs = ("ssh-agent", "ssh-keygen")
    require(all(map(shutil.which, programs)), "no OpenSSH client on this machine (apt-get install openssh-client)")


def make_key(path: Path, words: str = "") -> str:
    """A key in a file, protected by `words` unless they are empty."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", words, "-f", str(path)], check=True)
    return str(path)


@pytest.mark.usefixtures("openssh")
def test_the_keys_are_in_the_agent_until_it_is_closed(tmp_path: Path) -> None:
    agent = KeyAgent("default", (make_key(tmp_path / "a"), make_key(tmp_path / "b")))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(agent.socket)
        client.sendall(ASK_FOR_IDENTITIES)
        assert client.recv(9)[4:] == b"\x0c\0\0\0\2"
    assert runs(agent._agent)
    agent.close()
    deadline = time.monotonic() + 5
    while (os.path.exists(agent.socket) or runs(agent._agent)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (os.path.exists(agent.socket), runs(agent._agent)) == (False, False)


@pytest.mark.usefixtures("openssh")
@pytest.mark.parametrize("words", ["secret words", None])
def test_a_file_that_cannot_be_used(tmp_path: Path, words: str | None) -> None:
    path = make_key(tmp_path / "a", words) if words else str(tmp_path / "no-key")
    if words is None:
        Path(path).write_text("nothing\n")
    with pytest.raises(UsageError, match="--ssh mine: "):
        KeyAgent("mine", (path,))


def test_sockets_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").touch()
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        own = AgentSource(str(tmp_path / "agent"))
        assert agent_for(["default"], "default") == agent_for(["x=agent"], "x") == own
        assert agent_for(["x=key,key"], "x") == AgentSource("", (str(tmp_path / "key"),) * 2)
        assert agent_for(["x"], "default") is None
        for wrong in ("x=agent,key", "x=none", "x=."):
            with pytest.raises(UsageError, match="--ssh x: "):
                agent_for([wrong], "x")
