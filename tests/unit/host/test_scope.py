"""Asking systemd for a scope, against a socket that answers as systemd would, or does not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.errors import HostLimit
from rootless.host import cgroups, dbus, scope
from tests.unit.host.test_dbus import answer, body, serve

OK = b"OK 0123456789abcdef\r\n"


def no(serial: int) -> bytes:
    return answer(dbus.ERROR, [(4, "s", "org.example.No"), (5, "u", serial), (8, "g", "s")], body("not allowed"))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory of a short name: a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="scope") as directory:
        yield Path(directory)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test's systemd listens; this process stays where it is."""
    path = tmp_path / "private"
    monkeypatch.setattr(cgroups, "manager_sockets", lambda host=None: [(str(path), False)])
    monkeypatch.setattr(cgroups, "unified_path", lambda pid="self": "/user.slice/session-1.scope")
    monkeypatch.setattr(scope, "TIMEOUT", 20.0)
    return path


def test_no_systemd_is_told() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cgroups, "manager_sockets", lambda host=None: [])
        with pytest.raises(HostLimit, match="cannot ask your systemd for a scope: no user manager"):
            scope.ask_for_scope()


def test_a_scope_is_there_when_the_process_is_in_it(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(systemd, OK)
    request = scope.ask_for_scope(unit="rootless-1-a.scope", pid=1)
    own = "/user@1.service/rootless.slice/rootless-1-a.scope"
    monkeypatch.setattr(cgroups, "unified_path", lambda pid="self": own)
    assert request.finish() == cgroups.ROOT + own


def test_a_refusal_is_told_in_systemds_words(systemd: Path) -> None:
    serve(systemd, OK, no(1))
    with pytest.raises(HostLimit, match=r"systemd made no scope 'x.scope': not allowed"):
        scope.ask_for_scope(unit="x.scope").finish()


def test_a_job_that_fails_is_told(systemd: Path) -> None:
    done = answer(dbus.SIGNAL, [(3, "s", "JobRemoved"), (8, "g", "uoss")], body(5, "/job/5", "x.scope", "failed"))
    other = answer(dbus.SIGNAL, [(3, "s", "JobRemoved"), (8, "g", "uoss")], body(6, "/job/6", "y.scope", "failed"))
    serve(systemd, OK, other, done)
    with pytest.raises(HostLimit, match="its job ended with 'failed'"):
        scope.ask_for_scope(unit="x.scope").finish()


def test_a_daemon_that_hangs_up_is_told(systemd: Path) -> None:
    serve(systemd, OK)
    with pytest.raises(HostLimit, match=r"systemd made no scope .* closed"):
        scope.ask_for_scope(unit="x.scope").finish()


def test_attaching(systemd: Path) -> None:
    serve(systemd, OK, answer(dbus.METHOD_RETURN, [(5, "u", 1)]))
    scope.attach_process("x.scope", "/container", 5)


def test_attaching_is_refused(systemd: Path) -> None:
    serve(systemd, OK, no(1))
    with pytest.raises(HostLimit, match=r"systemd did not move process 5 into 'x.scope': not allowed"):
        scope.attach_process("x.scope", "/container", 5)


def test_the_bus_is_asked_where_systemd_has_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hello = answer(dbus.METHOD_RETURN, [(5, "u", 1), (8, "g", "s")], body(":1.4"))
    serve(tmp_path / "bus", OK, hello, answer(dbus.METHOD_RETURN, [(5, "u", 2)]))
    sockets = [(str(tmp_path / "private"), False), (str(tmp_path / "bus"), True)]
    monkeypatch.setattr(cgroups, "manager_sockets", lambda host=None: sockets)
    scope.attach_process("x.scope", "/container", 5)
