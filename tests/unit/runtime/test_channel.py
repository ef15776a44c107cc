"""Messages between launcher and first process: the same on both ends, and readable by an earlier version's."""

from __future__ import annotations

import json
import os
import socket

import pytest

from rootless.errors import CommandNotFound, InvalidInput, RuntimeFailure
from rootless.kernel.netlink import Address
from rootless.runtime.channel import Channel, MovedDevice, Order, Report, pair
from rootless.runtime.spec.oci_state import OciState


def test_an_order_arrives_with_state_and_devices() -> None:
    ours, theirs = pair()
    order = Order("mapped", OciState("c", "creating", 7, "/bundle"))
    device = MovedDevice(3, "eth7", "eth0")
    device.addresses = [Address(2, 24, {1: "0a000001"})]
    order.devices = [device]
    ours.send(order)
    received = theirs.await_order("mapped")
    assert received.state is not None and received.state.to_json() == OciState("c", "creating", 7, "/bundle").to_json()
    assert [one.to_json() for one in received.devices] == [device.to_json()]


def test_reports_carry_points_warnings_errors_and_fds() -> None:
    ours, theirs = pair()
    theirs.send(Report("init", pid=41))
    theirs.warn("weaker than asked")
    failed = Report()
    failed.error = CommandNotFound("exec: no such file", hint="install it")
    theirs.send(failed)
    reader, writer = os.pipe()
    theirs.send(Report("console"), (writer,))
    first, _ = ours.receive_report()
    assert first is not None and (first.at, first.pid) == ("init", 41)
    second, _ = ours.receive_report()
    assert second is not None and second.warning == "weaker than asked"
    third, _ = ours.receive_report()
    assert third is not None and isinstance(third.error, CommandNotFound) and third.error.hint == "install it"
    fourth, fds = ours.receive_report()
    assert fourth is not None and fourth.at == "console" and len(fds) == 1
    for fd in (reader, writer, *fds):
        os.close(fd)
    theirs.close()
    assert ours.receive_report() == (None, [])


@pytest.mark.parametrize("message", ['{"at": 1}', '{"warning": ["x"]}', '{"pid": "1"}', "[]", "x"])
def test_what_is_no_report_is_refused(message: str) -> None:
    """A container may have taken over the process that writes: nothing of another type comes through."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.send(message.encode())
    with pytest.raises((InvalidInput, RuntimeFailure)):
        Channel(ours).receive_report()


def test_another_order_than_the_awaited_one_is_an_error() -> None:
    ours, theirs = pair()
    ours.send(Order("start"))
    with pytest.raises(RuntimeFailure, match="said 'start' in place of 'mapped'"):
        theirs.await_order("mapped")


def test_the_start_of_an_earlier_version_is_understood() -> None:
    """`rootless-oci start` before an update of the program, `create` after it, and the other way round."""
    state = {
        "ociVersion": "1.0.2",
        "id": "c",
        "pid": 5,
        "status": "created",
        "bundle": "/b",
        "owner": "",
        "rootfs": "/r",
    }
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for message in ({"do": "start", "state": state}, {"do": "start", "state": {}}):
        ours.send(json.dumps(message).encode())
        order = Channel(theirs).receive_order()
        assert order is not None and order.do == "start"
        assert (order.state is None) == (not message["state"])
    assert json.loads(json.dumps(Order("detach").to_json())) == {"do": "detach"}
