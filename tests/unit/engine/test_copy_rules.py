"""docker's table of `cp`: what is copied where, by what is there."""

from __future__ import annotations

import pytest

from rootless.engine.files.cp_rules import Found, Place, Placing, base_name, choose, parse_place
from rootless.errors import InvalidInput, NotFound, UsageError

DIRECTORY = Found(True, True, "there")
FILE = Found(True, False, "there")
NOTHING = Found(False, False, "there")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web:/etc", Place("web", "/etc")),
        ("web:etc/x:y", Place("web", "etc/x:y")),
        ("/host/a:b", Place("", "/host/a:b")),
        ("./a:b", Place("", "./a:b")),
        ("../a:b", Place("", "../a:b")),
        ("file", Place("", "file")),
        (":file", Place("", ":file")),
        ("-", Place("", "-")),
    ],
)
def test_parse_place(text: str, place: Place) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["web:", ""])
def test_parse_place_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        parse_place(text)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/b", "b"), ("/a/b/", "b"), ("/a/b/.", "."), ("/", "."), ("a", "a"), ("/.", "."), ("/a.", "a.")],
)
def test_base_name(path: str, name: str) -> None:
    assert base_name(path) == name


@pytest.mark.parametrize(
    ("name", "is_directory", "path", "found", "placing"),
    [
        ("f", False, "/d", DIRECTORY, Placing(True, "f")),
        ("f", False, "/d/", DIRECTORY, Placing(True, "f")),
        ("f", False, "/there", FILE, Placing(False, "there")),
        ("f", False, "/there", NOTHING, Placing(False, "there")),
        ("d", True, "/d", DIRECTORY, Placing(True, "d")),
        (".", True, "/d", DIRECTORY, Placing(True, ".")),
        ("d", True, "/there", NOTHING, Placing(False, "there")),
        (".", True, "/there", NOTHING, Placing(False, "there")),
        ("d", True, "/there/", NOTHING, Placing(False, "there")),
    ],
)
def test_choose(name: str, is_directory: bool, path: str, found: Found, placing: Placing) -> None:
    assert choose(name, is_directory, path, found) == placing


def test_choose_refuses() -> None:
    with pytest.raises(InvalidInput, match="cannot copy a directory"):
        choose("d", True, "/there", FILE)
    with pytest.raises(NotFound, match="no such directory"):
        choose("f", False, "/there/", NOTHING)
