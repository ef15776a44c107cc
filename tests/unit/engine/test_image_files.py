"""Reading passwd out of hostile layers: links stay inside, only regular files count, nothing hangs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootless.engine.image.image_files import MAX_FILE, read_from_layers
from rootless.errors import InvalidInput
from tests.conftest import require


def layer(root: Path, name: str) -> Path:
    (root / name / "etc").mkdir(parents=True)
    return root / name


def test_the_topmost_layer_wins(tmp_path: Path) -> None:
    top, bottom = layer(tmp_path, "top"), layer(tmp_path, "bottom")
    (bottom / "etc/passwd").write_text("old")
    assert read_from_layers([str(top), str(bottom)], "etc/passwd") == "old"
    (top / "etc/passwd").write_text("new")
    assert read_from_layers([str(top), str(bottom)], "etc/passwd") == "new"


def test_an_absent_file_is_empty(tmp_path: Path) -> None:
    assert read_from_layers([str(layer(tmp_path, "a"))], "etc/passwd") == ""


def test_links_stay_inside_the_root(tmp_path: Path) -> None:
    """CVE-2024-9676."""
    (tmp_path / "secret").write_text("host")
    root = layer(tmp_path, "a")
    (root / "etc/passwd").symlink_to(tmp_path / "secret")
    assert read_from_layers([str(root)], "etc/passwd") == ""
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("../../../../usr/passwd")
    (root / "usr").mkdir()
    (root / "usr/passwd").write_text("inside")
    assert read_from_layers([str(root)], "etc/passwd") == "inside"


@pytest.mark.parametrize("kind", ["fifo", "directory", "large"])
def test_only_bounded_regular_files_count(tmp_path: Path, kind: str) -> None:
    """CVE-2024-9341: a FIFO must not make us wait, a huge file not fill our memory."""
    root = layer(tmp_path, "a")
    path = root / "etc/passwd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, MAX_FILE + 1)
    with pytest.raises(InvalidInput):
        read_from_layers([str(root)], "etc/passwd")


def test_an_opaque_directory_hides_lower_layers(tmp_path: Path) -> None:
    top, bottom = layer(tmp_path, "top"), layer(tmp_path, "bottom")
    (bottom / "etc/passwd").write_text("old")
    try:
        os.setxattr(top / "etc", "user.overlay.opaque", b"y")
    except OSError:
        require(False, "no user.* attributes on this file system")
    assert read_from_layers([str(top), str(bottom)], "etc/passwd") == ""


def test_a_file_in_the_place_of_a_directory_hides_lower_layers(tmp_path: Path) -> None:
    top, bottom = tmp_path / "top", layer(tmp_path, "bottom")
    top.mkdir()
    (top / "etc").write_text("no directory")
    (bottom / "etc/passwd").write_text("old")
    assert read_from_layers([str(top), str(bottom)], "etc/passwd") == ""
