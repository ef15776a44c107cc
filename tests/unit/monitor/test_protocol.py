"""Frames survive any cutting of the stream; what is not a frame is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import CommandNotExecutable, CommandNotFound, InvalidInput, RuntimeFailure
from rootless.monitor import protocol
from rootless.records.fields import Fields
from rootless.records.membership import Attachment

frames = st.lists(st.tuples(st.integers(0, protocol.LAST_TYPE), st.binary(max_size=300)), max_size=8)


@given(frames, st.integers(1, 40))
def test_decoder_gives_back_what_was_framed(wanted: list[tuple[int, bytes]], step: int) -> None:
    stream = b"".join(protocol.encode_frame(kind, payload) for kind, payload in wanted)
    decoder = protocol.Decoder()
    got = []
    for start in range(0, len(stream), step):
        got += decoder.feed(stream[start : start + step])
    assert got == wanted


@pytest.mark.parametrize("bad", [b"\xff\0\0\0\0", b"\0\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n"])
def test_what_is_no_frame_is_refused(bad: bytes) -> None:
    with pytest.raises(InvalidInput):
        protocol.Decoder().feed(bad)


def test_payload_has_a_bound() -> None:
    with pytest.raises(ValueError, match="payload"):
        protocol.encode_frame(protocol.STDOUT, bytes(protocol.MAX_PAYLOAD + 1))


@pytest.mark.parametrize(("kind", "code"), [(CommandNotFound, 127), (CommandNotExecutable, 126), (RuntimeFailure, 125)])
def test_errors_keep_kind_hint_and_exit_code(kind: type[RuntimeFailure], code: int) -> None:
    [(_, payload)] = protocol.Decoder().feed(protocol.error_message(kind("cannot run 'x'", hint="do y")))
    error = protocol.ErrorNotice.from_json(protocol.read_payload(payload)).error()
    assert type(error) is kind
    assert (error.message, error.hint, error.exit_code) == ("cannot run 'x'", "do y", code)


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"null", b"\xff"])
def test_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidInput):
        protocol.read_payload(payload)


def test_resize_is_cut_to_what_a_terminal_has() -> None:
    [(_, payload)] = protocol.Decoder().feed(protocol.encode_resize(-1, 70000))
    assert protocol.SIZE.unpack(payload) == (0, 65535)


def payload_of(frame: bytes) -> Fields:
    [(_, payload)] = protocol.Decoder().feed(frame)
    return protocol.read_payload(payload)


def test_messages_come_back_as_they_were_sent() -> None:
    attach = protocol.AttachRequest(stdin=True, stdout=False, stderr=True, size=(24, 80))
    launch = protocol.LaunchRequest.from_json(payload_of(protocol.encode_message(protocol.LaunchRequest("/c", attach))))
    assert launch.directory == "/c"
    assert launch.attach is not None
    assert launch.attach.to_json() == attach.to_json()
    assert (
        protocol.LaunchRequest.from_json(payload_of(protocol.encode_message(protocol.LaunchRequest("/c")))).attach
        is None
    )
    started = protocol.StartNotice.from_json(payload_of(protocol.encode_message(protocol.StartNotice(7, ["no swap"]))))
    assert (started.pid, started.warnings) == (7, ["no swap"])
    assert protocol.ExitNotice.from_json(payload_of(protocol.encode_message(protocol.ExitNotice(3)))).exit_code == 3


def test_frames_have_the_type_of_their_message() -> None:
    attach = protocol.AttachRequest(stdin=True, stdout=True, stderr=True)
    notices = (attach, protocol.LaunchRequest("/c"), protocol.StartNotice(1), protocol.ExitNotice(0))
    kinds = [protocol.Decoder().feed(protocol.encode_message(notice))[0][0] for notice in notices]
    assert kinds == [protocol.ATTACH, protocol.LAUNCH, protocol.STARTED, protocol.EXIT]


@pytest.mark.parametrize("payload", [b'{"exit_code": "0"}', b"{}", b'{"exit_code": null}', b'{"exit_code": true}'])
def test_a_member_of_a_wrong_type_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidInput, match="exit_code"):
        protocol.ExitNotice.from_json(protocol.read_payload(payload))


def test_a_request_about_networks_is_read_back() -> None:
    attachment = Attachment("net", "ab" * 32, "10.90.0.0/24", "10.90.0.1")
    for request in (protocol.NetworkRequest(attachment), protocol.NetworkRequest(None, "ab" * 32)):
        [(kind, payload)] = protocol.Decoder().feed(protocol.encode_message(request))
        assert kind == protocol.NETWORK
        assert protocol.NetworkRequest.from_json(protocol.read_payload(payload)).to_json() == request.to_json()
