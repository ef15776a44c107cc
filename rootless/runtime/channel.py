"""The conversation between a launcher and the processes inside that it has forked: typed messages, and passed fds.

SOCK_SEQPACKET keeps message borders and tells the end of the peer as an empty read. The names of the members are a
format: `rootless-oci start` talks to a first process that another version of this program may have made.
"""

from __future__ import annotations

import array
import json
import os
import socket

from rootless.errors import RuntimeFailure
from rootless.host.answer import error_from_json, error_to_json, parse_object
from rootless.records.properties import INT32, UINT32, Properties
from rootless.runtime.spec.oci_state import OciState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.errors import RootlessError
    from rootless.kernel.netlink import Address
    from rootless.records.state import ContainerNamespaces

_BYTE = (0, 255)
MAXIMUM = 256 * 1024
"""Bytes of one message; an error with a long path stays far below."""


class MovedDevice:
    """An interface that has been moved. index: its number in the namespace that it left; old: its name there.

    name: in the container, where `%d` stands for a number of the kernel's choice; addresses: those it had, which the
    move takes away (the kernel flushes them).
    """

    __slots__ = ("addresses", "index", "name", "old")

    def __init__(self, index: int, old: str, name: str) -> None:
        self.index = index
        self.old = old
        self.name = name
        self.addresses: list[Address] = []

    def to_json(self) -> dict[str, object]:
        """A member of the order "mapped"."""
        addresses = [
            {"family": one.family, "prefix": one.prefix, "attributes": {str(k): v for k, v in one.attributes.items()}}
            for one in self.addresses
        ]
        return {"index": self.index, "old": self.old, "name": self.name, "addresses": addresses}

    @classmethod
    def from_json(cls, given: Properties) -> MovedDevice:
        """The reverse of `to_json`. Raises InvalidInput."""
        from rootless.kernel.netlink import Address

        device = cls(given.integer("index", UINT32), given.text("old"), given.text("name"))
        for one in given.objects("addresses"):
            attributes = {int(number): text for number, text in one.text_mapping("attributes").items()}
            address = Address(one.integer("family", _BYTE), one.integer("prefix", _BYTE), attributes)
            device.addresses.append(address)
        return device


class Report:
    """What a process inside tells its launcher. at: the point that it has reached, "" for a warning or an error.

    pid: of the process that was forked, at "init"; namespaces: its own, told there by a process that may have company
    in one of them; warning: one line; error: what keeps the process from going on.
    """

    __slots__ = ("at", "error", "namespaces", "pid", "warning")

    def __init__(self, at: str = "", *, pid: int = 0, warning: str = "") -> None:
        self.at = at
        self.pid = pid
        self.warning = warning
        self.error: RootlessError | OSError | None = None
        self.namespaces: ContainerNamespaces | None = None

    def to_json(self) -> dict[str, object]:
        """The message, of which the launcher reads one member: error, warning, or at."""
        if self.error is not None:
            return {"error": error_to_json(self.error)}
        if self.warning:
            return {"warning": self.warning}
        message: dict[str, object] = {"at": self.at, "pid": self.pid}
        if self.namespaces is not None:
            message["namespaces"] = self.namespaces.to_json()
        return message

    @classmethod
    def from_json(cls, value: object) -> Report:
        """The reverse of `to_json`. Raises InvalidInput: what is inside may have been taken over by an attacker."""
        given = Properties(value, "report")
        report = cls(given.text("at"), pid=given.integer("pid", INT32), warning=given.text("warning"))
        error = given.value("error")
        report.error = None if error is None else error_from_json(error)
        namespaces = given.value("namespaces")
        if namespaces is not None:
            from rootless.records.fields import Fields
            from rootless.records.state import ContainerNamespaces

            report.namespaces = ContainerNamespaces.from_json(Fields(namespaces, "report"))
        return report


class Order:
    """What the launcher has a process inside do. do: mapped, hooked, join, start, detach or "go on".

    state: of the container, for hooks; devices: the interfaces to settle, of "mapped".
    """

    __slots__ = ("devices", "do", "state")

    def __init__(self, do: str, state: OciState | None = None) -> None:
        self.do = do
        self.state = state
        self.devices: list[MovedDevice] = []

    def to_json(self) -> dict[str, object]:
        """The message, without the members that the order does not have."""
        known: dict[str, object] = {"do": self.do}
        if self.state is not None:
            known["state"] = self.state.to_json()
        if self.devices:
            known["devices"] = [device.to_json() for device in self.devices]
        return known

    @classmethod
    def from_json(cls, value: object) -> Order:
        """The reverse of `to_json`. Raises InvalidInput."""
        given = Properties(value, "order")
        state = given.value("state")
        # an empty state is that of a start without hooks, as earlier versions wrote it
        order = cls(given.text("do"), OciState.from_json(state) if state else None)
        order.devices = [MovedDevice.from_json(device) for device in given.objects("devices")]
        return order


class Channel:
    """One end of a connected socket."""

    __slots__ = ("_socket",)

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, message: Report | Order, fds: tuple[int, ...] = ()) -> None:
        """Send one message, and duplicates of `fds` with it. Raises OSError (EPIPE when the peer is gone)."""
        payload = json.dumps(message.to_json()).encode()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._socket.sendmsg([payload], ancillary, socket.MSG_NOSIGNAL)

    def warn(self, text: str) -> None:
        """Send one line of warning to the launcher."""
        self.send(Report(warning=text))

    def receive_report(self) -> tuple[Report | None, list[int]]:
        """The next report and the fds that came with it; None when the peer has closed or ended."""
        payload, fds = self._receive()
        return (Report.from_json(parse_object(payload)) if payload else None), fds

    def receive_order(self) -> Order | None:
        """The next order; None when the launcher is gone. Orders carry no fds: those that came are closed."""
        payload, fds = self._receive()
        for fd in fds:
            os.close(fd)
        return Order.from_json(parse_object(payload)) if payload else None

    def await_order(self, do: str) -> Order:
        """The next order, which must be `do`: RuntimeFailure for another. Ends this process when the launcher is gone:
        with it everybody is gone who could want this process."""
        order = self.receive_order()
        if order is None:
            os._exit(1)
        if order.do != do:
            raise RuntimeFailure(f"the launcher said '{order.do}' in place of '{do}'")
        return order

    def _receive(self) -> tuple[bytes, list[int]]:
        size = socket.CMSG_SPACE(4 * array.array("i").itemsize)
        try:
            payload, ancillary, _, _ = self._socket.recvmsg(MAXIMUM, size, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            # the peer ended with a message of ours unread
            return b"", []
        fds: list[int] = []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                fds.extend(numbers)
        if not payload:
            for fd in fds:
                os.close(fd)
            return b"", []
        return payload, fds

    def peer_is_gone(self) -> bool:
        """Whether the other end is closed, without taking a message."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def fileno(self) -> int:
        """The descriptor of the socket, for poll(2); the channel goes on owning it."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end; harmless when closed."""
        self._socket.close()


def pair() -> tuple[Channel, Channel]:
    """A pair of connected channels: one for the launcher, one for the process that it forks."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), Channel(theirs)
