"""Messages of the DNS: questions of containers, hostile ones among them, and the answers."""

from __future__ import annotations

import os
import struct

import pytest

from rootless.network.shared import dns_message
from rootless.network.shared.dns_message import Question


def query(name: str, kind: int = dns_message.A, *, flags: int = 0x0100, tail: bytes = b"", others: int = 0) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".") if label)
    return struct.pack(">HHHHHH", 7, flags, 1, 0, 0, others) + labels + b"\0" + struct.pack(">HH", kind, 1) + tail


def test_a_question_and_its_answer() -> None:
    question = Question(query("Web.Net"))
    assert (question.name, question.kind, question.is_query, question.identity) == ("web.net", 1, True, 7)
    answer = question.answer_addresses(["10.89.0.2", "10.89.0.3"])
    identity, flags, questions, answers, _, _ = struct.unpack_from(">HHHHHH", answer)
    assert (identity, flags, questions, answers) == (7, 0x8580, 1, 2)
    assert answer[12:25] == query("Web.Net")[12:25]
    assert answer.endswith(bytes((10, 89, 0, 3)))
    assert question.has_answer(answer, 7)
    assert not question.has_answer(answer, 8)
    assert not Question(query("other")).has_answer(answer, 7)


def test_an_answer_by_udp_is_as_long_as_the_asker_allows() -> None:
    addresses = [f"10.89.0.{number}" for number in range(2, 200)]
    assert len(Question(query("x")).answer_addresses(addresses)) <= 512
    edns = b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0)
    assert 512 < len(Question(query("x", tail=edns, others=1)).answer_addresses(addresses)) <= 1232
    huge = b"\0" + struct.pack(">HHIH", 41, 65535, 0, 0)
    assert len(Question(query("x", tail=huge, others=1)).answer_addresses(addresses)) <= 4096


def test_names_without_an_address_and_reverse_names() -> None:
    question = Question(query("web", dns_message.AAAA))
    assert struct.unpack_from(">HHHH", question.answer_nothing())[3] == 0
    assert question.answer_nothing(dns_message.NO_SUCH_NAME)[3] & 0xF == 3
    assert dns_message.reverse_address("2.0.89.10.in-addr.arpa") == "10.89.0.2"
    for other in ("0.89.10.in-addr.arpa", "2.0.89.10.ip6.arpa", "x.0.89.10.in-addr.arpa", "256.0.89.10.in-addr.arpa"):
        assert dns_message.reverse_address(other) is None
    answer = Question(query("2.0.89.10.in-addr.arpa", dns_message.PTR)).answer_name("web.net")
    assert answer.endswith(b"\3web\3net\0")


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\0" * 11,
        query("web", flags=0x8100),  # an answer
        query("web")[:-1],
        struct.pack(">HHHHHH", 7, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",  # a pointer, to itself
        struct.pack(">HHHHHH", 7, 0, 1, 0, 0, 0) + b"\x3fx",
        query(".".join(["a" * 63] * 5)),
    ],
)
def test_what_is_no_question_is_dropped(packet: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Question(packet)


def test_other_operations_and_classes_are_no_queries() -> None:
    assert not Question(query("web", flags=0x2800)).is_query  # an update
    assert not Question(query("web")[:-1] + b"\3").is_query  # of the class CHAOS
    assert not Question(struct.pack(">HHHHHH", 7, 0, 2, 0, 0, 0) + query("web")[12:]).is_query
    assert Question(query("web", flags=0x2800)).answer_nothing(dns_message.NOT_IMPLEMENTED)[3] & 0xF == 4


def test_random_bytes_raise_nothing_else() -> None:
    for size in range(0, 300, 3):
        packet = bytearray(os.urandom(size))
        if size > 6:
            packet[2:6] = b"\1\0\0\1"
        try:
            Question(bytes(packet)).answer_addresses(["10.89.0.2"])
        except ValueError:
            pass
