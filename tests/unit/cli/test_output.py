"""Printing: nothing from outside drives the user's terminal (TRAPS: terminal/log injection)."""

from __future__ import annotations

import io

import pytest

from rootless import output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_control_characters_are_shown_on_a_terminal() -> None:
    stream = Terminal()
    output.write("a\x1b[31mred\x07\x9b\x7f\u202eabc\tb\n", stream)
    assert stream.getvalue() == "a\\x1b[31mred\\a\\x9b\\x7f\\u202eabc\tb\n"


def test_other_readers_get_the_text_as_it_is() -> None:
    stream = io.StringIO()
    output.write("a\x1b[31mred", stream)
    assert stream.getvalue() == "a\x1b[31mred"


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.error("bad name 'x\ny\x1b]0;title\x07'")
    output.warn("a\rb")
    assert capsys.readouterr().err == "rootless: bad name 'x\\ny\\x1b]0;title\\a'\nwarning: a\\rb\n"


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.colored("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert output.colored("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.colored("x", "red", Terminal()) == "x"


def test_a_stream_that_cannot_show_a_character_gets_its_escape() -> None:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="ascii", write_through=True)
    output.write("é\udcff\n", stream)
    assert buffer.getvalue() == b"\\xe9\\udcff\n"


def test_json_is_docker_s() -> None:
    assert output.json_text({"a": ["é"]}) == '{\n    "a": [\n        "é"\n    ]\n}'
    assert output.json_text({"a": [1, "<"]}, indent=None) == '{"a":[1,"<"]}'
