"""Asks the user's systemd for a delegated scope, and to move processes into it. It writes to no cgroup itself.

From a login session a process cannot be moved into the user manager's tree by the user: the common ancestor is root's.
systemd does it (StartTransientUnit, AttachProcessesToUnit). The request is sent first and awaited when the rest of the
set-up is done.
"""

from __future__ import annotations

import os
import time

from rootless.errors import HostLimit
from rootless.host import cgroups, dbus

SLICE = "rootless.slice"
"""All scopes of this tool are below this slice of the user's systemd."""
TIMEOUT = 10.0  # seconds
_SYSTEMD = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = f"{_SYSTEMD}.Manager"
_LOOK = 0.01  # seconds between looks at /proc while the answer is awaited


class Request:
    """A scope that systemd was asked for and may not have made yet. unit: its name; pid: the process it is made for."""

    __slots__ = ("_connection", "_deadline", "_serial", "pid", "unit")

    def __init__(self, connection: dbus.Connection, serial: int, unit: str, pid: int) -> None:
        self._connection = connection
        self._serial = serial
        self._deadline = time.monotonic() + TIMEOUT
        self.unit = unit
        self.pid = pid

    def finish(self) -> str:
        """Wait until the process is in the scope, and return its directory. Raises HostLimit with systemd's own words.

        /proc/PID/cgroup is looked at as well as the answer: it shows the process in the scope before systemd reports
        that the job is done.
        """
        problem = f"systemd did not answer within {TIMEOUT:g} seconds"
        try:
            while time.monotonic() < self._deadline:
                path = self._arrived()
                if path:
                    return path
                message = self._connection.receive(_LOOK)
                refusal = _refusal(message, self._serial, self.unit)
                if refusal:
                    problem = refusal
                    break
        except OSError as e:
            problem = e.strerror or str(e)
        finally:
            self._connection.close()
        raise HostLimit(f"systemd made no scope '{self.unit}': {problem}", hint="log in through PAM, not by su")

    def _arrived(self) -> str:
        try:
            own = cgroups.unified_path(self.pid)
        except OSError:
            return ""
        return f"{cgroups.ROOT}{own}" if f"/{self.unit}" in own else ""

    def close(self) -> None:
        """Close the connection. A scope that systemd makes all the same ends with its process."""
        self._connection.close()


def ask_for_scope(*, slice_name: str = SLICE, unit: str = "", pid: int = 0) -> Request:
    """Ask for a scope with Delegate=yes around `pid` (0: this process), without waiting. Raises HostLimit."""
    pid = pid or os.getpid()
    unit = unit or f"rootless-{pid}-{os.urandom(4).hex()}.scope"
    body = dbus.Writer()
    body.text(unit)
    body.text("fail")
    body.properties(
        (
            ("Description", "container of rootless"),
            ("Slice", slice_name),
            ("PIDs", (pid,)),
            ("Delegate", True),
            ("CollectMode", "inactive-or-failed"),
        )
    )
    body.array(8, lambda: None)
    try:
        connection = _connect()
        serial = connection.call(
            (_SYSTEMD, _PATH, _MANAGER, "StartTransientUnit"), "ssa(sv)a(sa(sv))", bytes(body.buffer)
        )
    except OSError as e:
        raise HostLimit(
            f"cannot ask your systemd for a scope: {e.strerror or e}", hint="log in through PAM, not by su"
        ) from e
    return Request(connection, serial, unit, pid)


def attach_process(unit: str, subgroup: str, pid: int, timeout: float = TIMEOUT) -> None:
    """Have systemd move `pid` into `subgroup` ("/container") of a delegated unit. Raises HostLimit."""
    body = dbus.Writer()
    body.text(unit)
    body.text(subgroup)
    body.numbers((pid,))
    try:
        connection = _connect()
        try:
            serial = connection.call((_SYSTEMD, _PATH, _MANAGER, "AttachProcessesToUnit"), "ssau", bytes(body.buffer))
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline:
                message = connection.receive(deadline - time.monotonic())
                if message is None or message.reply_to != serial:
                    continue
                if message.kind == dbus.ERROR:
                    raise HostLimit(f"systemd did not move process {pid} into '{unit}': {_words(message)}")
                return
        finally:
            connection.close()
    except OSError as e:
        raise HostLimit(f"cannot ask your systemd to move process {pid}: {e.strerror or e}") from e
    raise HostLimit(f"systemd did not answer within {timeout:g} seconds")


def _connect() -> dbus.Connection:
    """A connection to the user's systemd: by its own socket where that answers, which needs no bus, else by the bus."""
    problem: OSError = FileNotFoundError(2, "no user manager of systemd is there")
    for path, is_bus in cgroups.manager_sockets():
        try:
            return dbus.Connection(path, is_bus=is_bus)
        except OSError as e:
            problem = e
    raise problem


def _refusal(message: dbus.Message | None, serial: int, unit: str) -> str:
    """Why there will be no scope, as far as `message` says; empty while all is well."""
    if message is None:
        return ""
    if message.kind == dbus.ERROR and message.reply_to == serial:
        return _words(message)
    if message.kind == dbus.SIGNAL and message.member == "JobRemoved" and unit in message.texts:
        result = message.texts[-1]
        return "" if result == "done" else f"its job ended with '{result}'"
    return ""


def _words(message: dbus.Message) -> str:
    return (message.texts[0] if message.texts else message.error)[:500]
