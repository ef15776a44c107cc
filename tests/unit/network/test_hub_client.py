"""What a monitor hears of the process that serves networks when that cannot do what it was asked for."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from rootless.errors import HostLimit, InvalidState
from rootless.network.shared import hub_client
from rootless.records.membership import Attachment, MemberFile, Membership


def test_errors_of_the_kernel_name_the_file_and_what_to_do() -> None:
    own = InvalidState("Address already in use")
    assert hub_client._as_ours(own) is own
    read_only = hub_client._as_ours(OSError(errno.EROFS, "Read-only file system", "/proc/sys/net/ipv4/ip_forward"))
    assert isinstance(read_only, HostLimit)
    assert "Read-only file system ('/proc/sys/net/ipv4/ip_forward')" in read_only.message
    assert "inside another container" in str(read_only.hint)
    no_module = hub_client._as_ours(OSError(errno.EOPNOTSUPP, "Operation not supported"))
    assert (no_module.message.endswith("networks: Operation not supported"), no_module.hint) == (True, None)


class Member:
    """A container that runs, whose monitor is this process; the other end of its connection answers from a list."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.held = [self.ours.detach(), os.open("/dev/null", os.O_RDONLY)]
        self.membership = Membership("a", "a", [Attachment("one", "1", "10.89.0.0/24", "10.89.0.1")])
        self.writes = 0
        self.fails_at = 0
        self._write = hub_client._write
        monkeypatch.setattr(hub_client, "shared_directory", lambda runtime_dir: str(directory))
        monkeypatch.setattr(hub_client, "_write", self.write)
        self.write(str(directory), MemberFile(self.membership, (1, 1), self.held[1]))
        self.writes = 0

    def write(self, directory: str, file: MemberFile) -> None:
        self.writes += 1
        if self.writes == self.fails_at:
            raise HostLimit("cannot write: No space left on device")
        self._write(directory, file)

    def answer(self, *fds: int) -> None:
        """Let the next request be answered."""
        content = {"membership": self.membership.to_json(), "warnings": []}
        socket.send_fds(self.theirs, [json.dumps(content).encode()], fds)

    def change(self, *, detach: str = "") -> list[str]:
        attach = None if detach else Attachment("two", "2", "10.89.1.0/24", "10.89.1.1")
        return hub_client.change("", "a", self.held, SimpleNamespace(attach=attach, detach=detach))[1]


def test_a_change_is_refused_before_it_is_made_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the container, its monitor and the process that serves networks go on to agree."""
    member = Member(tmp_path, monkeypatch)
    member.fails_at = 1
    with pytest.raises(HostLimit):
        member.change()
    member.theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        member.theirs.recv(100)
    member.writes, member.fails_at = 0, 2
    member.answer(member.held[1])
    assert member.change() == ["cannot write: No space left on device"]
    assert len(member.held) == 3
    # the file knows nothing of the second network, and the container leaves it
    member.answer()
    assert member.change(detach="2") == []
