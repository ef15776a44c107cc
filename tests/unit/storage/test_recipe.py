"""The format of recipes: what is written comes back, whatever is damaged is told, replaced files are found."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootless.errors import InvalidInput
from rootless.storage.layers.rebuild import Rebuilder, _Places
from rootless.storage.tar import recipe
from rootless.storage.tar.recipe import Moved, RecipeWriter, crc32, make_opener, read_moved, read_steps

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("raw"), st.binary(max_size=1500)),
        st.tuples(st.just("file"), st.sampled_from([b"a", b"b/c", b"\xff\n"]), st.integers(1, 1 << 40)),
    ),
    max_size=60,
)


def write(directory: Path, steps: list[tuple]) -> RecipeWriter:  # type: ignore[type-arg]
    with RecipeWriter.create(str(directory)) as writer:
        for step in steps:
            if step[0] == "raw":
                writer.raw(step[1])
            else:
                writer.payload(step[1], step[2], crc=7)
    return writer


def flat(found: list[tuple]) -> list[tuple]:  # type: ignore[type-arg]
    """Steps with neighbouring raw bytes joined."""
    joined: list[tuple] = []  # type: ignore[type-arg]
    for step in found:
        if step[0] == "raw" and joined and joined[-1][0] == "raw":
            joined[-1] = ("raw", joined[-1][1] + step[1])
        elif step[0] != "raw" or step[1]:
            joined.append(step)
    return joined


@pytest.mark.parametrize("has_zstd", [True, False])
@given(steps=STEPS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, has_zstd: bool, steps: list[tuple[str, bytes]]
) -> None:
    directory = tmp_path_factory.mktemp("r")
    with pytest.MonkeyPatch.context() as patch:
        if not has_zstd:
            patch.setattr(recipe, "_compressor", lambda: ("recipe.gz", zlib.compressobj(6, zlib.DEFLATED, 31)))
        writer = write(directory, steps)
    path = recipe.find_recipe(str(directory))
    assert path is not None and path.endswith(".zst" if has_zstd else ".gz")
    found: list[tuple] = []  # type: ignore[type-arg]
    for step in read_steps(make_opener(path)):
        found += [("raw", step.raw), *([("file", step.path, step.size)] if step.size else [])]
    assert flat(found) == flat(list(steps))
    assert writer.tar_size == sum(len(s[1]) if s[0] == "raw" else s[2] for s in steps)  # type: ignore[misc]


def test_long_raw_bytes_are_cut_into_steps(tmp_path: Path) -> None:
    write(tmp_path, [("raw", os.urandom(5 << 20))])
    steps = list(read_steps(make_opener(str(tmp_path / "recipe.zst"))))
    assert max(len(step.raw) for step in steps) <= 2 << 20 and sum(len(step.raw) for step in steps) == 5 << 20


@pytest.mark.parametrize("name", recipe.NAMES)
@pytest.mark.parametrize("change", ["cut", "flip", "empty", "magic"])
def test_a_damaged_recipe_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: str) -> None:
    if name.endswith(".gz"):
        monkeypatch.setattr(recipe, "_compressor", lambda: (name, zlib.compressobj(6, zlib.DEFLATED, 31)))
    if change == "magic":
        monkeypatch.setattr(recipe, "MAGIC", b"something else 0\n")
    write(tmp_path, [("raw", os.urandom(3000)), ("file", b"x", 10)])
    monkeypatch.undo()
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    if change != "magic":
        path.write_bytes({"cut": content[: len(content) // 2], "flip": content, "empty": b""}[change])
    with pytest.raises(InvalidInput, match="recipe"):
        list(read_steps(make_opener(str(path))))


def test_moves_are_found_by_time(tmp_path: Path) -> None:
    with RecipeWriter.create(str(tmp_path)) as writer:
        writer.payload(b"d/f", 1)  # 0
        assert writer.replaced(b"d/f") == 0
        writer.payload(b"d/f", 1)  # 1
        writer.payload(b"d/g", 1)  # 2
        assert writer.replaced(b"d") == 1
        writer.payload(b"d/f", 1)  # 3 stays
    moved = read_moved(make_opener(str(tmp_path / "recipe.zst")))
    assert moved == [Moved(b"d/f", 1, 0), Moved(b"d", 3, 1)]
    places = _Places(moved)
    found = [places.find(path, step) for step, path in enumerate([b"d/f", b"d/f", b"d/g", b"d/f"])]
    assert found == [b"0", b"1/f", b"1/g", None]


def test_payloads_are_checked(tmp_path: Path) -> None:
    (tmp_path / "diff").mkdir()
    (tmp_path / "diff/f").write_bytes(b"0123456789")
    with RecipeWriter.create(str(tmp_path)) as writer:
        writer.raw(b"<")
        writer.payload(b"f", 4, offset=3, crc=crc32(b"3456"))
        writer.raw(b">")
        writer.payload(b"gone", 3, crc=1)
    damages: list[str] = []
    player = Rebuilder(str(tmp_path), damages.append)
    player.enter(str(tmp_path))
    assert b"".join(player.pieces()) == b"<3456>\0\0\0"
    assert damages == ["file 'gone' of the layer is damaged: No such file or directory"]
    (tmp_path / "diff/f").write_bytes(b"012x456789")
    damages.clear()
    assert b"".join(player.pieces()) == b"<x456>\0\0\0" and "content has changed" in damages[0]
    strict = Rebuilder(str(tmp_path))
    strict.enter(str(tmp_path))
    with pytest.raises(InvalidInput, match="gone"):
        b"".join(strict.pieces())
