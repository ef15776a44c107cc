"""The D-Bus client against bytes: what is sent, and that no answer, however hostile, does more than fail."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.host import dbus

TARGET = ("org.example", "/org/example", "org.example.Manager", "Do")


def answer(kind: int, fields: list[tuple[int, str, str | int]], body: bytes = b"") -> bytes:
    """A message as a daemon sends it."""
    writer = dbus.Writer()
    writer.buffer += struct.pack("<cBBBII", b"l", kind, 0, 1, len(body), 7)

    def fill() -> None:
        for code, signature, value in fields:
            writer.align(8)
            writer.buffer.append(code)
            writer.signature(signature)
            if signature == "g":
                writer.signature(str(value))
            elif isinstance(value, int):
                writer.number(value)
            else:
                writer.text(value)

    writer.array(8, fill)
    writer.align(8)
    return bytes(writer.buffer) + body


def body(*values: str | int) -> bytes:
    writer = dbus.Writer()
    for value in values:
        writer.number(value) if isinstance(value, int) else writer.text(value)
    return bytes(writer.buffer)


REFUSAL = answer(dbus.ERROR, [(4, "s", "org.example.No"), (5, "u", 3), (8, "g", "s")], body("not allowed"))
REMOVED = answer(dbus.SIGNAL, [(3, "s", "JobRemoved"), (8, "g", "uoss")], body(5, "/job/5", "x.scope", "failed"))


def test_a_call_is_what_busctl_sends() -> None:
    sent = dbus.encode_call(1, TARGET, "s", body("hello"))
    assert sent[:4] == b"l\x01\x00\x01" and struct.unpack_from("<II", sent, 4) == (10, 1)
    assert dbus.message_length(sent[:16]) == len(sent) and sent.endswith(b"\x05\x00\x00\x00hello\x00")
    decoded = dbus.decode_message(sent)
    assert (decoded.kind, decoded.member, decoded.texts) == (dbus.METHOD_CALL, "Do", ["hello"])


def test_properties_are_aligned() -> None:
    writer = dbus.Writer()
    writer.properties((("PIDs", (5, 6)), ("Delegate", True), ("Slice", "a.slice")))
    length = struct.unpack_from("<I", writer.buffer)[0]
    assert len(writer.buffer) == 8 + length and b"\x02au\x00" in writer.buffer and b"a.slice\x00" in writer.buffer


def test_answers_are_read() -> None:
    refused = dbus.decode_message(REFUSAL)
    assert (refused.kind, refused.error, refused.reply_to, refused.texts) == (
        dbus.ERROR, "org.example.No", 3, ["not allowed"],
    )  # fmt: skip
    removed = dbus.decode_message(REMOVED)
    assert removed.member == "JobRemoved" and removed.texts == ["/job/5", "x.scope", "failed"]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 200), st.integers(0, 255))
def test_nonsense_is_an_error_and_nothing_else(noise: bytes, at: int, value: int) -> None:
    flipped = bytearray(REFUSAL)
    flipped[at % len(flipped)] = value
    for message in (noise, bytes(flipped), REMOVED[: at % len(REMOVED)]):
        try:
            if len(message) >= 16:
                dbus.message_length(message[:16])
            dbus.decode_message(message)
        except OSError as e:
            assert e.errno == errno.EPROTO


def test_an_endless_message_is_refused() -> None:
    head = struct.pack("<cBBBIII", b"l", 2, 0, 1, 0xFFFFFFF0, 1, 0)
    with pytest.raises(OSError, match="a message of"):
        dbus.message_length(head)


def serve(path: Path, *pieces: bytes) -> threading.Thread:
    """A daemon that says `pieces` to the first client, whatever that says, and hangs up."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def work() -> None:
        connection, _ = listener.accept()
        with listener, connection, suppress(OSError):  # a client that has heard enough hangs up
            connection.recv(1 << 16)
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A socket's address, of 107 bytes at most: relative, as a test user's temporary directories can be longer."""
    monkeypatch.chdir(tmp_path)
    return Path("s")


@pytest.mark.parametrize("listener", ["own", "root", "other"])
def test_who_listens_is_asked(address: Path, monkeypatch: pytest.MonkeyPatch, listener: str) -> None:
    """The address of the bus may be anybody's."""
    own = os.geteuid()
    monkeypatch.setattr(
        socket.socket, "getsockopt", lambda *_: struct.pack("3i", 1, {"own": own, "root": 0}.get(listener, own + 1), 1)
    )
    thread = serve(address, b"OK 0123456789abcdef\r\n" + REFUSAL)
    if listener == "other":
        with pytest.raises(PermissionError, match="listens there"):
            dbus.Connection(str(address), is_bus=False)
    else:
        dbus.Connection(str(address), is_bus=False).close()
    thread.join(5)


def test_a_conversation_in_small_pieces(address: Path) -> None:
    text = b"OK 0123456789abcdef\r\n" + REFUSAL + REMOVED
    serve(address, *(text[i : i + 7] for i in range(0, len(text), 7)))
    connection = dbus.Connection(str(address), is_bus=False)
    assert connection.call(TARGET, "", b"") == 1
    first, second = connection.receive(20), connection.receive(20)
    assert first is not None and first.error == "org.example.No"
    assert second is not None and second.member == "JobRemoved"
    with pytest.raises(OSError, match="closed"):
        connection.receive(20)
    connection.close()


@pytest.mark.parametrize(
    ("said", "problem"), [(b"REJECTED EXTERNAL\r\n", "authentication refused"), (b"x" * 5000, "endless line")]
)
def test_a_refused_authentication(address: Path, said: bytes, problem: str) -> None:
    serve(address, said)
    with pytest.raises(OSError, match=problem):
        dbus.Connection(str(address), is_bus=True)


def test_no_call_is_sent_before_the_daemon_has_agreed(address: Path) -> None:
    """sd-bus as a server leaves a call that it has read along with BEGIN lying until more comes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(1)
        heard: list[bytes] = []

        def work() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(1 << 16))
                connection.sendall(b"OK 0123456789abcdef\r\n")
                heard.append(connection.recv(1 << 16))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        connection = dbus.Connection(str(address), is_bus=False)
        connection.call(TARGET, "", b"")
        thread.join(20)
        connection.close()
    assert heard[0].endswith(b"BEGIN\r\n") and heard[1].startswith(b"l\x01")
