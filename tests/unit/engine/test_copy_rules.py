"""docker's table of `cp`: what is copied where, by what is there."""

from __future__ import annotations

import pytest

from rootless.engine.files.cp_rules import CopyPlace, CopyPlacing, FoundDestination, base_name, choose, parse_place
from rootless.errors import InvalidInput, NotFound, UsageError

DIRECTORY = FoundDestination(True, True, "there")
FILE = FoundDestination(True, False, "there")
NOTHING = FoundDestination(False, False, "there")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web:/etc", CopyPlace("web", "/etc")),
        ("web:etc/x:y", CopyPlace("web", "etc/x:y")),
        ("/host/a:b", CopyPlace("", "/host/a:b")),
        ("./a:b", CopyPlace("", "./a:b")),
        ("../a:b", CopyPlace("", "../a:b")),
        ("file", CopyPlace("", "file")),
        (":file", CopyPlace("", ":file")),
        ("-", CopyPlace("", "-")),
    ],
)
def test_parse_place(text: str, place: CopyPlace) -> None:
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
        ("f", False, "/d", DIRECTORY, CopyPlacing(True, "f")),
        ("f", False, "/d/", DIRECTORY, CopyPlacing(True, "f")),
        ("f", False, "/there", FILE, CopyPlacing(False, "there")),
        ("f", False, "/there", NOTHING, CopyPlacing(False, "there")),
        ("d", True, "/d", DIRECTORY, CopyPlacing(True, "d")),
        (".", True, "/d", DIRECTORY, CopyPlacing(True, ".")),
        ("d", True, "/there", NOTHING, CopyPlacing(False, "there")),
        (".", True, "/there", NOTHING, CopyPlacing(False, "there")),
        ("d", True, "/there/", NOTHING, CopyPlacing(False, "there")),
    ],
)
def test_choose(name: str, is_directory: bool, path: str, found: FoundDestination, placing: CopyPlacing) -> None:
    assert choose(name, is_directory, path, found) == placing


def test_choose_refuses() -> None:
    with pytest.raises(InvalidInput, match="cannot copy a directory"):
        choose("d", True, "/there", FILE)
    with pytest.raises(NotFound, match="no such directory"):
        choose("f", False, "/there/", NOTHING)
