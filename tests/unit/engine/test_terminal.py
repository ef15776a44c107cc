"""Detach keys as docker spells and matches them; raw mode that is always given back."""

import os
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.engine.container.terminal import DetachKeys, RawMode, is_terminal, parse_detach_keys, size
from rootless.errors import UsageError


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("CTRL-A,b", b"\x01b"),
        ("ctrl-@,ctrl-[,ctrl-_", b"\0\x1b\x1f"),
        ("", b""),
    ],
)
def test_detach_keys_are_parsed(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", "ctrl-p,,q", "é", "shift-a"])
def test_unknown_detach_keys_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_detach_keys(text)


def typed(keys: bytes, *pieces: bytes) -> tuple[bytes, bool]:
    detach = DetachKeys(keys)
    passed = b""
    for piece in pieces:
        more, ended = detach.filter(piece)
        passed += more
        if ended:
            return passed, True
    return passed, False


def test_sequence_detaches_also_when_typed_slowly() -> None:
    assert typed(b"\x10\x11", b"abc\x10", b"\x11") == (b"abc", True)


def test_half_a_sequence_is_passed_on_with_the_next_key() -> None:
    assert typed(b"\x10\x11", b"\x10") == (b"", False)
    assert typed(b"\x10\x11", b"\x10", b"x") == (b"\x10x", False)
    assert typed(b"\x10\x11", b"\x10", b"\x10", b"\x11") == (b"\x10", True)


def test_empty_sequence_never_detaches() -> None:
    assert typed(b"", b"\x10\x11") == (b"\x10\x11", False)


@given(st.lists(st.binary(max_size=6)), st.binary(min_size=1, max_size=3))
def test_nothing_typed_is_lost(pieces: list[bytes], keys: bytes) -> None:
    text = b"".join(pieces)
    passed, ended = typed(keys, *pieces)
    if ended:
        assert text[: len(passed) + len(keys)] == passed + keys
    else:
        held = text[len(passed) :]
        assert keys not in text
        assert text.startswith(passed)
        assert keys.startswith(held)


def test_raw_mode_is_given_back() -> None:
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    with RawMode(slave):
        assert not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_what_is_no_terminal_is_left_alone() -> None:
    read, write = os.pipe()
    with RawMode(read):
        pass
    assert not is_terminal(read)
    assert size(read) is None
    os.close(read)
    os.close(write)
