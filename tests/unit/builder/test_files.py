"""Sources of COPY in a directory: wildcards, `/./` and `**` of --parents, links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.builder.context.context_files import matches, skip_nothing, without_depth
from rootless.errors import InvalidInput, NotFound


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    for name in ("a.c", "b.c", "src/x.c", "src/deep/y.c", "src/deep/er/z.c", "src/deep/er/z.h", "skip/s.c"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "outside.c").touch()
    (tmp_path / "root/link").symlink_to("src/deep")
    (tmp_path / "root/out").symlink_to("..")
    fd = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def found(root: int, source: str) -> list[tuple[str, str]]:
    """(path, what --parents keeps) of what `source` means; the directory `skip` is left out."""
    return [(one.path, one.under) for one in matches(root, source, lambda path, is_directory: path == "skip")]


def test_wildcards_of_one_name(root: int) -> None:
    assert found(root, "*.c") == [("a.c", "a.c"), ("b.c", "b.c")]
    assert found(root, "src/*/*.c") == [("src/deep/y.c", "src/deep/y.c")]
    assert found(root, "[b-z].c") == [("b.c", "b.c")]
    assert found(root, "nothing*") == []
    assert found(root, "li*/y.c") == [("src/deep/y.c", "link/y.c")]


def test_any_number_of_directories(root: int) -> None:
    assert found(root, "src/**/*.c") == [
        ("src/x.c", "src/x.c"),
        ("src/deep/y.c", "src/deep/y.c"),
        ("src/deep/er/z.c", "src/deep/er/z.c"),
    ]
    names = [path for path, _ in found(root, "**/*.c")]
    assert "a.c" in names and "src/deep/er/z.c" in names and "skip/s.c" not in names
    assert without_depth("src/**/a**") == "src/*/a**"


def test_the_mark_where_parents_begin(root: int) -> None:
    assert found(root, "src/./deep/y.c") == [("src/deep/y.c", "deep/y.c")]
    assert found(root, "./src/*.c") == [("src/x.c", "src/x.c")]
    assert found(root, "src/./**/z.*") == [("src/deep/er/z.c", "deep/er/z.c"), ("src/deep/er/z.h", "deep/er/z.h")]
    assert found(root, "src/**/er/./z.c") == [("src/deep/er/z.c", "z.c")]
    assert found(root, "/src/d*/./**/z.c") == [("src/deep/er/z.c", "er/z.c")]
    assert found(root, "src/./deep/./er") == [("src/deep/er", "deep/er")]  # the first mark counts
    assert found(root, "src/deep/er/.") == [("src/deep/er", "src/deep/er")]


def test_nothing_leads_out(root: int) -> None:
    """CVE-2024-1753 and its kin: links and `..` of a context stay inside of it."""
    assert found(root, "out/outside*") == []
    with pytest.raises(NotFound):
        found(root, "out/outside.c")
    with pytest.raises(NotFound):
        found(root, "../outside.c")
    assert found(root, "out/a.c") == [("a.c", "out/a.c")]


def test_what_is_not_there_or_malformed(root: int) -> None:
    with pytest.raises(NotFound, match="leaves it out"):
        found(root, "skip")
    with pytest.raises(NotFound, match="no such file"):
        matches(root, "absent", skip_nothing)
    with pytest.raises(InvalidInput, match="malformed pattern"):
        found(root, "[a")
